"""Blocks of a pcapng as bytes (draft-ietf-opsawg-pcapng), little-endian, in nanoseconds."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from veilwatch.schema.packets import MAX_CAPTURED
from veilwatch.traffic.capture.pcapng import (
    BYTE_ORDER_MAGIC,
    ENHANCED_PACKET,
    INTERFACE_DESCRIPTION,
    OPTION_COMMENT,
    OPTION_END,
    OPTION_RESOLUTION,
    SECTION,
)

INTERFACE_STATISTICS: Final = 5

MAX_U16: Final = 0xFFFF
MAX_U32: Final = 0xFFFF_FFFF

_APPLICATION: Final = 4  # shb_userappl
_NAME: Final = 2  # if_name
_DESCRIPTION: Final = 3  # if_description
_FLAGS: Final = 2  # epb_flags
_START_TIME, _END_TIME, _RECEIVED, _DROPPED = 2, 3, 4, 5  # isb_…
_NANOSECONDS: Final = b"\x09"
_SECTION_LENGTH_UNKNOWN: Final = -1
_END: Final = struct.pack("<HH", OPTION_END, 0)
_PACKET: Final = struct.Struct("<7I")
_PACKET_BYTES: Final = 32
_TOTAL: Final = struct.Struct("<I")


class Direction(IntEnum):
    """Which way a packet went through its interface: the lowest bits of epb_flags."""

    UNKNOWN = 0
    INBOUND = 1
    OUTBOUND = 2


@dataclass(frozen=True, slots=True)
class Interface:
    """Where packets were captured.

    Attributes
    ----------
    link
        LINKTYPE_ value, 1 for Ethernet.
    name, description
        For people; left out where empty.
    snap_length
        Most bytes captured of a packet.

    Raises
    ------
    ValueError
        If a value does not fit into its field.
    """

    link: int = 1
    name: str = ""
    description: str = ""
    snap_length: int = MAX_CAPTURED

    def __post_init__(self) -> None:
        if not 0 <= self.link <= MAX_U16:
            raise ValueError(f"link type {self.link} is out of range")
        if not 0 <= self.snap_length <= MAX_U32:
            raise ValueError(f"snap length {self.snap_length} is out of range")


def section_header(comments: Sequence[str], application: str) -> bytes:
    """Return the block that begins a section of unknown length."""
    options = b"".join(_text(OPTION_COMMENT, comment) for comment in comments)
    header = struct.pack("<IHHq", BYTE_ORDER_MAGIC, 1, 0, _SECTION_LENGTH_UNKNOWN)
    return _block(SECTION, header, options + _text(_APPLICATION, application))


def interface_description(interface: Interface) -> bytes:
    """Return the block that describes an interface whose times are in nanoseconds."""
    options = (
        _text(_NAME, interface.name)
        + _text(_DESCRIPTION, interface.description)
        + _option(OPTION_RESOLUTION, _NANOSECONDS)
    )
    fields = struct.pack("<HHI", interface.link, 0, interface.snap_length)
    return _block(INTERFACE_DESCRIPTION, fields, options)


def enhanced_packet(
    interface: int,
    ts_ns: int,
    frame: bytes | memoryview,
    length: int,
    comment: str = "",
    direction: Direction = Direction.UNKNOWN,
) -> bytes:
    """Return the block of a packet on the interface of number `interface`."""
    options = b""
    if comment:
        options += _text(OPTION_COMMENT, comment)
    if direction:
        options += _option(_FLAGS, _TOTAL.pack(direction))
    if options:
        options += _END
    captured = len(frame)
    padding = -captured % 4
    total = _PACKET_BYTES + captured + padding + len(options)
    head = _PACKET.pack(
        ENHANCED_PACKET, total, interface, ts_ns >> 32, ts_ns & MAX_U32, captured, length
    )
    return b"".join((head, frame, bytes(padding), options, _TOTAL.pack(total)))


def interface_statistics(
    interface: int, first_ns: int, last_ns: int, received: int, dropped: int
) -> bytes:
    """Return the block that says what an interface received and what it had to drop."""
    times = [struct.pack("<II", ns >> 32, ns & MAX_U32) for ns in (first_ns, last_ns)]
    options = (
        _option(_START_TIME, times[0])
        + _option(_END_TIME, times[1])
        + _option(_RECEIVED, struct.pack("<Q", received))
        + _option(_DROPPED, struct.pack("<Q", dropped))
    )
    return _block(INTERFACE_STATISTICS, struct.pack("<I", interface) + times[1], options)


def _text(code: int, text: str) -> bytes:
    return _option(code, text.encode()) if text else b""


def _option(code: int, value: bytes) -> bytes:
    if len(value) > MAX_U16:
        raise ValueError(f"an option of {len(value)} bytes is longer than {MAX_U16}")
    return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)


def _block(kind: int, body: bytes, options: bytes) -> bytes:
    if options:
        options += _END
    total = _TOTAL.pack(12 + len(body) + len(options))
    return _TOTAL.pack(kind) + total + body + options + total
