"""One person: every spelling of an address is the one that flows have, and nobody is everybody."""

from __future__ import annotations

import ipaddress

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from veilwatch.detection.alerting.person import Person
from veilwatch.errors import VeilwatchError
from veilwatch.traffic.flow.addresses import format_addresses

SUBSCRIBER = "s-0123456789abcdef"


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("10.45.0.7", "10.45.0.7"),
        ("FD00:0:0::7", "fd00::7"),
        ("fd00:0000:0000:0000:0000:0000:0000:0007", "fd00::7"),
        ("::ffff:10.45.0.7", "10.45.0.7"),
        ("::ffff:a2d:7", "10.45.0.7"),
        ("fe80::1%eth0", "fe80::1"),
    ],
)
def test_an_address_in_any_spelling(text: str, written: str) -> None:
    assert Person(host=text).name == written


@given(st.ip_addresses(v=6))
@example(ipaddress.IPv6Address("::192.0.2.1"))
@example(ipaddress.IPv6Address("::ffff:192.0.2.1"))
@example(ipaddress.IPv6Address("2001:db8:0:1:1:1:1:1"))
def test_it_is_written_as_in_a_flow_table(address: ipaddress.IPv6Address) -> None:
    high, low = (np.array([int(address) >> n & 2**64 - 1], np.uint64) for n in (64, 0))
    (written,) = format_addresses(high, low)
    assert Person(host=address.exploded).host == written


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({}, "nobody is named"),
        ({"host": "", "subscriber": ""}, "nobody is named"),
        ({"host": "10.0.0.1", "subscriber": SUBSCRIBER}, "at once"),
        ({"host": "10.0.0"}, "no address"),
        ({"host": "10.0.0.0/8"}, "no address"),
        ({"host": "010.0.0.1"}, "no address"),
        ({"host": "%"}, "no address"),
        ({"subscriber": "s-"}, "no pseudonym"),
        ({"subscriber": "%"}, "no pseudonym"),
        ({"subscriber": SUBSCRIBER + "\n"}, "no pseudonym"),
        ({"subscriber": SUBSCRIBER.upper()}, "no pseudonym"),
    ],
)
def test_what_names_nobody_is_refused(words: dict[str, str], told: str) -> None:
    with pytest.raises(VeilwatchError, match=told):
        Person(**words)


def test_an_identity_that_was_given_for_a_pseudonym_is_not_repeated() -> None:
    with pytest.raises(VeilwatchError) as error:
        Person(subscriber="466920123456789")
    assert "466920" not in str(error.value)


def test_whose_something_is() -> None:
    by_host, by_subscriber = Person(host="10.0.0.1"), Person(subscriber=SUBSCRIBER)
    assert by_host.has("10.0.0.1", "") and by_host.has("10.0.0.1", SUBSCRIBER)
    assert not by_host.has("10.0.0.10", "") and not by_host.has("", SUBSCRIBER)
    assert by_subscriber.has("10.0.0.1", SUBSCRIBER)
    assert not by_subscriber.has("10.0.0.1", "") and not by_subscriber.has(SUBSCRIBER, "")
