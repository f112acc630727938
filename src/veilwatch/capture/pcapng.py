"""The pcapng format (draft-ietf-opsawg-pcapng)."""

from __future__ import annotations

import struct
from collections.abc import Generator
from typing import Any, Final, Literal

import numpy as np

from veilwatch.capture.account import account
from veilwatch.capture.clock import (
    DEFAULT_RESOLUTION,
    INTERFACE_DTYPE,
    MIN_TIME_NS,
    set_resolution,
    to_nanoseconds,
)
from veilwatch.capture.fault import (
    BLOCK_LENGTH,
    BYTE_ORDER,
    CAPTURED,
    CUT,
    FULL,
    INTERFACE,
    INTERFACES,
    MORE,
    OPTION,
    OVERFULL,
    SKIP,
    STRUCTURE,
    TRAILER,
    VERSION,
    Fault,
)
from veilwatch.capture.window import Window
from veilwatch.capture.words import word16, word32
from veilwatch.jit import kernel
from veilwatch.schema.captures import MAX_COMMENT_CHARS, MAX_COMMENTS, FileReport
from veilwatch.schema.packets import BLOCK_RECORDS, MAX_CAPTURED, RECORD_DTYPE, RawBlock

SECTION: Final = 0x0A0D0D0A
INTERFACE_DESCRIPTION: Final = 1
OBSOLETE_PACKET: Final = 2
SIMPLE_PACKET: Final = 3
ENHANCED_PACKET: Final = 6

BYTE_ORDER_MAGIC: Final = 0x1A2B3C4D

MAX_BLOCK: Final = 1 << 20
"""Longest block that has to lie in memory at once: the largest packet and a generous lot of
options. Blocks of other types may be longer, they are passed over as they stream by."""

MAX_INTERFACES: Final = 0xFFFF
"""Most interfaces of one section: RECORD_DTYPE numbers them in 16 bits."""

OPTION_END: Final = 0
OPTION_COMMENT: Final = 1
OPTION_RESOLUTION: Final = 9
OPTION_OFFSET: Final = 14

_SMALLEST: Final = 12
_SMALLEST_SECTION: Final = 28
_SMALLEST_DESCRIPTION: Final = 20
_SMALLEST_SIMPLE: Final = 16
_SMALLEST_PACKET: Final = 32
_PACKET_HEADER: Final = 28
_SIMPLE_HEADER: Final = 12


@kernel
def walk_pcapng(
    buffer: Any,
    start: Any,
    end: Any,
    records: Any,
    interfaces: Any,
    described: Any,
    big: Any,
    source: Any,
    number: Any,
    clock: Any,
) -> Any:
    """Note the packets of `buffer[start:end]` in `records`, pass over blocks without packets.

    Parameters
    ----------
    buffer
        uint8 array.
    start, end
        int64 bounds of the bytes at hand.
    records
        Array of `RECORD_DTYPE` to fill.
    interfaces
        Array of `INTERFACE_DTYPE`; the first `described` rows are valid.
    big
        Whether the section is big-endian.
    source
        Value for the records.
    number
        Packets of this file before these.
    clock
        Time of the packet before these, ns: a Simple Packet Block carries none of its own.

    Returns
    -------
    count, start, status, skipped
        Packets noted, where the next block begins, FULL, MORE, STRUCTURE, SKIP or a fault, and
        the blocks passed over.
    """
    count = 0
    skipped = 0
    while count < len(records):
        if start + _SMALLEST > end:
            return count, start, MORE, skipped
        kind = word32(buffer, start, big)
        if kind == SECTION:  # its length may be in another byte order
            return count, start, STRUCTURE, skipped
        total = word32(buffer, start + 4, big)
        if total < _SMALLEST or total % 4 != 0:
            return count, start, BLOCK_LENGTH, skipped
        if kind == INTERFACE_DESCRIPTION:
            return count, start, STRUCTURE, skipped
        simple = kind == SIMPLE_PACKET
        packet = simple or kind in (ENHANCED_PACKET, OBSOLETE_PACKET)
        smallest = _SMALLEST_SIMPLE if simple else _SMALLEST_PACKET
        if packet and (total < smallest or total > MAX_BLOCK):
            return count, start, BLOCK_LENGTH, skipped
        if start + total > end:
            return count, start, MORE if packet else SKIP, skipped
        if word32(buffer, start + total - 4, big) != total:
            return count, start, TRAILER, skipped
        if not packet:
            skipped += 1
            start += total
            continue

        if simple:
            interface = np.int64(0)
        elif kind == ENHANCED_PACKET:
            interface = word32(buffer, start + 8, big)
        else:
            interface = word16(buffer, start + 8, big)
        if interface >= described:
            return count, start, INTERFACE, skipped
        if simple:
            header = _SIMPLE_HEADER
            length = word32(buffer, start + 8, big)
            captured = length
            snaplen = np.int64(interfaces[0].snaplen)
            if snaplen > 0:
                captured = min(captured, snaplen)
        else:
            header = _PACKET_HEADER
            captured = word32(buffer, start + 20, big)
            length = word32(buffer, start + 24, big)
        if captured > MAX_CAPTURED:
            return count, start, CAPTURED, skipped
        if header + captured > total - 4:
            return count, start, OVERFULL, skipped
        if not simple:
            high = np.uint64(word32(buffer, start + 12, big))
            low = np.uint64(word32(buffer, start + 16, big))
            clock = to_nanoseconds((high << np.uint64(32)) | low, interfaces, interface)
        record = records[count]
        record.ts_ns = clock
        record.offset = start + header
        record.number = number + count + 1
        record.captured = captured
        record.length = length
        record.source = source
        record.link = interfaces[interface].link
        record.interface = interface
        count += 1
        start += total
    return count, start, FULL, skipped


class _Section:
    """What the blocks of a section so far said about the packets to come."""

    def __init__(self) -> None:
        self.big = False
        self.described = 0
        self.interfaces = np.zeros(16, INTERFACE_DTYPE)

    def begin(self, block: bytes, big: bool, report: FileReport) -> int:
        """Take in a section header block; return FULL or a fault."""
        self.big = big
        self.described = 0
        order = ">" if big else "<"
        (major,) = struct.unpack_from(order + "H", block, 12)
        if major != 1:
            return VERSION
        found = options(block[24:-4], order)
        if found is None:
            return OPTION
        for code, value in found:
            if code == OPTION_COMMENT and len(report.comments) < MAX_COMMENTS:
                text = value.decode(errors="replace")[:MAX_COMMENT_CHARS]
                # No terminal is to obey what a capture says.
                report.comments.append("".join(c if c.isprintable() else " " for c in text))
        return FULL

    def describe(self, block: bytes, report: FileReport) -> int:
        """Take in an interface description block; return FULL or a fault."""
        if self.described == MAX_INTERFACES:
            return INTERFACES
        order = ">" if self.big else "<"
        link, snaplen = struct.unpack_from(order + "H2xI", block, 8)
        found = options(block[16:-4], order)
        if found is None:
            return OPTION
        resolution, offset = DEFAULT_RESOLUTION, 0
        for code, value in found:
            if code == OPTION_RESOLUTION:
                if len(value) != 1:
                    return OPTION
                resolution = value[0]
            elif code == OPTION_OFFSET:
                if len(value) != 8:
                    return OPTION
                (offset,) = struct.unpack(order + "q", value)
        if self.described == len(self.interfaces):
            self.interfaces = np.concatenate([self.interfaces, np.zeros_like(self.interfaces)])
        row = self.interfaces[self.described]
        row["link"], row["snaplen"] = link, snaplen
        set_resolution(row, resolution, offset)
        self.described += 1
        if len(report.interfaces) < MAX_INTERFACES:
            report.interfaces.append(int(link))
        return FULL


def options(data: bytes, order: str) -> list[tuple[int, bytes]] | None:
    """Return code and value of each option in `data`, None if one reaches beyond it."""
    found = []
    at = 0
    while at + 4 <= len(data):
        code, length = struct.unpack_from(order + "HH", data, at)
        if code == OPTION_END:
            break
        if at + 4 + length > len(data):
            return None
        found.append((code, data[at + 4 : at + 4 + length]))
        at += 4 + (length + 3) // 4 * 4
    return found


def _structure(window: Window, section: _Section, report: FileReport) -> int:
    """Take in the section header or interface description at hand; return FULL or a fault."""
    head = window.peek(_SMALLEST)
    begins = int.from_bytes(head[:4]) == SECTION
    big = section.big
    if begins:
        big = int.from_bytes(head[8:12]) == BYTE_ORDER_MAGIC
        if not big and int.from_bytes(head[8:12], "little") != BYTE_ORDER_MAGIC:
            return BYTE_ORDER
    total = int.from_bytes(head[4:8], "big" if big else "little")
    smallest = _SMALLEST_SECTION if begins else _SMALLEST_DESCRIPTION
    if total < smallest or total % 4 or total > MAX_BLOCK:
        return BLOCK_LENGTH
    if not window.ensure(total):
        return CUT
    block = window.peek(total)
    if int.from_bytes(block[-4:], "big" if big else "little") != total:
        return TRAILER
    status = section.begin(block, big, report) if begins else section.describe(block, report)
    if status == FULL:
        window.start += total
    return status


def _pass_over(window: Window, section: _Section, report: FileReport) -> int:
    """Pass over a block that reaches beyond the window; return FULL or a fault."""
    order: Literal["big", "little"] = "big" if section.big else "little"
    total = int.from_bytes(window.peek(8)[4:], order)
    if not window.discard(total - 4) or not window.ensure(4):
        return CUT
    if int.from_bytes(window.peek(4), order) != total:
        return TRAILER
    window.start += 4
    report.skipped_blocks += 1
    return FULL


def read_pcapng(
    window: Window, report: FileReport, source: int
) -> Generator[RawBlock, None, Fault | None]:
    """Yield the blocks of a pcapng file whose magic was recognised; return why it ended early."""
    section = _Section()
    records = np.empty(BLOCK_RECORDS, RECORD_DTYPE)
    clock = MIN_TIME_NS
    while True:
        count, window.start, status, skipped = walk_pcapng(
            window.buffer,
            window.start,
            window.end,
            records,
            section.interfaces,
            section.described,
            section.big,
            source,
            report.packets,
            clock,
        )
        report.skipped_blocks += skipped
        report.bytes = at = window.offset
        if count:
            clock = int(records["ts_ns"][count - 1])
            account(report, records[:count])
            yield RawBlock(window.buffer, records[:count])
        if status == STRUCTURE:
            status = _structure(window, section, report)
        elif status == SKIP:
            status = _pass_over(window, section, report)
        elif status == MORE:
            if window.more():
                status = FULL
            elif len(window) == 0:
                return None
            else:
                status = CUT
        if status != FULL:
            return Fault(status, at, report.packets)
