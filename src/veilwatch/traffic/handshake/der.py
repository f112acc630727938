"""Just enough DER (X.690) to take a certificate apart field by field, whatever else is wrong in it.

Nothing is validated: an element is its tag, its length and as many bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

INTEGER: Final = 0x02
BIT_STRING: Final = 0x03
OCTET_STRING: Final = 0x04
OBJECT_IDENTIFIER: Final = 0x06
SEQUENCE: Final = 0x30
SET: Final = 0x31
CONTEXT: Final = 0x80
CONSTRUCTED: Final = 0x20

_LONG_TAG: Final = 0x1F
_MAX_LENGTH_BYTES: Final = 4
"""Bytes of a length that are read: more would be longer than any input."""


class Element(NamedTuple):
    """One element: its identifier octet, what it holds, and all of its bytes."""

    tag: int
    content: bytes
    raw: bytes


def elements(data: bytes) -> Iterator[Element]:
    """Yield the elements of `data` one behind another, up to one that is cut or malformed."""
    offset, end = 0, len(data)
    while offset + 2 <= end and data[offset] & _LONG_TAG != _LONG_TAG:
        start, tag, size = offset, data[offset], data[offset + 1]
        offset += 2
        if size >= 0x80:
            width = size & 0x7F
            if not 0 < width <= _MAX_LENGTH_BYTES or offset + width > end:
                return
            size = int.from_bytes(data[offset : offset + width], "big")
            offset += width
        if offset + size > end:
            return
        yield Element(tag, data[offset : offset + size], data[start : offset + size])
        offset += size


def inside(data: bytes, *tags: int) -> bytes | None:
    """Return the content of the first element in the first element ..., None if one is missing.

    Parameters
    ----------
    tags
        Of each element on the way down.
    """
    for tag in tags:
        element = next(elements(data), None)
        if element is None or element.tag != tag:
            return None
        data = element.content
    return data


def magnitude(content: bytes) -> int:
    """Return the bits of an INTEGER, taken as unsigned: some encoders forget the leading zero."""
    return int.from_bytes(content, "big").bit_length()
