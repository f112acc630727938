"""Names that destinations were resolved from, against a plain-Python reading."""

from __future__ import annotations

import math
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.learning.features.factory import random_flows
from veilwatch.learning.features.resolved import MAX_AGE_NS, RESOLVED_COLUMNS, resolved_names
from veilwatch.schema.flows import FLOW_COLUMNS

Row = dict[str, Any]
START = 1_700_000_000 * 10**9
SCHEMA = {
    **{column.name: column.dtype for column in FLOW_COLUMNS if column.name in RESOLVED_COLUMNS},
    "place": pl.UInt32,
}


def flow(**values: Any) -> Row:
    """Return a flow of 10.0.0.1 to a web server."""
    return {
        "place": 0,
        "src_ip": "10.0.0.1",
        "subscriber": "",
        "src_port": 40_000,
        "dst_ip": "192.0.2.1",
        "dst_port": 443,
        "first_ns": START,
        "fwd_start": 0.0,
        "bwd_start": 0.0,
        "dns_query": "",
        "dns_addresses": [],
    } | values


def lookup(name: str, *addresses: str, at: int = -10, **values: Any) -> Row:
    """Return a question that was answered some seconds from the start."""
    ends = {"dst_ip": "10.0.0.53", "dst_port": 53, "first_ns": START + at * 10**9}
    return flow(**ends | {"dns_query": name, "dns_addresses": list(addresses)} | values)


def table(rows: list[Row]) -> pl.DataFrame:
    return pl.DataFrame(rows, SCHEMA)


def names(*rows: Row) -> list[str]:
    return resolved_names(table(list(rows))).to_list()


def naive(rows: list[Row]) -> list[str]:
    """Read the documentation flow by flow."""
    told = []
    for row in rows:
        ports = row["src_port"], row["dst_port"]
        if 53 not in ports or not row["dns_query"]:
            continue
        turned = ports[1] != 53
        asker = row["dst_ip"] if turned else row["src_ip"]
        after = row["fwd_start"] if turned else row["bwd_start"]
        after = pl.Series([after], dtype=pl.Float32).cast(pl.Float64).item()
        time = row["first_ns"] + (0 if math.isnan(after) else int(after * 10**9))
        host = row["place"], asker, row["subscriber"]
        told.append((time, row["dns_query"], host, row["dns_addresses"]))
    told.sort(key=lambda item: item[:2])
    found = []
    for row in rows:
        host = row["place"], row["src_ip"], row["subscriber"]
        usable = [
            (asker, name)
            for time, name, asker, addresses in told
            if asker[0] == row["place"]
            and row["dst_ip"] in addresses
            and 0 <= row["first_ns"] - time <= MAX_AGE_NS
        ]
        own = [name for asker, name in usable if asker == host]
        found.append(([""] + [name for _, name in usable] + own)[-1])
    return found


ADDRESSES = st.sampled_from(["192.0.2.1", "192.0.2.2", "2001:db8::1", "10.0.0.1", "10.0.0.53"])
HOURS = st.integers(0, 60).map(lambda hours: START + hours * 3600 * 10**9)
FLOWS = st.fixed_dictionaries(
    {
        "place": st.sampled_from([0, 0, 1]),
        "src_ip": ADDRESSES,
        "subscriber": st.sampled_from(["", "", "a"]),
        "src_port": st.sampled_from([40_000, 40_000, 53, 5353]),
        "dst_ip": ADDRESSES,
        "dst_port": st.sampled_from([53, 53, 443, 5353, 5355]),
        "first_ns": st.one_of(HOURS, st.integers(START, START + 10)),
        "fwd_start": st.sampled_from([0.0, 0.25, math.nan]),
        "bwd_start": st.sampled_from([0.0, 1e-9, 0.02, 3600.0, math.nan]),
        "dns_query": st.sampled_from(["", "a.example", "b.example", "c.example"]),
        "dns_addresses": st.lists(ADDRESSES, max_size=4),
    }
)


@given(st.lists(FLOWS, max_size=30))
def test_as_a_plain_reading(rows: list[Row]) -> None:
    assert resolved_names(table(rows)).to_list() == naive(rows)


def test_a_later_answer_wins_and_one_to_come_does_not() -> None:
    before, after = lookup("a.example", "192.0.2.1", at=-9), lookup("b.example", "192.0.2.1", at=-5)
    assert names(flow(), after, before)[0] == "b.example"
    assert names(flow(), lookup("a.example", "192.0.2.1", at=1))[0] == ""
    # Asked before the flow began, answered afterwards.
    late = lookup("a.example", "192.0.2.1", at=-1, bwd_start=2.0)
    assert names(flow(), late)[0] == ""
    assert names(flow(), late | {"bwd_start": 1.0})[0] == "a.example"


def test_an_answer_names_its_addresses_for_a_day() -> None:
    old = lookup("a.example", "192.0.2.1") | {"first_ns": START - MAX_AGE_NS}
    assert names(flow(), old)[0] == "a.example"
    assert names(flow(first_ns=START + 1), old)[0] == ""


def test_what_the_host_asked_itself_goes_before_what_others_asked_later() -> None:
    own = lookup("own.example", "192.0.2.1", at=-3600)
    others = lookup("other.example", "192.0.2.1", at=-1, src_ip="10.0.0.2")
    assert names(flow(), own, others)[0] == "own.example"
    # A resolver asks for the host.
    assert names(flow(), others)[0] == "other.example"
    assert names(flow(), own | {"subscriber": "s-1"}, others)[0] == "other.example"


def test_another_place_resolves_nothing() -> None:
    asked = lookup("a.example", "192.0.2.1")
    assert names(flow(), asked | {"place": 1})[0] == ""
    rows = table([flow(), asked | {"place": 1}]).drop("place")
    assert resolved_names(rows)[0] == "a.example"  # all of one place


def test_an_answer_that_was_seen_alone_names_for_the_host_that_it_went_to() -> None:
    seen = lookup("a.example", "192.0.2.1", src_ip="10.0.0.53", src_port=53)
    seen |= {"dst_ip": "10.0.0.1", "dst_port": 40_000}
    other = lookup("b.example", "192.0.2.1", at=-1, src_ip="10.0.0.2")
    assert names(flow(), seen, other)[0] == "a.example"


@pytest.mark.parametrize("port", [5353, 5355])
def test_multicast_is_no_resolution(port: int) -> None:
    assert names(flow(), lookup("a.local", "192.0.2.1", dst_port=port))[0] == ""


def test_any_address_of_an_answer_counts() -> None:
    asked = lookup("a.example", "192.0.2.9", "2001:db8::1", "192.0.2.1")
    assert names(flow(), flow(dst_ip="2001:db8::1"), asked)[:2] == ["a.example"] * 2


def test_a_question_is_no_name_of_its_own_resolver() -> None:
    first = lookup("dns.example", "10.0.0.53", bwd_start=0.02)
    again = lookup("other.example", at=-5)
    assert names(first, again) == ["", "dns.example"]


def test_rows_may_stand_in_any_order() -> None:
    frame = random_flows(400, seed=3).frame.with_columns(
        dst_port=pl.lit(53, pl.UInt16), dns_addresses=pl.concat_list("dst_ip", "src_ip")
    )
    shuffled = frame.with_row_index("row").sample(fraction=1, shuffle=True, seed=1)
    found = shuffled.with_columns(resolved_names(shuffled)).sort("row")["resolved_name"]
    assert found.to_list() == resolved_names(frame).to_list()
    assert (found != "").any()


def test_no_flows() -> None:
    assert names() == []
    assert resolved_names(table([])).dtype == pl.String
