"""Heads against plain reassembly: what a receiver of the segments would have read."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from tests.traffic.flow.oracle import Packet
from tests.traffic.flow.streams import SECOND, assert_same, batch, meter, packet, reply
from veilwatch.schema.flows import HEAD_BYTES, MAX_DATAGRAMS
from veilwatch.traffic.flow import FlowMeter, MeterConfig
from veilwatch.traffic.flow.heads import READY_AFTER_PACKETS, START_WITHIN_PACKETS

SYN, RST, ACK = 2, 4, 16
CONFIG = MeterConfig()


def hello(length: int, kind: int = 1) -> bytes:
    """A TLS record that begins a handshake, filled with bytes that differ from place to place."""
    start = bytes([0x16, 3, 1]) + (length - 5).to_bytes(2, "big") + bytes([kind])
    return start + bytes((7 * i + i // 251) % 256 for i in range(length - 6))


def initial(k: int, size: int = 1200) -> bytes:
    """A QUIC Initial of version 1 as the meter sees it, number k of a kind."""
    header = b"\xc3\x00\x00\x00\x01\x08" + bytes(range(8)) + b"\x00\x00"
    rest = size - len(header) - 2
    return header + (0x4000 | rest).to_bytes(2, "big") + bytes((k + i) % 256 for i in range(rest))


@dataclass(frozen=True)
class Segment:
    start: int
    content: bytes
    captured: int | None = None

    def sent(self, base: int, ts_ns: int) -> Packet:
        seen = self.content[: self.captured]
        sequence = (base + self.start) % 2**32
        return packet(seen, payload_length=len(self.content), tcp_seq=sequence, ts_ns=ts_ns)


def head(segments: list[Segment], base: int = 1000) -> bytes:
    """The one head of a flow with these segments, which the oracle confirms."""
    packets = [segment.sent(base, k * 1000) for k, segment in enumerate(segments)]
    assert_same(packets, CONFIG)
    _, heads, _ = meter(packets, CONFIG)
    ((_, _, _, _, (stream, other)),) = heads
    assert other == b""
    return bytes(stream)


def cut(content: bytes, *places: int) -> list[Segment]:
    edges = [0, *places, len(content)]
    return [Segment(a, content[a:b]) for a, b in pairwise(edges)]


HELLO = hello(3000)


def test_segments_in_order() -> None:
    assert head(cut(HELLO, 1200, 2400)) == HELLO


@pytest.mark.parametrize("base", [2**32 - 1, 2**32 - 2000, 2**31 - 100])
def test_sequence_numbers_wrap(base: int) -> None:
    assert head(cut(HELLO, 1200, 2400), base) == HELLO


def test_any_order_after_the_first() -> None:
    first, *rest = cut(HELLO, 500, 1000, 1500, 2000, 2500)
    assert head([first, *reversed(rest)]) == HELLO
    assert head([first, rest[1], rest[3], rest[2], rest[0], rest[4]]) == HELLO


def test_the_first_copy_of_a_byte_stays() -> None:
    """A second copy with other content is an attack, or the garbage byte of a keep-alive."""
    first, second, third = cut(HELLO, 1000, 2000)
    garbage = Segment(999, b"\0")
    forged = Segment(500, bytes(400))
    assert head([first, garbage, forged, second, third]) == HELLO
    assert head([first, third, Segment(2000, bytes(1000)), second]) == HELLO


def test_a_retransmission_may_be_cut_otherwise() -> None:
    first, _, third = cut(HELLO, 1000, 2000)
    whole = Segment(0, HELLO)
    assert head([first, third, whole]) == HELLO
    assert head([first, third, Segment(800, HELLO[800:2200])]) == HELLO


def test_a_retransmission_that_begins_before_the_head_is_trimmed() -> None:
    dialogue = b"220 ready\r\n"
    packets = [
        packet(dialogue, tcp_seq=100),
        packet(HELLO[:1000], tcp_seq=111),
        packet(dialogue + HELLO[:1500], tcp_seq=100),
    ]
    assert_same(packets, CONFIG)
    ((_, _, _, _, (stream, _)),) = meter(packets, CONFIG)[1]
    assert stream == HELLO[:1500]


def test_a_hole_that_is_never_filled_ends_the_head() -> None:
    first, _, third = cut(HELLO, 1000, 2000)
    assert head([first, third]) == HELLO[:1000]


def test_a_cut_capture_leaves_a_hole() -> None:
    first, second = cut(HELLO, 1000)
    assert head([Segment(0, first.content, 64), second]) == HELLO[:64]


def test_no_more_than_the_bound_is_kept() -> None:
    long = hello(HEAD_BYTES + 500)
    assert head(cut(long, 1400, 2800, 4200, 5600, 7000, 8100)) == long[:HEAD_BYTES]


def test_payload_of_a_syn_begins_one_later() -> None:
    """TCP Fast Open, RFC 7413."""
    packets = [
        packet(HELLO[:900], tcp_flags=SYN, tcp_seq=50),
        packet(HELLO[900:], tcp_flags=ACK, tcp_seq=951),
    ]
    assert_same(packets, CONFIG)
    assert meter(packets, CONFIG)[1][0][4][0] == HELLO


def test_both_directions() -> None:
    answer = hello(2000, kind=2)
    packets = [
        packet(HELLO[:1000], tcp_seq=1),
        packet(HELLO[1000:], tcp_seq=1001),
        reply(answer[:1400], tcp_seq=77),
        reply(answer[1400:], tcp_seq=1477),
    ]
    assert_same(packets, CONFIG)
    assert meter(packets, CONFIG)[1][0][2:] == ((40000, 443), 6, (HELLO, answer))


def test_a_handshake_may_begin_late_but_not_too_late() -> None:
    for before, found in ((START_WITHIN_PACKETS - 1, 1), (START_WITHIN_PACKETS, 0)):
        packets = [packet(b"talk", tcp_seq=4 * k) for k in range(before)]
        packets.append(packet(HELLO, tcp_seq=4 * before))
        assert_same(packets, CONFIG)
        assert len(meter(packets, CONFIG)[1]) == found


def test_a_head_is_ready_before_its_flow_ends() -> None:
    flow_meter = FlowMeter()
    packets = [packet(HELLO[:100], tcp_seq=0)]
    packets += [packet(b"x", tcp_seq=100 + k) for k in range(READY_AFTER_PACKETS - 2)]
    flow_meter.add(batch(packets))
    assert flow_meter.pending_heads == 0
    # The last payload packet of a capture that keeps headers only counts as well.
    flow_meter.add(batch([packet(b"", payload_length=9, tcp_seq=500)]))
    assert (flow_meter.pending_heads, flow_meter.pending) == (1, 0)


def test_an_answered_datagram_gives_its_buffers_back_at_once() -> None:
    """A resolver asks thousands of questions a second: their flows idle, their buffers must not."""
    flow_meter = FlowMeter(MeterConfig(max_heads=2))
    question, answer = b"\1\2" + bytes(20), b"\1\2\x80" + bytes(30)
    for port in range(1, 200):
        ends = {"src_port": port, "dst_port": 53, "protocol": 17, "tcp_flags": 0}
        flow_meter.add(batch([packet(question, **ends), reply(answer, **ends)]))
        assert flow_meter.pending_heads == port
    assert (flow_meter.heads_cut, flow_meter.live) == (0, 199)
    _, heads = flow_meter.take()
    assert [heads.datagrams(0, d) for d in (0, 1)] == [[question], [answer]]


def test_a_new_handshake_takes_the_buffer_of_the_oldest() -> None:
    packets = [packet(hello(100 + k), src_port=1 + k, ts_ns=k) for k in range(5)]
    oracle = assert_same(packets, MeterConfig(max_heads=3))
    assert oracle.heads_cut == 2
    _, heads, _ = meter(packets, MeterConfig(max_heads=3))
    assert [stream for *_, (stream, _) in heads] == [hello(100 + k) for k in range(5)]


def test_a_connection_hands_its_head_on_once() -> None:
    """Facts are joined by the connection: two heads would double its flows."""
    config = MeterConfig(active_timeout_s=1)
    packets = [
        packet(HELLO[:100], tcp_seq=0, ts_ns=0),
        packet(HELLO[:100], tcp_seq=100, ts_ns=2 * SECOND),
        packet(HELLO[:100], tcp_seq=200, ts_ns=4 * SECOND),
    ]
    assert_same(packets, config)
    flows, heads, _ = meter(packets, config)
    assert flows.records["parent_id"].tolist() == [1, 1, 1]
    assert [flow_id for flow_id, *_ in heads] == [1]


@pytest.mark.parametrize(
    ("payload", "ports", "kept"),
    [
        (b"\1\2" + bytes(10), (5000, 53), True),
        (b"\1\2" + bytes(9), (5000, 53), False),  # shorter than a DNS header
        (initial(0), (5000, 443), True),
        (initial(0, size=199), (5000, 443), False),  # too short for a client's Initial
        (b"\xc0" + bytes(1199), (5000, 443), False),  # version 0 is no client's
        (b"\x80" + bytes(1199), (5000, 443), False),  # RTP begins like this
        (b"\x0d" + bytes(8) + b"Q039" + bytes(1000), (5000, 443), True),
        (b"\x16\x03\x01\x01\x00\x01" + bytes(300), (5000, 443), False),  # DTLS is not TLS
    ],
)
def test_which_datagrams_are_kept(payload: bytes, ports: tuple[int, int], kept: bool) -> None:
    ends = {"src_port": ports[0], "dst_port": ports[1], "protocol": 17, "tcp_flags": 0}
    packets = [packet(payload, **ends), packet(b"\1\2", **ends)]
    assert_same(packets, CONFIG)
    heads = meter(packets, CONFIG)[1]
    assert [streams for *_, streams in heads] == ([(framed(payload), b"")] if kept else [])


LONG = [initial(k) for k in range(12)]
SHORT = b"\x41" + bytes(60)
PORTS = {"src_port": 5000, "dst_port": 443, "protocol": 17, "tcp_flags": 0}


def framed(*datagrams: bytes) -> bytes:
    return b"".join(len(datagram).to_bytes(2, "big") + datagram for datagram in datagrams)


def quic(*turns: tuple[str, bytes]) -> list[Packet]:
    """Packets of a QUIC flow: 'c' from the client, 's' from the server."""
    return [
        {"c": packet, "s": reply}[side](payload, ts_ns=k, **PORTS)
        for k, (side, payload) in enumerate(turns)
    ]


def kept(packets: list[Packet]) -> tuple[list[bytes], list[bytes]]:
    """The datagrams of a flow's head, which the oracle confirms."""
    assert_same(packets, CONFIG)
    flow_meter = FlowMeter()
    flow_meter.add(batch(packets))
    flow_meter.finish()
    _, heads = flow_meter.take()
    assert len(heads.rows) == 1
    return heads.datagrams(0, 0), heads.datagrams(0, 1)


def waiting(packets: list[Packet]) -> int:
    """Heads that are complete before the flow ends."""
    flow_meter = FlowMeter()
    flow_meter.add(batch(packets))
    return flow_meter.pending_heads


def test_a_quic_handshake_is_kept_datagram_by_datagram() -> None:
    turns = [("c", LONG[0]), ("c", LONG[1]), ("s", LONG[2]), ("s", LONG[3]), ("c", LONG[4])]
    assert kept(quic(*turns)) == ([LONG[0], LONG[1], LONG[4]], [LONG[2], LONG[3]])
    assert waiting(quic(*turns)) == 0


@pytest.mark.parametrize("side", ["c", "s"])
def test_a_short_header_ends_a_quic_handshake(side: str) -> None:
    turns = [("c", LONG[0]), ("s", LONG[1]), (side, SHORT), ("c", LONG[2])]
    assert kept(quic(*turns)) == ([LONG[0]], [LONG[1]])
    assert waiting(quic(*turns)) == 1


def test_a_short_header_from_a_side_that_said_nothing_yet_does_not() -> None:
    """Datagrams overtake each other: the server's first may come after its second."""
    turns = [("c", LONG[0]), ("s", SHORT), ("s", LONG[1])]
    assert kept(quic(*turns)) == ([LONG[0]], [LONG[1]])


def test_no_more_datagrams_than_the_bound_are_kept() -> None:
    many = [initial(k, 300) for k in range(MAX_DATAGRAMS + 2)]
    turns = [("c", datagram) for datagram in many] + [("s", datagram) for datagram in many]
    assert kept(quic(*turns)) == (many[:MAX_DATAGRAMS], many[:MAX_DATAGRAMS])
    assert waiting(quic(*turns[: 2 * MAX_DATAGRAMS + 1])) == 0
    assert waiting(quic(*turns[: 2 * MAX_DATAGRAMS + 2])) == 1


def test_small_answers_to_a_client_are_kept() -> None:
    """Version Negotiation, its other bits at random, and Retry are far below 200 bytes."""
    negotiation, retry = b"\x8a" + bytes(30), b"\xf0\0\0\0\1" + bytes(60)
    second = b"\xc0\x6b\x33\x43\xcf" + bytes(60)  # a Retry of version 2
    turns = [("c", LONG[0]), ("s", negotiation), ("c", LONG[1]), ("s", retry), ("s", b"\xc0" * 6)]
    turns += [("s", second)]
    assert kept(quic(*turns)) == ([LONG[0], LONG[1]], [negotiation, retry, second])


def test_later_acknowledgements_take_no_place() -> None:
    acknowledgement = initial(9, 60)
    turns = [("c", LONG[0]), ("s", acknowledgement), ("s", acknowledgement), ("c", acknowledgement)]
    turns += [("s", datagram) for datagram in LONG[4:8]]
    assert kept(quic(*turns)) == ([LONG[0]], [acknowledgement, *LONG[4:8]])


def test_a_head_without_room_cuts_the_last_datagram() -> None:
    large = [initial(k, 5000) for k in range(3)]
    assert kept(quic(*[("c", datagram) for datagram in large])) == (
        [large[0], large[1][: HEAD_BYTES - 5004]],
        [],
    )
    jumbo = initial(0, 9000)
    assert kept(quic(("c", jumbo))) == ([jumbo[: HEAD_BYTES - 2]], [])


def test_a_capture_of_headers_only_keeps_no_datagram() -> None:
    packets = quic(("c", LONG[0])) + [packet(b"", payload_length=1200, ts_ns=9, **PORTS)] * 2
    assert kept(packets) == ([LONG[0]], [])


def test_a_gquic_hello_is_handed_on_at_once() -> None:
    """Only its first datagram says anything, and none has a long header."""
    greeting = b"\x0d" + bytes(8) + b"Q043" + bytes(1000)
    assert kept(quic(("c", greeting), ("c", greeting))) == ([greeting], [])


@st.composite
def shuffled(draw: st.DrawFn) -> list[Segment]:
    """A ClientHello in segments that are reordered, repeated, cut anew, shortened or lost."""
    content = hello(draw(st.integers(20, 9000)))
    places = st.integers(0, len(content))
    segments = [Segment(0, content[: draw(st.integers(6, len(content)))])]
    for _ in range(draw(st.integers(0, 12))):
        start, end = sorted((draw(places), draw(places)))
        captured = draw(st.one_of(st.none(), st.integers(0, 100)))
        segments.append(Segment(start, content[start:end], captured))
    return segments


@examples(150)
@given(shuffled(), st.integers(0, 2**32 - 1))
def test_any_segments(segments: list[Segment], base: int) -> None:
    seen: dict[int, int] = {}
    for segment in segments:
        for position, byte in enumerate(segment.content[: segment.captured], segment.start):
            seen[position] = byte
    whole = next(i for i in range(HEAD_BYTES + 1) if i == HEAD_BYTES or i not in seen)
    assert head(segments, base) == bytes(seen[i] for i in range(whole))
