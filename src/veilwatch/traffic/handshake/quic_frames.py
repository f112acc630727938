"""What QUIC Initial packets carry: a stream of TLS handshake messages in CRYPTO frames.

RFC 9000, sections 12.4 and 19. Frames may come in any order, overlap and repeat themselves; what
came first stays.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from veilwatch.traffic.handshake.byte_stream import ByteStream
from veilwatch.traffic.handshake.quic import varint

MAX_FRAMES: Final = 512
"""Frames read of one packet, a run of PADDING and PING counting as one: clients that scatter their
ClientHello on purpose write about 30, and one Ethernet frame has room for fewer than 400 of CRYPTO
with a byte each."""

_FILLING: Final = b"\x00\x01"
"""PADDING and PING, which are a type and nothing else."""

_ACK: Final = 0x02
_ACK_ECN: Final = 0x03
_CRYPTO: Final = (0x06, 0x08)
"""CRYPTO, and what it was in T050 and T051; no other Initial may hold the latter (STREAM)."""


class CryptoStream(ByteStream):
    """The bytes of CRYPTO frames, by offset."""

    def add(self, frames: bytes) -> None:
        """Take over the CRYPTO frames of one packet."""
        for offset, content in crypto_frames(frames):
            self.put(offset, content)


def crypto_frames(frames: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield offset and content of the CRYPTO frames of an Initial packet.

    Reading ends at a frame that is cut or does not belong here, such as CONNECTION_CLOSE.
    """
    offset, end = 0, len(frames)
    for _ in range(MAX_FRAMES):
        if offset >= end:
            return
        kind = frames[offset]
        offset += 1
        if kind in _CRYPTO:
            position, offset = varint(frames, offset)
            if offset < 0:
                return
            size, offset = varint(frames, offset)
            if offset < 0 or offset + size > end:
                return
            yield position, frames[offset : offset + size]
            offset += size
        elif kind in _FILLING:
            offset = end - len(frames[offset:].lstrip(_FILLING))
        elif kind in (_ACK, _ACK_ECN):
            offset = _behind_ack(frames, offset, ecn=kind == _ACK_ECN)
            if offset < 0:
                return
        else:
            return


def _behind_ack(frames: bytes, offset: int, *, ecn: bool) -> int:
    """Return the offset behind an ACK frame's content (RFC 9000, section 19.3), -1 if cut."""
    numbers = 4  # largest acknowledged, delay, count of further ranges, first range
    taken = 0
    while taken < numbers:
        value, offset = varint(frames, offset)
        if offset < 0:
            return -1
        taken += 1
        if taken == 3:
            numbers += 2 * value + (3 if ecn else 0)
    return offset
