"""Which parts of QUIC and DTLS datagrams a head keeps, against the oracle and by name."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from tests.traffic.flow.oracle import Packet
from tests.traffic.flow.streams import assert_same, batch, packet, reply
from tests.traffic.flow.test_heads import (
    CONFIG,
    LONG,
    PORTS,
    SHORT,
    framed,
    initial,
    kept,
    quic,
    waiting,
)
from veilwatch.schema.flows import HEAD_BYTES
from veilwatch.traffic.flow import FlowMeter
from veilwatch.traffic.flow.datagrams import (
    HANDSHAKE_BYTES,
    READY_AFTER_DATAGRAMS,
    START_WITHIN_DATAGRAMS,
)

V2 = bytes.fromhex("6b3343cf")
IDS = b"\x08" + bytes(range(8)) + b"\x00"


def other(kind: int, size: int = 1200, version: bytes = b"\0\0\0\1", salt: int = 0) -> bytes:
    """A packet without token: 1 0-RTT, 2 Handshake in version 1."""
    header = bytes([0xC0 | kind << 4]) + version + IDS
    rest = size - len(header) - 2
    return (
        header + (0x4000 | rest).to_bytes(2, "big") + bytes((salt + i) % 251 for i in range(rest))
    )


def hello(kind: int = 1, *, number: int = 0, size: int = 100, epoch: int = 0, at: int = 0) -> bytes:
    """A datagram with one handshake message, or a part of it, in a record of DTLS 1.2."""
    body = bytes((number + i) % 256 for i in range(size))
    message = bytes([kind]) + (size + at).to_bytes(3, "big") + bytes(2)
    message += at.to_bytes(3, "big") + size.to_bytes(3, "big") + body
    record = b"\x16\xfe\xfd" + epoch.to_bytes(2, "big") + number.to_bytes(6, "big")
    return record + len(message).to_bytes(2, "big") + message


STUN = b"\x00\x01\x00\x08\x21\x12\xa4\x42" + bytes(20)


def test_what_is_no_initial_takes_no_room() -> None:
    """0-RTT, Handshake and repeats between two parts of a hello, more than there is room for."""
    between = [("c", other(1, salt=k)) for k in range(9)] + [("c", LONG[0])] * 9
    turns = [("c", LONG[0]), *between, ("s", LONG[5]), ("c", other(2)), ("c", LONG[1])]
    assert kept(quic(*turns)) == ([LONG[0], LONG[1]], [LONG[5]])


def test_0rtt_may_overtake_the_hello() -> None:
    turns = [("c", other(1, salt=k)) for k in range(30)] + [("c", LONG[0]), ("c", LONG[1])]
    assert kept(quic(*turns)) == ([LONG[0], LONG[1]], [])


@pytest.mark.parametrize(
    "version", [b"\0\0\0\1", V2, bytes.fromhex("ff00001d"), bytes.fromhex("faceb002"), b"T051"]
)
def test_of_coalesced_packets_only_initials_are_kept(version: bytes) -> None:
    """The type bits of version 2 are others (RFC 9369 cl. 3.2)."""
    turned = 1 if version == V2 else 0

    def of(kind: int, content: bytes) -> bytes:
        return bytes([0xC0 | (kind + turned) % 4 << 4]) + version + content[5:]

    first, second = of(0, initial(1, 300)), of(0, initial(2, 250))
    early, handshake = of(1, other(1, 400)), of(2, other(2, 500))
    turns = [
        ("c", first + early),
        ("c", early + second),
        ("s", second + handshake + SHORT),
        ("s", handshake + first),
        ("s", first + second + handshake),
    ]
    assert kept(quic(*turns)) == ([first, second], [second, first, first + second])


def test_a_handshake_packet_alone_says_who_answered() -> None:
    """Its header holds the server's connection id; once more, or beside an Initial, it does not."""
    answer = other(2, 900)
    turns = [("c", LONG[0]), ("s", answer), ("s", other(2, 901)), ("s", LONG[1])]
    assert kept(quic(*turns)) == ([LONG[0]], [answer[:HANDSHAKE_BYTES], LONG[1]])


def test_six_full_initials_fit() -> None:
    turns = [("c", datagram) for datagram in LONG[:8]]
    whole = HEAD_BYTES // 1202
    found, _ = kept(quic(*turns))
    assert found[:whole] == LONG[:whole]
    assert whole == 6


def test_stun_does_not_end_a_quic_handshake() -> None:
    turns = [("c", LONG[0]), ("c", STUN), ("c", LONG[1])]
    assert kept(quic(*turns)) == ([LONG[0], LONG[1]], [])
    assert waiting(quic(*turns)) == 0


def test_a_dtls_handshake_is_kept_after_stun() -> None:
    """WebRTC: checks, then DTLS, then media on one pair of ports."""
    first, verify, second, answer = hello(1), hello(3), hello(1, number=1), hello(2, size=400)
    checks = [("cs"[k % 2], STUN + bytes([k])) for k in range(60)]
    shake = [("c", first), ("s", verify), ("c", second), ("c", STUN), ("s", answer)]
    assert kept(quic(*checks, *shake)) == ([first, second], [verify, answer])
    assert waiting(quic(*checks, *shake)) == 0
    for ending in (b"\x14\xfe\xfd", b"\x17\xfe\xfd", hello(20, epoch=1), b"\x2f" * 9, b"\x80" * 20):
        assert waiting(quic(*checks, *shake, ("s", ending))) == 1
    assert waiting(quic(*checks, *shake, ("s", b"\x40\x00" + bytes(20)))) == 0  # a TURN channel


@pytest.mark.parametrize("protocol", [33, 136])
def test_dtls_goes_over_dccp_and_udp_lite(protocol: int) -> None:
    """Neither carries QUIC or DNS: what looks like them takes no room."""

    def over(*turns: tuple[str, bytes]) -> list[Packet]:
        return [Packet({**p.row, "protocol": protocol}, p.payload) for p in quic(*turns)]

    first, answer = hello(1), hello(2, size=400)
    turns = [("c", first), ("s", answer), ("c", first)]
    assert kept(over(*turns)) == ([first], [answer])
    assert waiting(over(*turns)) == 0
    assert waiting(over(*turns, ("s", b"\x17\xfe\xfd"))) == 1
    flow_meter = FlowMeter()
    flow_meter.add(batch(over(("c", LONG[0]), ("s", LONG[1]))))
    flow_meter.finish()
    assert flow_meter.pending_heads == 0
    assert_same(over(*turns, *[("c", STUN)] * READY_AFTER_DATAGRAMS), CONFIG)


def test_fragments_and_late_starts_of_dtls() -> None:
    parts = [hello(1, size=500, at=500, number=1), hello(1, size=500), hello(11, size=600)]
    assert kept(quic(*[("c", part) for part in parts])) == (parts, [])
    flow_meter = FlowMeter()
    flow_meter.add(batch(quic(("c", hello(20)), ("c", hello(20, epoch=1)))))
    flow_meter.finish()
    assert flow_meter.pending_heads == 0  # in the middle of a connection


@pytest.mark.parametrize(
    "odd",
    [
        hello()[:24],  # cut in the header
        b"\x17" + hello()[1:],
        hello()[:1] + b"\x03\x03" + hello()[3:],
        hello(epoch=1),
        hello()[:13] + b"\x0b" + hello()[14:],  # a certificate does not begin it
        hello()[:22] + b"\xff" + hello()[23:],  # a part longer than its message
    ],
)
def test_what_is_no_dtls_hello(odd: bytes) -> None:
    flow_meter = FlowMeter()
    packets = quic(("c", odd))
    assert_same(packets, CONFIG)
    flow_meter.add(batch(packets))
    flow_meter.finish()
    assert flow_meter.pending_heads == 0


def test_a_handshake_may_begin_late_but_not_too_late() -> None:
    for before, heads in ((START_WITHIN_DATAGRAMS - 1, 1), (START_WITHIN_DATAGRAMS, 0)):
        packets = quic(*[("c", STUN + bytes([k])) for k in range(before)], ("c", LONG[0]))
        assert_same(packets, CONFIG)
        flow_meter = FlowMeter()
        flow_meter.add(batch(packets))
        flow_meter.finish()
        assert flow_meter.pending_heads == heads


def test_a_head_waits_for_so_many_datagrams_from_its_start() -> None:
    checks = [("c", STUN + bytes([k])) for k in range(40)]
    for after, ready in ((READY_AFTER_DATAGRAMS - 1, 0), (READY_AFTER_DATAGRAMS, 1)):
        turns = [*checks, ("c", LONG[0]), *[("s", STUN + bytes([k])) for k in range(after)]]
        assert waiting(quic(*turns)) == ready
        assert_same(quic(*turns), CONFIG)


def test_dns_is_not_taken_for_quic_or_dtls() -> None:
    """Its identifier is any number."""
    ends = {**PORTS, "dst_port": 53}
    for question in (LONG[0], hello(), b"\xc0\x01" + bytes(20)):
        packets = [packet(question, **ends), packet(LONG[1], ts_ns=1, **ends)]
        packets.append(reply(hello(2), ts_ns=2, **ends))
        assert_same(packets, CONFIG)
        flow_meter = FlowMeter()
        flow_meter.add(batch(packets))
        _, heads = flow_meter.take()
        assert heads.stream(0, 0) == framed(question)


@st.composite
def datagrams(draw: st.DrawFn) -> list[tuple[str, bytes]]:
    """Datagrams of any mixture, some cut or with a byte changed."""
    choice = Random(draw(st.integers(0, 2**32)))
    makers = [
        lambda: initial(choice.randrange(3), choice.choice([60, 90, 250, 1200])),
        lambda: other(choice.randrange(4), choice.choice([40, 300, 900])),
        lambda: other(
            choice.randrange(4), 200, choice.choice([V2, b"Q046", b"Q050", b"\xff\0\0\x12"])
        ),
        lambda: b"\x80\0\0\0\0" + IDS + b"\0\0\0\1" * choice.randrange(4),
        lambda: hello(choice.randrange(16), number=choice.randrange(3), size=choice.randrange(400)),
        lambda: STUN,
        lambda: SHORT,
        lambda: b"\x0d" + bytes(8) + b"Q043" + bytes(500),
        lambda: choice.randbytes(choice.randrange(1, 60)),
    ]
    turns = []
    for _ in range(draw(st.integers(1, 40))):
        payload = b"".join(choice.choice(makers)() for _ in range(choice.choice([1, 1, 1, 2, 3])))
        if choice.random() < 0.2:
            payload = payload[: choice.randrange(1, len(payload) + 1)]
        if choice.random() < 0.2:
            at = choice.randrange(min(len(payload), 40))
            payload = payload[:at] + choice.randbytes(1) + payload[at + 1 :]
        turns.append((choice.choice("cs"), payload))
    return turns


@examples(400)
@given(datagrams())
def test_any_datagrams(turns: list[tuple[str, bytes]]) -> None:
    assert_same(quic(*turns), CONFIG)
