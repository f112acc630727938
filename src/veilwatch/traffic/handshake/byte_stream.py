"""Bytes that come in pieces, in any order, with overlaps and repeats; what came first stays."""

from __future__ import annotations

from typing import Final

from veilwatch.schema.flows import HEAD_BYTES

MAX_STREAM: Final = HEAD_BYTES
"""Most bytes put together: no more than this was kept of the packets themselves."""


class ByteStream:
    """The bytes of pieces, by offset."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._holes = False
        self._known = bytearray()

    def put(self, offset: int, content: bytes) -> None:
        """Take over a piece, as far as it lies within `MAX_STREAM`."""
        end = min(offset + len(content), MAX_STREAM)
        size = len(self._bytes)
        if offset >= end:
            return
        if not self._holes:
            if offset == size:  # as honest clients send it
                self._bytes += content[: end - offset]
                return
            self._holes = True
            self._known = bytearray(b"\x01" * size)
        if end > size:
            self._bytes.extend(bytes(end - size))
            self._known.extend(bytes(end - size))
        if self._known.find(1, offset, end) < 0:
            self._bytes[offset:end] = content[: end - offset]
        else:
            for at in range(offset, end):
                if not self._known[at]:
                    self._bytes[at] = content[at - offset]
        self._known[offset:end] = b"\x01" * (end - offset)

    def whole(self) -> bytes:
        """Return the bytes up to the first hole."""
        if not self._holes:
            return bytes(self._bytes)
        hole = self._known.find(0)
        return bytes(self._bytes if hole < 0 else self._bytes[:hole])
