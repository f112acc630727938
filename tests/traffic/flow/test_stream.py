"""What moves the expected number of a TCP stream, and what is new in it."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from tests.traffic.flow.oracle import Packet
from tests.traffic.flow.streams import SECOND, assert_same, meter, packet, reply
from veilwatch.schema.flows import MAX_HOLES, EndReason, TcpState
from veilwatch.traffic.flow import MeterConfig
from veilwatch.traffic.flow.stream import (
    EARLIER_PACKETS,
    LATE_SYN_BYTES,
    LATE_SYN_NS,
    MAX_AHEAD,
    MAX_BEHIND,
)

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
CONFIG = MeterConfig()
BASES = [1000, 2**32 - 1, 2**32 - 120, 2**31 - 50]


def run(packets: list[Packet], config: MeterConfig = CONFIG) -> Any:
    """Records of the kernels, which the oracle confirms."""
    assert_same(packets, config)
    flows, _, _ = meter(packets, config)
    return flows.records


def opened(base: int, *packets: Packet) -> Any:
    """The one flow of a connection whose client's bytes begin with the number `base`."""
    handshake = [
        packet(tcp_flags=SYN, tcp_seq=(base - 1) % 2**32),
        reply(tcp_flags=SYN | ACK, tcp_seq=4999, tcp_ack=base),
        packet(tcp_seq=base, tcp_ack=5000),
    ]
    (flow,) = run([*handshake, *packets])
    return flow


def sent(base: int, start: int, payload: bytes = b"", flags: int = ACK, **fields: int) -> Packet:
    return packet(payload, tcp_seq=(base + start) % 2**32, tcp_flags=flags, tcp_ack=5000, **fields)


def stream_bytes(flow: Any, direction: int = 0) -> int:
    return int(flow["way"]["payload_bytes"][direction] - flow["way"]["old_bytes"][direction])


def counts(flow: Any, direction: int = 0) -> tuple[int, int, int]:
    """New bytes, retransmissions and packets out of order."""
    again, late = (
        int(flow["way"][name][direction]) for name in ("retransmissions", "out_of_order")
    )
    return stream_bytes(flow, direction), again, late


def prefix(flow: Any, direction: int = 0) -> bytes:
    return bytes(
        flow["start"]["prefix"][direction, : flow["way"]["prefix_used"][direction]].tobytes()
    )


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("ahead", [1, 200, 70_000, MAX_AHEAD, MAX_AHEAD + 1, 10**9, 2**31 - 1])
def test_flags_ahead_swallow_nothing(base: int, ahead: int) -> None:
    """zeek/zeek#3313: a SYN-ACK of another number; a FIN or RST that nobody waits for yet."""
    stray_syn_ack = reply(tcp_flags=SYN | ACK, tcp_seq=(4999 + ahead) % 2**32, tcp_ack=base)
    flow = opened(
        base,
        stray_syn_ack,
        sent(base, ahead, flags=FIN | ACK),
        sent(base, ahead, flags=RST),
        sent(base, ahead, b"why", flags=RST | ACK),
        sent(base, 0, b"request"),
        sent(base, 7, b" more"),
        reply(b"answer", tcp_seq=5000),
        reply(b"!", tcp_seq=5006),
    )
    assert counts(flow) == (12, 0, 0)
    assert counts(flow, 1) == (7, 0, 0)
    assert prefix(flow) == b"request more"
    assert prefix(flow, 1) == b"answer!"


@pytest.mark.parametrize("base", BASES)
def test_a_fin_overtakes_data(base: int) -> None:
    flow = opened(
        base,
        sent(base, 0, b"a" * 100),
        sent(base, 200, flags=FIN | ACK),
        sent(base, 100, b"b" * 100),
    )
    assert counts(flow) == (200, 0, 0)
    assert flow["way"]["next_seq"][0] == (base + 201) % 2**32


@pytest.mark.parametrize("base", BASES)
def test_a_fin_with_data_overtakes_data(base: int) -> None:
    last = sent(base, 100, b"c" * 50, FIN | ACK)
    again = sent(base, 100, b"c" * 50, FIN | ACK, ts_ns=SECOND)
    flow = opened(base, sent(base, 0, b"a" * 50), last, sent(base, 50, b"b" * 50), again)
    assert counts(flow) == (150, 1, 2)
    assert flow["way"]["next_seq"][0] == (base + 151) % 2**32


def test_data_repeated_with_a_fin_are_a_retransmission() -> None:
    flow = opened(1000, sent(1000, 0, b"data"), sent(1000, 0, b"data", FIN | ACK))
    assert counts(flow) == (4, 1, 0)


def test_data_where_a_forged_fin_was_are_new() -> None:
    flow = opened(
        1000, sent(1000, 0, b"a" * 9), sent(1000, 9, flags=FIN | ACK), sent(1000, 9, b"b" * 9)
    )
    assert counts(flow) == (18, 0, 0)


def test_keep_alives_after_a_fin() -> None:
    flow = opened(
        1000,
        sent(1000, 0, b"data"),
        sent(1000, 4, flags=FIN | ACK),
        *(sent(1000, 4), sent(1000, 4, b"\0")),
    )
    assert (flow["way"]["keep_alives"][0], *counts(flow)) == (2, 4, 0, 0)


def test_the_fin_of_a_segment_in_fragments_is_not_looked_for_in_its_first() -> None:
    flow = opened(
        1000,
        sent(1000, 0, b"a" * 8, FIN | ACK, fragment=1, fragment_key=7),
        packet(b"b" * 8, status=7, fragment=2, fragment_key=7, fragment_offset=8, tcp_flags=0),
    )
    assert counts(flow) == (16, 0, 0)


def test_a_repeated_segment_in_fragments_is_repeated_as_a_whole() -> None:
    parts = [
        sent(1000, 0, b"a" * 8, fragment=1, fragment_key=7, ip_id=1),
        packet(b"b" * 8, status=7, fragment=2, fragment_key=7, fragment_offset=8, tcp_flags=0),
    ]
    again = [Packet(p.row | {"ts_ns": SECOND, "ip_id": p.ip_id * 2}, p.payload) for p in parts]
    flow = opened(1000, *parts, *again)
    assert stream_bytes(flow) == 16
    assert prefix(flow) == b"a" * 8 + b"b" * 8


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("distance", [MAX_BEHIND + 100, 10**9, 2**31 - 100])
def test_a_distant_segment_swallows_nothing(base: int, sign: int, distance: int) -> None:
    stray = sent(base, sign * distance, b"forged")
    again = sent(base, sign * distance, b"forged", ts_ns=SECOND)
    flow = opened(
        base, sent(base, 0, b"one"), stray, sent(base, 3, b"two"), again, sent(base, 6, b"three")
    )
    assert stream_bytes(flow) == 11
    assert flow["way"]["retransmissions"][0] == (2 if sign < 0 else 0)
    assert prefix(flow) == b"onetwothree"


def test_a_stray_segment_within_a_window_leaves_a_hole() -> None:
    flow = opened(1000, sent(1000, MAX_AHEAD, b"stray"), sent(1000, 0, b"a"), sent(1000, 1, b"b"))
    assert counts(flow) == (7, 0, 3)
    assert prefix(flow) == b"ab"


@pytest.mark.parametrize("distance", [MAX_AHEAD + 1, 10**9])
def test_a_stream_that_goes_on_far_away_is_followed(distance: int) -> None:
    """The capture lost a second of a transfer at 10 Gbit/s."""
    there = [sent(1000, distance + 4 * k, b"data") for k in range(5)]
    flow = opened(
        1000, sent(1000, 0, b"a"), *there, sent(1000, distance + 12, b"data", ts_ns=SECOND)
    )
    assert counts(flow) == (21, 1, 1)


def test_the_syn_ack_that_data_follow_is_the_one_that_counts() -> None:
    for first, second in ((4999, 9999), (9999, 4999), (4999, 10**9), (10**9, 4999)):
        packets = [
            packet(tcp_flags=SYN, tcp_seq=999),
            reply(tcp_flags=SYN | ACK, tcp_seq=first, tcp_ack=1000),
            reply(tcp_flags=SYN | ACK, tcp_seq=second, tcp_ack=1000),
            packet(tcp_seq=1000, tcp_ack=5000),
            reply(b"answer", tcp_seq=5000, tcp_ack=1000),
            reply(b"more", tcp_seq=5006, tcp_ack=1000),
        ]
        (flow,) = run(packets)
        assert counts(flow, 1) == (10, 0, 0)
        assert prefix(flow, 1) == b"answermore"


def test_payload_of_a_syn_is_counted_once() -> None:
    """TCP Fast Open whose data the server did not take (RFC 7413)."""
    packets = [
        packet(b"early", tcp_flags=SYN, tcp_seq=999),
        reply(tcp_flags=SYN | ACK, tcp_seq=4999, tcp_ack=1000),
        packet(b"early", tcp_seq=1000, tcp_ack=5000),
        packet(b"late", tcp_seq=1005, tcp_ack=5000),
    ]
    (flow,) = run(packets)
    assert counts(flow) == (9, 1, 0)
    assert prefix(flow) == b"earlylate"


def test_a_new_number_after_a_refusal_begins_a_new_flow() -> None:
    packets = [
        packet(tcp_flags=SYN, tcp_seq=999),
        reply(tcp_flags=RST | ACK, tcp_ack=1000),
        packet(tcp_flags=SYN, tcp_seq=70_999),
        reply(tcp_flags=SYN | ACK, tcp_seq=4999, tcp_ack=71_000),
        packet(b"data", tcp_seq=71_000, tcp_ack=5000),
    ]
    records = run(packets)
    assert [stream_bytes(flow) for flow in records] == [0, 4]


# Keep-alives


@pytest.mark.parametrize("base", BASES)
def test_garbage_bytes_are_no_payload(base: int) -> None:
    """seladb/PcapPlusPlus#1594: also before the first payload, and several of them."""
    probe = sent(base, -1, b"\0", ts_ns=SECOND)
    second = sent(base, -1, b"\0", ts_ns=SECOND + SECOND // 2)
    later = sent(base, 3, b"\0", ts_ns=90 * SECOND)
    flow = opened(
        base, probe, second, sent(base, 0, b"data", ts_ns=2 * SECOND), later, sent(base, 4, b"more")
    )
    assert prefix(flow) == b"datamore"
    assert (flow["way"]["first_payload"][0], flow["way"]["payload_packets"][0]) == (4, 2)
    assert (
        flow["way"]["payload_bytes"][0],
        flow["way"]["payload_max"][0],
        flow["way"]["keep_alives"][0],
    ) == (8, 4, 3)
    assert flow["way"]["size_counts"][0].tolist() == [5, 2, 0, 0, 0, 0, 0, 0]
    assert counts(flow) == (8, 0, 0)


def test_bytes_one_by_one_are_data() -> None:
    word = b"segments"
    for order in ([0, 1, 2, 3, 4, 5, 6, 7], [1, 0, 3, 2, 5, 4, 7, 6], [7, 5, 3, 1, 0, 2, 4, 6]):
        flow = opened(1000, *(sent(1000, k, word[k : k + 1]) for k in order))
        assert (stream_bytes(flow), prefix(flow), flow["way"]["keep_alives"][0]) == (8, word, 0)


# The beginning, seen late


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("first", [b"hello", b""])
def test_a_syn_after_data_or_acknowledgement_of_its_own_connection(base: int, first: bytes) -> None:
    """arkime/arkime#2288."""
    packets = [
        sent(base, 0, first),
        packet(tcp_flags=SYN, tcp_seq=(base - 1) % 2**32),
        reply(tcp_flags=SYN | ACK, tcp_seq=4999, tcp_ack=base),
        reply(b"world", tcp_seq=5000, tcp_ack=base),
        sent(base, 5, b"again"),
        packet(tcp_flags=SYN, tcp_seq=(base - 1) % 2**32, ts_ns=SECOND),
    ]
    (flow,) = run(packets)
    assert flow["src_port"] == 40000
    assert flow["tcp_state"] == TcpState.SYN | TcpState.SYN_ACK | TcpState.ESTABLISHED
    assert (stream_bytes(flow), stream_bytes(flow, 1)) == (len(first) + 5, 5)
    assert flow["syn_seq"] == (base - 1) % 2**32


def test_data_before_the_first_seen_fill_what_a_late_syn_shows_to_be_missing() -> None:
    late = [sent(1000, 5, b"world"), packet(tcp_flags=SYN, tcp_seq=999), sent(1000, 0, b"hello")]
    (flow,) = run(late)
    assert counts(flow) == (10, 0, 1)
    assert prefix(flow) == b"helloworld"


def test_a_syn_far_before_what_was_seen_opens_a_new_flow() -> None:
    def records(missing: int, ts_ns: int) -> Any:
        seen = sent(100_000, 0, b"x")
        return run([seen, packet(tcp_flags=SYN, tcp_seq=99_999 - missing, ts_ns=ts_ns)])

    assert len(records(LATE_SYN_BYTES, LATE_SYN_NS)) == 1
    assert len(records(0, 100 * LATE_SYN_NS)) == 1  # right before the first byte, at any time
    for missing, ts_ns in ((LATE_SYN_BYTES + 1, 0), (1, LATE_SYN_NS + 1), (-1, 0), (-(10**6), 0)):
        reasons = records(missing, ts_ns)["end_reason"].tolist()
        assert reasons == [EndReason.REUSED, EndReason.END]


def test_a_syn_with_data_may_come_after_the_syn_ack_that_acknowledges_them() -> None:
    packets = [
        reply(tcp_flags=SYN | ACK, tcp_seq=4999, tcp_ack=1005),
        packet(b"early", tcp_flags=SYN, tcp_seq=999),
        packet(b"late", tcp_seq=1005, tcp_ack=5000),
    ]
    (flow,) = run(packets)
    assert counts(flow) == (9, 0, 0)


def test_a_stream_seen_from_its_second_segment_on() -> None:
    again = sent(1000, 0, b"hello", ts_ns=SECOND)
    (flow,) = run([sent(1000, 5, b"world"), sent(1000, 0, b"hello"), again])
    assert counts(flow) == (10, 1, 1)
    assert prefix(flow) == b"helloworld"


def test_a_long_stream_does_not_begin_anew_when_its_numbers_come_again() -> None:
    """Four gigabytes on, old numbers look like those before the first that was seen."""
    far = [sent(1000, k * (MAX_AHEAD - 8), b"12345678") for k in range(65)]
    (flow,) = run([*far, Packet(far[-1].row | {"ts_ns": SECOND}, far[-1].payload)])
    assert stream_bytes(flow) == 8 * 65
    assert flow["way"]["retransmissions"][0] == 1
    assert len(far) > EARLIER_PACKETS


# Any order


def cut(content: bytes, choice: random.Random, most: int) -> list[tuple[int, bytes]]:
    places = sorted(choice.sample(range(1, len(content)), min(most, len(content)) - 1))
    edges = [0, *places, len(content)]
    return [(a, content[a:b]) for a, b in itertools.pairwise(edges)]


@examples(60)
@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(1, 2 * MAX_HOLES))
def test_the_order_of_segments_changes_no_stream(base: int, seed: int, pieces: int) -> None:
    """With SYN and FIN anywhere, segments repeated, and probes in between."""
    choice = random.Random(seed)
    content = choice.randbytes(choice.choice([10, 100, 3000]))
    parts = [sent(base, at, part) for at, part in cut(content, choice, pieces)]
    fin = sent(base, len(content), flags=FIN | ACK)
    order = choice.sample([*parts, fin], len(parts) + 1)
    repeated = [Packet(p.row | {"ts_ns": SECOND}, p.payload) for p in choice.choices(parts, k=2)]
    probe = sent(base, -1, b"\0")
    packets = [*choice.choice([[], [probe]]), *order, *repeated]
    flow = opened(base, *packets)
    assert stream_bytes(flow) == len(content)
    assert prefix(flow) == content[:64]
    assert flow["way"]["next_seq"][0] == (base + len(content) + 1) % 2**32
    late = [packet(tcp_flags=SYN, tcp_seq=(base - 1) % 2**32), *order]
    (flow,) = run([late[1], late[0], *late[2:]] if late[1].payload_length > 1 else late)
    assert (stream_bytes(flow), prefix(flow)) == (len(content), content[:64])
