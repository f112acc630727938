"""One packet seen twice is counted once."""

from __future__ import annotations

from typing import Any

import pytest

from tests.traffic.flow.oracle import Packet
from tests.traffic.flow.streams import MAPPED, SECOND, assert_same, meter, packet, reply
from veilwatch.traffic.flow import MeterConfig

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
    assert flow["way"]["packets"].tolist() == [1, 0]
    assert flow["way"]["bytes"].tolist() == [60, 0]
    assert flow["way"]["duplicates"].tolist() == [1, 0]


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
    assert flow["way"]["packets"].tolist() == [2, 1]
    assert flow["way"]["duplicates"].tolist() == [1, 1]
    assert flow["start"]["teid"].tolist() == [5, 7]
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
    assert (flow["way"]["packets"].tolist(), flow["start"]["teid"].tolist()) == ([1, 1], [7, 5])
    assert (flow["gtp_depth"], flow["outer_src_lo"], flow["outer_dst_lo"]) == (1, UPF, GNB)


def test_both_sides_of_a_relaying_upf_are_one_flow() -> None:
    packets = [
        packet(b"a", protocol=UDP, tcp_flags=0, **N3, **at(0)),
        packet(b"a", protocol=UDP, tcp_flags=0, **N9, **at(1)),
        reply(b"b", protocol=UDP, tcp_flags=0, **N9_DOWN, **at(20)),
        reply(b"b", protocol=UDP, tcp_flags=0, **N3_DOWN, **at(21)),
    ]
    (flow,) = run(packets)
    assert flow["way"]["packets"].tolist() == [1, 1]
    assert flow["way"]["duplicates"].tolist() == [1, 1]


def test_both_directions_of_a_switch_port_show_a_packet_twice() -> None:
    """The first pair teaches nothing yet: with one identification seen it may be a constant."""
    numbers = [k for k in range(1, 9) for _ in range(2)]
    sent = [packet(ip_id=k, tcp_ack=k, **at(k + 0.1 * (i % 2))) for i, k in enumerate(numbers)]
    (flow,) = run(sent)
    assert (flow["way"]["packets"][0], flow["way"]["duplicates"][0]) == (9, 7)


@pytest.mark.parametrize("apart", [1.0, 0.1, 0.0], ids=["1 ms", "100 us", "0 us"])
@pytest.mark.parametrize("ip_id", [0, 1, 0xFFFF])
@pytest.mark.parametrize(
    "kind",
    [
        {"protocol": UDP, "tcp_flags": 0},
        {"protocol": UDP, "tcp_flags": 0, "ip_version": 6},
        {"protocol": 1, "tcp_flags": 0, "icmp_type": 8},
        {"protocol": UDP, "tcp_flags": 0, **N3},
    ],
    ids=["UDP", "IPv6", "ping", "in GTP-U"],
)
def test_equal_datagrams_under_a_constant_identification_are_all_sent(
    kind: dict[str, int], ip_id: int, apart: float
) -> None:
    """RFC 6864 cl. 4.1: of an atomic datagram the identification says nothing."""
    sent = [packet(b"keep-alive" * 3, ip_id=ip_id, **kind, **at(k * apart)) for k in range(60)]
    (flow,) = run(sent)
    assert (flow["way"]["packets"][0], flow["way"]["duplicates"][0]) == (60, 0)


def test_a_constant_identification_is_one_where_payloads_differ_too() -> None:
    media = {"protocol": UDP, "tcp_flags": 0, "ip_id": 9}
    sent = [packet(bytes([k]) * 30, **media, **at(k)) for k in range(20)]
    sent += [packet(bytes(30), **{**media, "ip_id": 10}, **at(30))]  # changes once
    sent += [packet(b"same" * 5, **{**media, "ip_id": 10}, **at(40 + k / 10)) for k in range(9)]
    (flow,) = run(sent)
    assert (flow["way"]["packets"][0], flow["way"]["duplicates"][0]) == (30, 0)


def test_each_direction_has_its_own_identification() -> None:
    shared = {"protocol": UDP, "tcp_flags": 0}
    sent = []
    for k in range(10):
        sent += [packet(b"ask", ip_id=k + 1, **shared, **at(5 * k + j / 10)) for j in (0, 1)]
        sent += [reply(b"answer", ip_id=4, **shared, **at(5 * k + 2 + j / 10)) for j in (0, 1)]
    (flow,) = run(sent)
    assert flow["way"]["packets"].tolist() == [
        11,
        20,
    ]  # only the way there can be told to be mirrored
    assert flow["way"]["duplicates"].tolist() == [9, 0]


@pytest.mark.parametrize("ip_id", [0, 3])
@pytest.mark.parametrize(
    "seen",
    [
        [{"interface": 1}, {"interface": 2}, {"interface": 3}],
        [{"interface": 1}, {"interface": 2}, {"interface": 3, "ttl": 63}, {"vlan": 4, "ttl": 9}],
        [{"vlan": 10}, {"vlan": 20}, {"vlan": 30}, {"vlan": 0}],
        [{"ttl": 64}, {"ttl": 63}, {"ttl": 62}],
        [{"source": 0}, {"source": 1}, {"source": 2}],
        [{**N3, "vlan": 5}, {**N3, "vlan": 6}, {"ttl": 63}],
    ],
    ids=["components", "in, bridge, veth, out", "VLANs", "routers", "mirrors", "N3 twice and N6"],
)  # fmt: skip
def test_of_many_places_all_but_the_first_show_copies(
    seen: list[dict[str, int]], ip_id: int
) -> None:
    """Sender's repetitions too, in order and out of it, however close together."""
    shared = {"protocol": UDP, "tcp_flags": 0, "ip_id": ip_id}
    for order in (sorted, lambda times: sorted(times, key=lambda t: (t[0] // 3, t[1]))):
        times = order([(k, place) for k in range(12) for place in range(len(seen))])
        sent = [
            packet(b"beat", **{**shared, **seen[place]}, **at(i / 100))
            for i, (_, place) in enumerate(times)
        ]
        (flow,) = run(sent)
        assert flow["way"]["packets"].tolist() == [12, 0]
        assert flow["way"]["duplicates"].tolist() == [12 * (len(seen) - 1), 0]


def test_a_segment_at_three_components_is_no_retransmission() -> None:
    sent = []
    for k in range(5):
        for place in range(3):
            micros = at(10 * k + place * 0.0015)
            sent.append(packet(b"x" * 20, tcp_seq=100 + 20 * k, interface=place, **micros))
    (flow,) = run(sent)
    assert (
        flow["way"]["packets"][0],
        flow["way"]["duplicates"][0],
        flow["way"]["retransmissions"][0],
    ) == (5, 10, 0)


def test_a_real_retransmission_at_three_components_is_one() -> None:
    times = [(start, place) for start in (0, 30) for place in range(3)]
    sent = [packet(b"xy", tcp_seq=9, interface=p, **at(t + p / 100)) for t, p in times]
    (flow,) = run(sent)
    assert (
        flow["way"]["packets"][0],
        flow["way"]["duplicates"][0],
        flow["way"]["retransmissions"][0],
    ) == (2, 4, 1)


@pytest.mark.parametrize("ip_id", [0, 54321])
def test_duplicate_acknowledgements_of_one_place_are_all_counted(ip_id: int) -> None:
    sent = [packet(tcp_seq=5, tcp_ack=9, ip_id=ip_id, **at(k / 100)) for k in range(12)]
    sent += [reply(tcp_flags=0x14, tcp_seq=9, **at(1 + k / 100)) for k in range(4)]  # RST
    (flow,) = run(sent)
    assert flow["way"]["packets"].tolist() == [12, 4]
    assert flow["way"]["duplicates"].tolist() == [0, 0]


def test_a_mirrored_segment_is_known_by_its_numbers_alone() -> None:
    sent = [packet(b"data", tcp_seq=9, **at(0)), packet(b"data", tcp_seq=9, **at(0.5))]
    sent += [packet(b"data", tcp_seq=9, **at(0.9))]
    (flow,) = run(sent)
    assert (flow["way"]["packets"][0], flow["way"]["duplicates"][0]) == (1, 2)


def test_equal_acknowledgements_are_not_copies_of_one() -> None:
    """Three of them ask for a fast retransmission (RFC 5681 cl. 3.2)."""
    (flow,) = run([packet(tcp_seq=5, tcp_ack=9, **at(k / 100)) for k in range(4)])
    assert flow["way"]["packets"][0] == 4


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
    assert flow["way"]["packets"][0] == 2


def test_datagrams_with_other_payloads_are_no_copies() -> None:
    fields = {"protocol": UDP, "tcp_flags": 0, "checksum": 0}
    media = [packet(bytes([128, 0, 0, k]) * 5, **fields, **at(0), vlan=k) for k in range(4)]
    (flow,) = run(media)
    assert flow["way"]["packets"][0] == 4


def test_a_repeated_segment_is_a_retransmission_and_no_copy() -> None:
    fields = {"tcp_seq": 100, "tcp_ack": 9}
    (flow,) = run([packet(b"xy", **fields, **at(0)), packet(b"xy", **fields, **at(3))])
    assert (flow["way"]["retransmissions"][0], flow["way"]["duplicates"][0]) == (1, 0)
