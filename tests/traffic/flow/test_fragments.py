"""Fragments after the first reach their flow, and their bytes the handshake."""

from __future__ import annotations

from typing import Any

from tests.traffic.flow.oracle import LATER_FRAGMENT, Packet
from tests.traffic.flow.streams import SECOND, assert_same, meter, packet
from veilwatch.traffic.flow import MeterConfig

KEY = 256 * 7 + 1
HELLO = bytes.fromhex("16030100500100004c0303") + bytes(range(74))
INNER, OUTER = 1, 0
TCP_HEADER = 20


def first(payload: bytes, kind: int, **fields: int) -> Packet:
    """A first fragment of a TCP segment; `payload_offset` counts from the fragmented data."""
    return packet(
        payload,
        **{"fragment_key": KEY, "fragment": kind, "payload_offset": TCP_HEADER, **fields},
    )


def later(payload: bytes, offset: int, seconds: float = 0, **fields: int) -> Packet:
    row = {"fragment_key": KEY, "fragment": 2, "fragment_offset": offset, "src_port": 0}
    row |= {"dst_port": 0, "tcp_flags": 0, "status": LATER_FRAGMENT, "ip_length": len(payload) + 20}
    return packet(payload, **{**row, "ts_ns": round(seconds * SECOND), **fields})


def run(packets: list[Packet]) -> tuple[Any, list[Any]]:
    assert_same(packets, MeterConfig())
    flows, heads, _ = meter(packets, MeterConfig())
    return flows.records, heads


def test_an_inner_fragment_is_a_packet_of_its_flow() -> None:
    (flow,), _ = run([first(b"x" * 12, INNER), later(b"y" * 24, 32), packet(b"z", tcp_seq=36)])
    assert flow["way"]["packets"].tolist() == [3, 0]
    assert flow["way"]["bytes"].tolist() == [52 + 44 + 41, 0]
    assert flow["way"]["payload_bytes"].tolist() == [37, 0]
    assert flow["way"]["old_bytes"].tolist() == [0, 0]
    assert flow["way"]["fragments"].tolist() == [1, 0]
    assert flow["way"]["out_of_order"].tolist() == [0, 0]


def test_an_outer_fragment_adds_no_packet() -> None:
    """The first one's inner header told the whole length."""
    (flow,), _ = run([first(b"x" * 12, OUTER, payload_length=36), later(b"y" * 24, 32)])
    assert (
        flow["way"]["packets"][0],
        flow["way"]["payload_bytes"][0],
        flow["way"]["fragments"][0],
    ) == (1, 36, 1)


def test_a_handshake_in_fragments_is_put_together() -> None:
    for kind in (INNER, OUTER):
        parts = [HELLO[:20], HELLO[20:52], HELLO[52:]]
        packets = [
            first(parts[0], kind, payload_length=20 if kind == INNER else len(HELLO)),
            later(parts[2], TCP_HEADER + 52),
            later(parts[1], TCP_HEADER + 20),
        ]
        _, ((*_, streams),) = run(packets)
        assert streams == (HELLO, b"")


def test_a_datagram_in_fragments_is_put_together_in_order() -> None:
    query = bytes(range(60))
    udp = {"protocol": 17, "dst_port": 53, "payload_offset": 8}
    lengths = {"payload_length": len(query)}
    packets = [
        first(query[:16], OUTER, **udp, **lengths),
        later(query[16:40], 24, protocol=17),
        later(query[48:], 56, protocol=17),  # the one before is missing
    ]
    _, ((*_, streams),) = run(packets)
    assert streams[0] == (40).to_bytes(2, "big") + query[:40]


def test_what_overlaps_changes_nothing_that_was_seen() -> None:
    packets = [
        first(HELLO[:40], OUTER, payload_length=len(HELLO)),
        later(b"\xff" * 64, TCP_HEADER + 20),
    ]
    _, ((*_, streams),) = run(packets)
    assert streams[0] == HELLO[:40] + b"\xff" * 44


def test_a_bomb_of_fragments_takes_no_memory_and_reaches_no_further_than_the_head() -> None:
    packets = [first(HELLO[:40], OUTER, payload_length=len(HELLO))]
    packets += [later(b"\xaa" * 8, offset) for offset in range(48, 65_528, 8)]
    (flow,), ((*_, streams),) = run(packets)
    assert flow["way"]["fragments"][0] == len(range(48, 65_528, 8))
    assert len(streams[0]) == 8192


def test_fragments_that_nobody_expects_reach_no_flow() -> None:
    stray = [
        later(b"x" * 8, 32),  # before its first
        first(b"x" * 12, INNER),
        later(b"x" * 8, 32, fragment_key=KEY + 256),
        later(b"x" * 8, 32, seconds=30.1),
    ]
    (flow,), _ = run(stray)
    assert flow["way"]["packets"][0] == 1


def test_fragments_of_a_flow_that_ended_reach_no_other() -> None:
    packets = [
        first(b"x" * 12, INNER, tcp_flags=2, tcp_seq=5),
        packet(tcp_flags=2, tcp_seq=77),  # opens a new connection on the same ports
        later(b"y" * 24, 32),
    ]
    records, _ = run(packets)
    assert records["way"]["packets"][:, 0].tolist() == [1, 1]
