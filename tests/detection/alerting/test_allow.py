"""Allow-lists match what they say, until they end, and a wrong entry is named with its line."""

from __future__ import annotations

from datetime import UTC
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.detection.alerting.samples import SECOND, START_NS, make_alert, make_row
from veilwatch.detection.alerting.allow import CRITERIA, MAX_ENTRIES, parse_allow
from veilwatch.errors import VeilwatchError
from veilwatch.sensor.template import toml

JA4 = "t13d1516h2_8daaf6152771_02713d6af862"


def entry(criteria: str, until: str = "2026-12-31") -> str:
    return f'[[allow]]\nreason = "known"\nuntil = {until}\n{criteria}\n'


@pytest.mark.parametrize(
    ("criteria", "alert", "row", "expected"),
    [
        ('host = "10.0.0.0/24"', {}, {}, True),
        ('host = "10.0.0.5"', {}, {}, True),
        ('host = "10.0.1.0/24"', {}, {}, False),
        ('host = ["10.0.1.0/24", "10.0.0.5"]', {}, {}, True),
        ('host = "fd00::/8"', {"host": "fd00::1"}, {}, True),
        ('host = "10.0.0.0/8"', {"host": "fd00::1"}, {}, False),
        ('host = "10.0.0.0/8"', {"host": "no address"}, {}, False),
        ('subscriber = "abc"', {"subscriber": "abc"}, {}, True),
        ('subscriber = "abc"', {"subscriber": ""}, {}, False),
        ('destination = "203.0.113.0/24"', {}, {}, True),
        ('destination = "203.0.113.0/24"', {"kind": "host"}, {}, False),
        ('host = "10.0.0.5"', {"kind": "host"}, {}, True),
        ('name = "cdn.example"', {}, {}, True),
        ('name = "CDN.example."', {}, {"tls_sni": "Cdn.Example"}, True),
        ('name = "cdn.example"', {}, {"tls_sni": "a.cdn.example"}, False),
        ('name = ".example"', {}, {}, True),
        ('name = ".cdn.example"', {}, {}, True),
        ('name = ".cdn.example"', {}, {"tls_sni": "evilcdn.example"}, False),
        ('name = ".example"', {}, {"tls_sni": ""}, False),
        ('name = ".example"', {}, {"tls_sni": "", "dns_query": "x.example"}, True),
        (f'ja4 = "{JA4}"', {}, {}, True),
        (f'ja3 = "{"0" * 32}"', {}, {}, True),
        (f'ja3 = "{"1" * 32}"', {}, {}, False),
        ("port = 443", {}, {}, True),
        ('port = [80, "400-500"]', {}, {}, True),
        ('port = "444-500"', {}, {}, False),
        ('host = "10.0.0.5"\nport = 80', {}, {}, False),
        ('host = "0.0.0.0/0"\nport = 443', {}, {}, True),
    ],
)
def test_criteria(
    criteria: str, alert: dict[str, Any], row: dict[str, Any], expected: bool
) -> None:
    allow = parse_allow(entry(criteria))
    found = allow.match(make_alert(**alert), make_row(**row), START_NS)
    assert (found is not None) is expected


def test_an_entry_ends() -> None:
    allow = parse_allow(
        entry('host = "10.0.0.5"', "2026-05-31") + entry("port = 443", "2026-06-01T08:40:01Z")
    )
    assert [item.line for item in allow.expired(START_NS)] == [1]
    assert allow.match(make_alert(), make_row(), START_NS) is allow.entries[1]
    assert allow.match(make_alert(), make_row(), START_NS + SECOND) is None
    assert len(allow.expired(START_NS + SECOND)) == 2


def test_a_date_counts_to_its_end() -> None:
    allow = parse_allow(entry("port = 443", "2026-06-01"))
    midnight = START_NS + (15 * 3600 + 20 * 60) * SECOND
    assert allow.match(make_alert(), make_row(), midnight - 1)
    assert not allow.match(make_alert(), make_row(), midnight)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[[allow", "not TOML"),
        ("allow = 3", "no list of tables"),
        ("[[permit]]", "'permit'"),
        ("[[allow]]\nuntil = 2026-12-31\nport = 1", "a.toml:1: an entry needs a reason"),
        ('[[allow]]\nreason="x"\nport = 1', "needs `until`"),
        ('[[allow]]\nreason="x"\nuntil="2026-12-31"\nport = 1', "without quotes"),
        ("\n\n" + entry("prot = 443"), "a.toml:3: unknown key 'prot'"),
        (entry("port = 1") + entry('port = "x"'), "a.toml:5: `port` holds 'x'"),
        (entry("port = 70000"), "0 to 65535"),
        (entry("port = true"), "`port` holds True"),
        (entry('port = "9-1"'), "0 to 65535"),
        (entry('host = "10.0.0.1/8"'), "host bits"),
        (entry('host = "server"'), "`host` holds 'server'"),
        (entry("host = []"), "0 values"),
        (entry("host = 5"), "no text"),
        (entry('name = "*.example"'), ".example for all below"),
        (entry('name = "."'), "`name` holds"),
        (entry('ja3 = "t13"'), "JA3"),
        (entry('ja4 = "t13"'), "JA4"),
        (entry(""), "allows everything"),
        (entry('host = "0.0.0.0/0"'), "allows everything"),
        (entry('host = ["10.0.0.1", "::/0"]'), "allows everything"),
        (entry("port = 1") * (MAX_ENTRIES + 1), "at most 1,000"),
    ],
)
def test_a_wrong_entry_is_named(text: str, told: str) -> None:
    with pytest.raises(VeilwatchError) as caught:
        parse_allow(text, "a.toml")
    assert told in str(caught.value) and "\n" not in str(caught.value)


KEYS = st.sampled_from(["reason", "until", *CRITERIA, "other"])
VALUES = st.recursive(
    st.one_of(
        *(st.text(max_size=8), st.integers(-(2**40), 2**40), st.booleans(), st.floats()),
        *(st.dates(), st.datetimes(), st.datetimes(timezones=st.just(UTC)), st.times()),
        st.sampled_from(["10.0.0.0/8", "::/0", ".example", "1-2", "", "-", "9" * 30]),
    ),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)


@given(st.lists(st.dictionaries(KEYS, VALUES, max_size=9), max_size=3))
def test_any_entry_is_taken_or_refused(tables: list[dict[str, Any]]) -> None:
    text = "".join(
        "[[allow]]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in table.items())
        for table in tables
    )
    try:
        allow = parse_allow(text)
    except VeilwatchError as error:
        assert "\n" not in str(error)
    else:
        allow.match(make_alert(), make_row(), START_NS)
        assert len(allow.entries) == len(tables)


def test_entries_written_another_way_have_no_line() -> None:
    text = 'allow = [{reason = "x", until = 2026-12-31, port = 1}]'
    assert [item.line for item in parse_allow(text).entries] == [0]
