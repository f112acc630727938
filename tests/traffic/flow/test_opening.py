"""Where a handshake begins: in any order of its segments, in tiny ones, behind a PROXY header."""

from __future__ import annotations

import random
from itertools import pairwise, permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from tests.traffic.flow.oracle import Packet
from tests.traffic.flow.streams import SECOND, assert_same, batch, meter, packet, reply
from veilwatch.traffic.flow import FlowMeter, MeterConfig
from veilwatch.traffic.flow.heads import READY_AT_LAST
from veilwatch.traffic.flow.opening import MAX_PROXY_BYTES
from veilwatch.traffic.flow.state import HEADS_FREE
from veilwatch.traffic.handshake.services import recognise_services

SYN, ACK = 2, 16
CONFIG = MeterConfig()


def hello(length: int, kind: int = 1) -> bytes:
    start = bytes([0x16, 3, 1]) + (length - 5).to_bytes(2, "big") + bytes([kind])
    return start + bytes((7 * i + i // 251) % 256 for i in range(length - 6))


HELLO = hello(1800)
TEXT = b"PROXY TCP4 203.0.113.7 192.0.2.10 56324 443\r\n"
LONG_TEXT = b"PROXY TCP6 " + b"2001:db8:1234:5678:9abc:def0:1234:5678 " * 2 + b"65535 65535\r\n"
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def binary(length: int = 12, command: int = 0x21) -> bytes:
    return SIGNATURE + bytes([command, 0x11]) + length.to_bytes(2, "big") + bytes(length)


HEADERS = [
    *(TEXT, b"PROXY UNKNOWN\r\n", LONG_TEXT, binary(), binary(0, 0x20), binary(900)),
    *(TEXT + binary(), binary() + TEXT, TEXT + TEXT, 4 * binary(30)),
]


def sent(start: int, payload: bytes, base: int = 1000, **fields: int) -> Packet:
    return packet(payload, tcp_seq=(base + start) % 2**32, tcp_ack=5000, **fields)


def cut(content: bytes, *places: int) -> list[Packet]:
    edges = [0, *places, len(content)]
    return [sent(a, content[a:b]) for a, b in pairwise(edges)]


def beginnings(base: int = 1000) -> dict[str, list[Packet]]:
    syn = packet(tcp_flags=SYN, tcp_seq=(base - 1) % 2**32)
    syn_ack = reply(tcp_flags=SYN | ACK, tcp_seq=4999, tcp_ack=base)
    return {
        "handshake": [syn, syn_ack, sent(0, b"", base)],
        "syn": [syn],
        "syn-ack": [syn_ack],
        "acknowledgement": [sent(0, b"", base)],
        "nothing": [],
    }


def run(packets: list[Packet], config: MeterConfig = CONFIG) -> tuple[Any, list[bytes]]:
    """The record of the one flow, and the stream of each of its heads."""
    assert_same(packets, config)
    flows, heads, _ = meter(packets, config)
    assert len(flows) == 1
    return flows.records, [streams[0] for *_, streams in heads]


@pytest.mark.parametrize("beginning", list(beginnings()))
@pytest.mark.parametrize("places", [(2,), (1, 2), (1400,), (700, 1400), (5, 60), (500, 1000, 1500)])
def test_any_order_of_the_first_segments(beginning: str, places: tuple[int, ...]) -> None:
    """ntop/nDPI#1217, ValdikSS/GoodbyeDPI#357."""
    for order in permutations(cut(HELLO, *places)):
        records, heads = run([*beginnings()[beginning], *order])
        assert heads == [HELLO]
        assert records["start"]["prefix"][0, 0].tobytes() == HELLO[:64]
        assert recognise_services(records).tolist() == ["tls"]
        assert records["way"]["payload_bytes"][0, 0] - records["way"]["old_bytes"][0, 0] == len(
            HELLO
        )


@examples(60)
@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(20, 5000))
def test_any_order_with_repeats_and_overlaps(base: int, seed: int, length: int) -> None:
    choice, content = random.Random(seed), hello(length)
    places = sorted(choice.sample(range(1, length), choice.randrange(7)))
    edges = [0, *places, length]
    parts = [sent(a, content[a:b], base) for a, b in pairwise(edges)]
    for _ in range(choice.randrange(4)):
        a, b = sorted(choice.sample(range(length + 1), 2))
        parts.append(sent(a, content[a:b], base, ts_ns=SECOND))
    choice.shuffle(parts)
    for beginning in ("handshake", "acknowledgement"):
        _, heads = run([*beginnings(base)[beginning], *parts])
        assert heads == [content]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_hello_in_tiny_segments(size: int) -> None:
    content = hello(517)
    packets = cut(content, *range(size, len(content), size))
    _, heads = run([*beginnings()["handshake"], *packets])
    assert heads == [content]
    assert len(packets) < READY_AT_LAST


def test_tiny_segments_keep_no_buffer_for_ever() -> None:
    flow_meter = FlowMeter()
    content = hello(5000)
    flow_meter.add(batch(cut(content, *range(1, READY_AT_LAST - 1))[:-1]))
    assert flow_meter.pending_heads == 0
    flow_meter.add(batch([sent(READY_AT_LAST - 2 + k, b"\0") for k in range(2)]))
    assert flow_meter.pending_heads == 1


def test_a_hello_in_disorder_behind_another_dialogue() -> None:
    """STARTTLS: the server's go-ahead is the last that was seen in order."""
    dialogue = [sent(0, b"EHLO me\r\n"), sent(9, b"STARTTLS\r\n")]
    parts = [sent(19 + a, HELLO[a:b]) for a, b in ((0, 2), (2, 900), (900, 1800))]
    for order in permutations(parts):
        _, heads = run([*beginnings()["handshake"], *dialogue, *order])
        assert heads == [HELLO]
    for order in permutations([dialogue[1], *parts]):
        _, heads = run([*beginnings()["handshake"], dialogue[0], *order])
        assert heads == [HELLO]


def free_buffers(packets: list[Packet]) -> int:
    flow_meter = FlowMeter(MeterConfig(max_heads=8))
    flow_meter.add(batch(packets))
    return int(flow_meter._state.counters[HEADS_FREE])


REQUEST = b"GET / HTTP/1.1\r\nHost: example.net\r\n\r\n"


@pytest.mark.parametrize("beginning", list(beginnings()))
def test_a_guess_is_given_back(beginning: str) -> None:
    opening = beginnings()[beginning]
    first, second, third = cut(REQUEST, 10, 20)
    assert free_buffers([*opening, second]) == 7
    more = [sent(len(REQUEST) + 9 * k, b"more data") for k in range(3)]
    assert free_buffers([*opening, second, first, third, *more]) == 8
    assert run([*opening, second, third])[1] == []
    assert run([*opening, second, first, third, *more])[1] == []


def test_nothing_is_guessed_where_it_is_clear() -> None:
    for payload in (b"\x17\x03\x03\x00\x20" + bytes(32), b"\x15\x03\x03\x00\x02\x01\x00"):
        assert free_buffers([sent(0, payload)]) == 8
    assert free_buffers([*beginnings()["handshake"], sent(0, REQUEST)]) == 8
    assert free_buffers([*beginnings()["handshake"], sent(0, b"PRI * HTTP/2.0\r\n")]) == 8


def test_guesses_push_no_handshake_out() -> None:
    guesses = [sent(0, b"?" * 100, src_port=1 + k) for k in range(50)]
    hellos = [sent(0, hello(100 + k), src_port=100 + k) for k in range(6)]
    oracle = assert_same([*guesses, *hellos], MeterConfig(max_heads=8))
    assert oracle.heads_cut == 0
    oracle = assert_same([*guesses[:3], *hellos], MeterConfig(max_heads=4))
    assert len(oracle.heads) == 6


# PROXY headers


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("beginning", list(beginnings()))
def test_a_handshake_behind_a_proxy_header(header: bytes, beginning: str) -> None:
    """zeek/zeek#1554: in one segment, in its own, and cut anywhere."""
    content = header + HELLO
    places = [
        (),
        (len(header),),
        (3,),
        (len(header) - 1,),
        (len(header) + 1,),
        (14, len(header) + 4),
    ]
    for cuts in places:
        records, heads = run([*beginnings()[beginning], *cut(content, *cuts)])
        assert heads == [content]
        assert records["start"]["prefix_skip"][0].tolist() == [len(header), 0]
        assert records["start"]["prefix"][0, 0].tobytes() == HELLO[:64]
        assert recognise_services(records).tolist() == ["tls"]


@pytest.mark.parametrize("header", HEADERS)
def test_a_proxy_header_in_disorder(header: bytes) -> None:
    content = header + HELLO
    for order in permutations(cut(content, 5, len(header) + 100)):
        records, heads = run([*beginnings()["handshake"], *order])
        assert heads == [content]
        assert recognise_services(records).tolist() == ["tls"]


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize(
    ("payload", "service"), [(REQUEST, "http"), (b"SSH-2.0-x\r\n", "ssh"), (b"EHLO me\r\n", "smtp")]
)
def test_other_services_behind_a_proxy_header(header: bytes, payload: bytes, service: str) -> None:
    content = header + payload
    for cuts in ((), (len(header),), (len(header) - 2,), (7, len(header) + 2)):
        packets = [*beginnings()["handshake"], *cut(content, *cuts)]
        records, heads = run(packets)
        assert heads == []
        assert recognise_services(records).tolist() == [service]
        assert free_buffers([*packets, sent(len(content), b"more")]) == 8


def test_headers_of_several_segments_add_up() -> None:
    segments = cut(TEXT + binary() + HELLO, len(TEXT), len(TEXT) + 28)
    records, heads = run([*beginnings()["handshake"], *segments])
    assert heads == [TEXT + binary() + HELLO]
    assert records["start"]["prefix_skip"][0, 0] == len(TEXT) + 28
    assert records["start"]["prefix"][0, 0].tobytes() == HELLO[:64]


def test_more_headers_than_are_skipped() -> None:
    records, heads = run([*beginnings()["handshake"], sent(0, 5 * TEXT + HELLO)])
    assert heads == []
    assert records["start"]["prefix_skip"][0, 0] == 4 * len(TEXT)


@pytest.mark.parametrize(
    "header",
    [
        b"PROXY " + b"x" * 101 + b"\r\n",
        binary(MAX_PROXY_BYTES + 1),
        binary(12, 0x11),
        b"PROXI TCP4 203.0.113.7 192.0.2.10 56324 443\r\n",
    ],
)
def test_what_is_no_proxy_header(header: bytes) -> None:
    records, heads = run([*beginnings()["handshake"], sent(0, header + HELLO)])
    assert heads == []
    assert records["start"]["prefix_skip"][0, 0] == 0
    assert records["start"]["prefix"][0, 0].tobytes() == (header + HELLO)[:64]
