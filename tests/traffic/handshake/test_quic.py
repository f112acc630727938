"""QUIC packets by their long headers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.traffic.handshake.quic_peer import (
    DCID,
    SCID,
    V1,
    V2,
    Version,
    closed,
    initial,
    integer,
    negotiation,
    retry,
)
from tests.traffic.handshake.quic_peer import long_header as header
from tests.traffic.handshake.streams import head
from veilwatch.traffic.handshake import read_heads
from veilwatch.traffic.handshake.quic import (
    HANDSHAKE,
    INITIAL,
    MAX_COALESCED,
    MAX_OFFERED_VERSIONS,
    RETRY,
    VERSION_NEGOTIATION,
    ZERO_RTT,
    initial_version,
    long_packets,
    varint,
)

IDS = b"\x08" + b"c" * 8 + b"\x00" + bytes(40)


def long_header(version: int, first: int = 0xC3, ids: bytes = IDS) -> bytes:
    return bytes((first,)) + version.to_bytes(4, "big") + ids


@pytest.mark.parametrize(
    ("datagram", "version"),
    [
        (long_header(1), 1),
        (long_header(0xFF00001D), 0xFF00001D),
        (long_header(0x51303530), 0x51303530),  # Q050
        (long_header(0x51303436, ids=b"\x50" + bytes(40)), 0x51303436),  # Q046: lengths in one byte
        (long_header(0xBABABABA), 0xBABABABA),  # reserved, to force negotiation
        (long_header(0x6B3343CF, 0xD3), 0x6B3343CF),  # v2 numbers its packet types anew
        (b"\x0d" + b"c" * 8 + b"Q043" + bytes(20), 0x51303433),
        (long_header(0x6B3343CF, 0xC3), 0),  # v2: this is a Retry
        (long_header(1, 0xE3), 0),  # Handshake
        (long_header(1, 0x83), 0),  # fixed bit missing
        (long_header(0), 0),  # version negotiation
        (long_header(0x12345678), 0),
        (long_header(0xFF000099), 0),  # no such draft
        (long_header(1, ids=b"\x15" + bytes(60)), 0),  # connection id too long
        (long_header(1, ids=b"\x00\x15" + bytes(60)), 0),
        (long_header(1)[:10], 0),
        (b"\x0d" + b"c" * 8 + b"QXYZ", 0),
        (b"", 0),
    ],
)
def test_initial_version(datagram: bytes, version: int) -> None:
    assert initial_version(datagram) == version
    facts = read_heads(head(datagram, protocol=17))
    assert facts["quic_version"].to_list() == [version]


def test_the_initiator_speaks_first() -> None:
    facts = read_heads(head(long_header(1), long_header(0x6B3343CF, 0xD3), protocol=17))
    assert facts["quic_version"].to_list() == [1]


@pytest.mark.parametrize("version", [V1, V2])
def test_coalesced_packets(version: Version) -> None:
    parts = [
        initial(b"", version, scid=SCID, token=b"abc"),
        closed(1, version, scid=SCID),
        closed(2, version, scid=SCID),
    ]
    packets = long_packets(b"".join(parts) + b"\x41" + bytes(30))
    assert [packet.kind for packet in packets] == [INITIAL, ZERO_RTT, HANDSHAKE]
    assert [packet.content for packet in packets] == parts
    assert {(p.version, p.dcid, p.scid, p.whole) for p in packets} == {
        (version.number, DCID, SCID, True)
    }
    assert packets[0].token_bytes == 3


def test_a_datagram_belongs_to_one_connection() -> None:
    packets = long_packets(closed(2) + closed(2, dcid=b"another") + closed(2))
    assert [packet.dcid for packet in packets] == [DCID]


def test_no_more_packets_than_the_bound_are_read() -> None:
    assert len(long_packets(closed(2) * (MAX_COALESCED + 3))) == MAX_COALESCED


def test_retry_and_version_negotiation_end_a_datagram() -> None:
    for content, kind in ((retry(), RETRY), (retry(V2), RETRY)):
        (packet,) = long_packets(content + closed(2))
        assert (packet.kind, packet.scid, packet.content) == (kind, SCID, content + closed(2))
    assert long_packets(header(V1, 3, b"", SCID) + bytes(16)) == []  # a Retry needs a token
    (packet,) = long_packets(negotiation([1, 2], dcid=bytes(60), scid=bytes(255)))
    assert (packet.kind, packet.versions) == (VERSION_NEGOTIATION, (1, 2))
    (packet,) = long_packets(negotiation([1, 2])[:-1])
    assert packet.versions == (1,)
    (packet,) = long_packets(negotiation([7] * 300))
    assert packet.versions == (7,) * MAX_OFFERED_VERSIONS


@pytest.mark.parametrize(
    "behind",
    [
        integer(0) + integer(61) + bytes(60),  # one byte is missing
        integer(2**62 - 1) + bytes(60),
        integer(0) + integer(2**62 - 1) + bytes(60),
        integer(60) + bytes(60),  # the token takes all
        b"",
        b"\xc0",
    ],
)
def test_cut_packets_still_tell_their_ids(behind: bytes) -> None:
    (packet,) = long_packets(header(V1, 0, DCID, SCID) + behind)
    assert (packet.kind, packet.whole) == (INITIAL, False)
    assert (packet.dcid, packet.scid) == (DCID, SCID)


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b"\x40" + bytes(60),
        header(V1, 0, DCID, SCID) + integer(0) + integer(19) + bytes(19),  # nothing to sample
        header(V1, 0, bytes(21), SCID) + bytes(60),
        header(V1, 0, DCID, SCID)[:-1],
        long_header(0x51303436, ids=b"\x50" + bytes(40)),  # Q046 has other lengths
        long_header(0xFF000015, ids=b"\x55" + bytes(40)),  # and so has draft 21
        long_header(0x12345678),
    ],
)
def test_what_is_not_a_packet(datagram: bytes) -> None:
    assert long_packets(datagram) == []


@pytest.mark.parametrize(
    ("encoded", "value"),
    [
        ("c2197c5eff14e88c", 151_288_809_941_952_652),
        ("9d7f3e7d", 494_878_333),
        ("7bbd", 15_293),
        ("25", 37),
        ("4025", 37),
    ],
)
def test_variable_length_integers_of_rfc_9000(encoded: str, value: int) -> None:
    data = bytes.fromhex(encoded)
    assert varint(b"x" + data, 1) == (value, 1 + len(data))
    for size in range(len(data)):
        assert varint(data[:size], 0) == (0, -1)


@given(st.binary(max_size=64))
def test_any_bytes_are_survived(datagram: bytes) -> None:
    initial_version(datagram)
    assert len(long_packets(datagram)) <= MAX_COALESCED
    long_packets(b"\xc0\0\0\0\1" + datagram)
