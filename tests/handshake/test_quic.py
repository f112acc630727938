"""QUIC versions of long headers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.handshake.streams import head
from veilwatch.handshake import read_heads
from veilwatch.handshake.quic import initial_version

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


@given(st.binary(max_size=64))
def test_any_bytes_are_survived(datagram: bytes) -> None:
    initial_version(datagram)
