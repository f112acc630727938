"""Which flows nobody knows the truth of."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from tests.learning.training.factory import entry
from veilwatch.corpus.endpoints import unknown_truth
from veilwatch.errors import CorpusError


def flows(*rows: tuple[int, str, int]) -> pl.DataFrame:
    schema = {"place": pl.UInt32, "dst_ip": pl.String, "dst_port": pl.UInt16}
    return pl.DataFrame(rows, schema, orient="row")


def named(*endpoints: str) -> list[str]:
    """Return which of some flows are unknown, with the endpoints of each capture."""
    entries = [
        replace(entry(k, "malicious"), malicious_endpoints=text) for k, text in enumerate(endpoints)
    ]
    table = flows(
        *((0, "192.0.2.1", 443), (0, "192.0.2.1", 80), (0, "2001:db8::1", 443)),
        *((1, "192.0.2.1", 443), (7, "192.0.2.9", 1)),
    )
    unknown = unknown_truth(table, entries, "place")
    assert len(unknown) == table.height and unknown.null_count() == 0
    return [
        f"{place} {address}:{port}"
        for (place, address, port), one in zip(table.iter_rows(), unknown, strict=True)
        if one
    ]


def test_flows_to_other_services_are_unknown_where_endpoints_are_named() -> None:
    assert named("", "") == []
    assert named("192.0.2.1:443", "") == ["0 192.0.2.1:80", "0 2001:db8::1:443"]
    assert named("192.0.2.1:443; 192.0.2.1:443;", "") == named("192.0.2.1:443", "")


def test_all_ports_of_an_address_and_addresses_with_colons() -> None:
    assert named("192.0.2.1:0", "") == named("192.0.2.1:*", "") == named("192.0.2.1", "")
    assert named("192.0.2.1", "") == ["0 2001:db8::1:443"]
    assert named("2001:db8::1", "") == named("2001:db8::1:443", "")
    wanted = ["0 192.0.2.1:443", "0 192.0.2.1:80"]
    assert named("2001:db8::1:443", "") == named("[2001:db8::1]:443", "") == wanted


def test_a_port_of_all_addresses() -> None:
    assert named("*:80", "") == ["0 192.0.2.1:443", "0 2001:db8::1:443"]
    assert named("*:80;2001:db8::1:443", "") == ["0 192.0.2.1:443"]


def test_endpoints_of_nothing_that_is_there_say_nothing() -> None:
    assert named("198.51.100.1:443", "") == []


def test_one_capture_says_nothing_of_another() -> None:
    assert named("", "192.0.2.1:1") == []


@pytest.mark.parametrize("text", ["host:443", ":443", "192.0.2.1:https", "192.0.2.1:1234567"])
def test_what_is_no_endpoint_is_refused_by_the_name_of_its_capture(text: str) -> None:
    with pytest.raises(CorpusError, match=r"malicious_endpoints of 'malicious/0.pcap' holds"):
        named(text, "")
