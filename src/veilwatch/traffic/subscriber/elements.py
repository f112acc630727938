"""Walks over the information elements of GTPv1-C, GTPv2-C and PFCP messages.

Only the outer form is read here: type, instance, length. Each walk ends at the first element
that does not fit, so that a message cut by the snap length or broken at its end still gives what
stands before.

Whole messages are not handed to pycrate. Its message parsers build every element that a message
may carry before they look at the bytes: 9 ms for a PFCP Session Establishment Request, and
8.8 s for 64 kB of empty GTPv2-C elements (pycrate 0.8.1, one core of a virtual machine); they
refuse a whole message for one broken element, do not read piggy-backed messages and switch a
flag of the whole process.
Single elements cost 0.1 to 0.2 ms; those are read with pycrate, in `values.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

MAX_ELEMENTS: Final = 1024
"""Most elements of one message or group that are walked over: a PFCP message of eleven bearers
holds about 200."""

VENDOR_BIT: Final = 0x8000
"""PFCP element types with this bit are a vendor's own (TS 29.244 cl. 8.1.1)."""

_TV_LENGTHS: Final = {
    1: 1,
    2: 8,
    3: 6,
    4: 4,
    5: 4,
    8: 1,
    9: 28,
    11: 1,
    12: 3,
    13: 1,
    14: 1,
    15: 1,
    16: 4,
    17: 4,
    18: 5,
    19: 1,
    20: 1,
    21: 1,
    22: 9,
    23: 1,
    24: 1,
    25: 2,
    26: 2,
    27: 2,
    28: 2,
    29: 1,
    126: 1,
    127: 4,
}
"""Lengths of the elements without a length field (TS 29.060 table 37)."""


class Element(NamedTuple):
    """One information element."""

    kind: int
    instance: int
    value: bytes


def walk_gtpv2(data: bytes) -> Iterator[Element]:
    """Walk over GTPv2-C elements: type, length, instance (TS 29.274 cl. 8.2.1)."""
    position = 0
    for _ in range(MAX_ELEMENTS):
        if position + 4 > len(data):
            return
        end = position + 4 + int.from_bytes(data[position + 1 : position + 3], "big")
        if end > len(data):
            return
        yield Element(data[position], data[position + 3] & 0x0F, data[position + 4 : end])
        position = end


def walk_pfcp(data: bytes) -> Iterator[Element]:
    """Walk over PFCP elements: type, length (TS 29.244 cl. 8.1.1); vendors' own are passed over."""
    position = 0
    for _ in range(MAX_ELEMENTS):
        if position + 4 > len(data):
            return
        kind = int.from_bytes(data[position : position + 2], "big")
        end = position + 4 + int.from_bytes(data[position + 2 : position + 4], "big")
        if end > len(data):
            return
        if not kind & VENDOR_BIT:
            yield Element(kind, 0, data[position + 4 : end])
        position = end


def walk_gtpv1(data: bytes) -> Iterator[Element]:
    """Walk over GTPv1-C elements: below 128 of fixed length, above with one (TS 29.060 cl. 7.7).

    The instance counts the elements of one type: their order tells what they mean (the first
    GSN address is for signalling, the second for user traffic).
    """
    position = 0
    seen: dict[int, int] = {}
    for _ in range(MAX_ELEMENTS):
        if position >= len(data):
            return
        kind = data[position]
        if kind < 128:
            if kind not in _TV_LENGTHS:
                return  # without its length nothing after it can be found
            start, length = position + 1, _TV_LENGTHS[kind]
        else:
            start, length = position + 3, int.from_bytes(data[position + 1 : position + 3], "big")
        end = start + length
        if end > len(data):
            return
        seen[kind] = seen.get(kind, -1) + 1
        yield Element(kind, seen[kind], data[start:end])
        position = end
