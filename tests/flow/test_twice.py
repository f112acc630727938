"""One packet seen twice is counted once."""

from __future__ import annotations

from typing import Any

import pytest

from tests.flow.oracle import Packet
from tests.flow.streams import MAPPED, SECOND, assert_same, meter, packet, reply
from veilwatch.flow import MeterConfig

UDP = 17
GNB, UPF, ANCHOR = (MAPPED + n for n in (1, 2, 3))
N3 = {"gtp_depth": 1, "gtp_teid": 5, "outer_src_lo": GNB, "outer_dst_lo": UPF, "gtp_qfi": 9}
N9 = {"gtp_depth": 1, "gtp_teid": 6, "outer_src_lo": UPF, "outer_dst_lo": ANCHOR}
N3_DOWN = {**N3, "gtp_teid": 7}
N9_DOWN = {**N9, "gtp_teid": 8}
MILLISECOND = SECOND // 1000


def run(packets: list[Packet]) -> Any:
    assert_same(packets, MeterConfig())
    flows, _, _ = meter(packets, MeterConfig())
    return flows.records


def at(milliseconds: float) -> dict[str, int]:
    return {"ts_ns": SECOND + round(milliseconds * MILLISECOND)}


@pytest.mark.parametrize(
    "elsewhere",
    [{"vlan": 7}, {"ttl": 63}, {"source": 1}, {"ttl": 63, **N3}, N3],
    ids=["other VLAN", "behind a router", "second mirror port", "N6 and N3", "N6 and N3 switched"],
)
@pytest.mark.parametrize("again", ["bare", "same"])
def test_a_copy_from_elsewhere_is_counted_once(elsewhere: dict[str, int], again: str) -> None:
    first = packet(b"x" * 20, tcp_seq=100, tcp_ack=9, **at(0))
    copy = packet(b"x" * 20, **{"tcp_seq": 100, "tcp_ack": 9, **at(2), **elsewhere})
    pair = [first, copy] if again == "bare" else [copy, packet(b"x" * 20, **first.row)]
    (flow,) = run(pair)
    assert flow["packets"].tolist() == [1, 0]
    assert flow["bytes"].tolist() == [60, 0]
    assert flow["duplicates"].tolist() == [1, 0]


def test_both_directions_between_n3_and_n6_are_one_flow() -> None:
    """Uplink is seen on N3 first, downlink on N6 first; the tunnel is known all the same."""
    packets = [
        packet(b"a", protocol=UDP, tcp_flags=0, ttl=64, **N3, **at(0)),
        packet(b"a", protocol=UDP, tcp_flags=0, ttl=63, **at(1)),
        reply(b"b", protocol=UDP, tcp_flags=0, ttl=64, **at(20)),
        reply(b"b", protocol=UDP, tcp_flags=0, ttl=63, **N3_DOWN, **at(21)),
        packet(b"c", protocol=UDP, tcp_flags=0, ttl=64, **N3, **at(30)),
    ]
    (flow,) = run(packets)
    assert flow["packets"].tolist() == [2, 1]
    assert flow["duplicates"].tolist() == [1, 1]
    assert flow["teid"].tolist() == [5, 7]
    assert flow["outer_src_lo"] == GNB
    assert flow["handovers"] == 0


def test_a_flow_that_begins_on_n6_learns_its_tunnel() -> None:
    packets = [
        reply(b"b", protocol=UDP, tcp_flags=0, ttl=64, **at(0)),
        reply(b"b", protocol=UDP, tcp_flags=0, ttl=63, **N3_DOWN, **at(1)),
        packet(b"a", protocol=UDP, tcp_flags=0, ttl=64, **N3, **at(9)),
        packet(b"a", protocol=UDP, tcp_flags=0, ttl=63, **at(10)),
    ]
    (flow,) = run(packets)
    assert (flow["packets"].tolist(), flow["teid"].tolist()) == ([1, 1], [7, 5])
    assert (flow["gtp_depth"], flow["outer_src_lo"], flow["outer_dst_lo"]) == (1, UPF, GNB)


def test_both_sides_of_a_relaying_upf_are_one_flow() -> None:
    packets = [
        packet(b"a", protocol=UDP, tcp_flags=0, **N3, **at(0)),
        packet(b"a", protocol=UDP, tcp_flags=0, **N9, **at(1)),
        reply(b"b", protocol=UDP, tcp_flags=0, **N9_DOWN, **at(20)),
        reply(b"b", protocol=UDP, tcp_flags=0, **N3_DOWN, **at(21)),
    ]
    (flow,) = run(packets)
    assert flow["packets"].tolist() == [1, 1]
    assert flow["duplicates"].tolist() == [1, 1]


def test_both_sides_of_a_switch_port_show_a_packet_twice_and_no_more() -> None:
    (flow,) = run([packet(ip_id=77, **at(k / 10)) for k in range(6)])
    assert (flow["packets"][0], flow["duplicates"][0]) == (3, 3)


def test_equal_acknowledgements_are_not_copies_of_one() -> None:
    """Three of them ask for a fast retransmission (RFC 5681 cl. 3.2)."""
    (flow,) = run([packet(tcp_seq=5, tcp_ack=9, **at(k / 100)) for k in range(4)])
    assert flow["packets"][0] == 4


@pytest.mark.parametrize(
    "change",
    [
        {"tcp_seq": 101},
        {"tcp_ack": 10},
        {"ip_id": 8},
        {"checksum": 1},
        {"tcp_window": 3},
        {"tcp_flags": 0x18},
        at(50.1),
    ],
)
def test_what_differs_is_no_copy(change: dict[str, int]) -> None:
    fields = {"tcp_seq": 100, "tcp_ack": 9, "ip_id": 7, **at(0)}
    (flow,) = run([packet(b"x", **fields), packet(b"x", **fields | {"vlan": 7} | change)])
    assert flow["packets"][0] == 2


def test_datagrams_with_other_payloads_are_no_copies() -> None:
    fields = {"protocol": UDP, "tcp_flags": 0, "checksum": 0}
    media = [packet(bytes([128, 0, 0, k]) * 5, **fields, **at(0), vlan=k) for k in range(4)]
    (flow,) = run(media)
    assert flow["packets"][0] == 4


def test_a_repeated_segment_is_a_retransmission_and_no_copy() -> None:
    fields = {"tcp_seq": 100, "tcp_ack": 9}
    (flow,) = run([packet(b"xy", **fields, **at(0)), packet(b"xy", **fields, **at(3))])
    assert (flow["retransmissions"][0], flow["duplicates"][0]) == (1, 0)
