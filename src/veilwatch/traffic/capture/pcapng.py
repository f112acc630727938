"""The pcapng format (draft-ietf-opsawg-pcapng)."""

from __future__ import annotations

import struct
from collections.abc import Generator
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from veilwatch.jit import inline_kernel, kernel
from veilwatch.schema.captures import MAX_COMMENT_CHARS, MAX_COMMENTS, FileReport
from veilwatch.schema.packets import BLOCK_RECORDS, MAX_CAPTURED, RECORD_DTYPE, RawBlock
from veilwatch.schema.text import one_line
from veilwatch.traffic.capture.account import Account
from veilwatch.traffic.capture.clock import (
    DEFAULT_RESOLUTION,
    INTERFACE_DTYPE,
    MIN_TIME_NS,
    set_resolution,
    to_nanoseconds,
)
from veilwatch.traffic.capture.fault import (
    BLOCK_LENGTH,
    BYTE_ORDER,
    CUT,
    FULL,
    INTERFACES,
    MORE,
    ODD_CAPTURED,
    ODD_INTERFACE,
    ODD_LENGTH,
    ODD_LONG,
    ODD_OPTION,
    ODD_ORDER,
    ODD_OVERFULL,
    ODD_SHORT,
    ODD_TRAILER,
    ODD_VALUE,
    ODD_ZEROS,
    ODDITIES,
    SKIP,
    STRUCTURE,
    TRAILER,
    VERSION,
    WHAT_IS_ODD,
    Fault,
)
from veilwatch.traffic.capture.part import WHOLE, Part
from veilwatch.traffic.capture.window import Window
from veilwatch.traffic.capture.words import word16, word32

SECTION: Final = 0x0A0D0D0A
INTERFACE_DESCRIPTION: Final = 1
OBSOLETE_PACKET: Final = 2
SIMPLE_PACKET: Final = 3
ENHANCED_PACKET: Final = 6

BYTE_ORDER_MAGIC: Final = 0x1A2B3C4D

MAX_BLOCK: Final = 1 << 20
"""Longest block that has to lie in memory at once: the largest packet and a generous lot of
options. Longer ones are passed over as they stream by."""

MAX_PLAUSIBLE: Final = 16 << 20
"""Longest block by which the end of an odd one is recognised: what Wireshark takes at most."""

MAX_INTERFACES: Final = 0xFFFF
"""Most interfaces of one section: RECORD_DTYPE numbers them in 16 bits."""

OPTION_END: Final = 0
OPTION_COMMENT: Final = 1
OPTION_RESOLUTION: Final = 9
OPTION_OFFSET: Final = 14

_LAST_KNOWN: Final = 0x0D  # of the blocks that the draft numbers from 1 on
_CUSTOM: Final = 0x0BAD
_CUSTOM_NOT_COPIED: Final = 0x40000BAD

_SMALLEST: Final = 12
_OFFSET_BYTES: Final = 8
_SECTION_BYTES: Final = b"\n\r\r\n"
_SMALLEST_SECTION: Final = 28
_SMALLEST_DESCRIPTION: Final = 20
_SMALLEST_SIMPLE: Final = 16
_SMALLEST_PACKET: Final = 32
_PACKET_HEADER: Final = 28
_SIMPLE_HEADER: Final = 12


@kernel
def is_boundary(buffer: Any, at: Any, end: Any, big: Any, last: Any) -> Any:
    """Whether a block may begin at `at`, or the file end there (`last`: no more bytes follow)."""
    if at + _SMALLEST > end:
        return last and at == end
    kind = word32(buffer, at, big)
    if kind == SECTION:
        return True
    total = word32(buffer, at + 4, big)
    known = (kind > 0 and kind <= _LAST_KNOWN) or kind in (_CUSTOM, _CUSTOM_NOT_COPIED)
    return known and total >= _SMALLEST and total <= MAX_PLAUSIBLE


@inline_kernel
def block_end(buffer: Any, start: Any, end: Any, total: Any, big: Any, last: Any, odd: Any) -> Any:
    """Return where the block at `start` ends, 0 where the bytes at hand do not tell, -1 nowhere.

    Where its two lengths differ the first one is believed if a block follows; one that is no
    multiple of 4 counts the padding or not, whichever fits.
    """
    padded = start + (total + 3) // 4 * 4
    if padded > end and not (last and start + total <= end):
        return 0
    if total % 4 == 0:
        if word32(buffer, padded - 4, big) == total:
            return padded
        if padded + _SMALLEST > end and not last:
            return 0
        if is_boundary(buffer, padded, end, big, last):
            odd[ODD_TRAILER] += 1
            return padded
        return -1
    if padded <= end and word32(buffer, padded - 4, big) == total:
        odd[ODD_LENGTH] += 1
        return padded
    if word32(buffer, start + total - 4, big) == total:
        odd[ODD_LENGTH] += 1
        return start + total
    return -1


@kernel
def walk_pcapng(
    buffer: Any,
    start: Any,
    end: Any,
    records: Any,
    interfaces: Any,
    described: Any,
    big: Any,
    last: Any,
    source: Any,
    number: Any,
    clock: Any,
    odd: Any,
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
    last
        Whether no bytes follow those at hand.
    source
        Value for the records.
    number
        Packets of this file before these.
    clock
        Time of the packet before these, ns: a Simple Packet Block carries none of its own.
    odd
        int64 array of ODDITIES, added to.

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
        if total < _SMALLEST:
            return count, start, BLOCK_LENGTH, skipped
        if kind == INTERFACE_DESCRIPTION:
            return count, start, STRUCTURE, skipped
        simple = kind == SIMPLE_PACKET
        packet = simple or kind in (ENHANCED_PACKET, OBSOLETE_PACKET)
        long = packet and total > MAX_BLOCK
        if long:
            if total > MAX_PLAUSIBLE:
                return count, start, BLOCK_LENGTH, skipped
            packet = False
        after = block_end(buffer, start, end, total, big, last, odd)
        if after == 0:
            if packet or start + total <= end:
                return count, start, MORE, skipped
            return count, start, SKIP, skipped
        if after < 0:
            status = TRAILER if total % 4 == 0 else BLOCK_LENGTH
            return count, start, status, skipped
        odd[ODD_LONG] += long
        if packet and total < (_SMALLEST_SIMPLE if simple else _SMALLEST_PACKET):
            odd[ODD_SHORT] += 1
            packet = False
        if not packet:
            skipped += 1
            start = after
            continue

        if simple:
            interface = np.int64(0)
        elif kind == ENHANCED_PACKET:
            interface = word32(buffer, start + 8, big)
        else:
            interface = word16(buffer, start + 8, big)
        if interface >= described:
            odd[ODD_INTERFACE] += 1
            skipped += 1
            start = after
            continue
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
        room = total - 4 - header
        if captured > MAX_CAPTURED and captured <= room:
            odd[ODD_CAPTURED] += 1
            skipped += 1
            start = after
            continue
        if captured > room:
            odd[ODD_OVERFULL] += 1
            captured = min(room, np.int64(MAX_CAPTURED))
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
        start = after
    return count, start, FULL, skipped


class _Section:
    """What the blocks of a section so far said about the packets to come."""

    def __init__(self, odd: npt.NDArray[np.int64]) -> None:
        self.big = False
        self.described = 0
        self.interfaces = np.zeros(16, INTERFACE_DTYPE)
        self._odd = odd

    def begin(self, block: bytes, big: bool, report: FileReport) -> int:
        """Take in a section header block; return FULL or a fault."""
        self.big = big
        self.described = 0
        order = ">" if big else "<"
        (major,) = struct.unpack_from(order + "H", block, 12)
        if major != 1:
            return VERSION
        for code, value in self._options(block[24:], order):
            if code == OPTION_COMMENT and len(report.comments) < MAX_COMMENTS:
                text = value.decode(errors="replace")[:MAX_COMMENT_CHARS]
                # No terminal is to obey what a capture says.
                report.comments.append(one_line(text))
        return FULL

    def describe(self, block: bytes, report: FileReport) -> int:
        """Take in an interface description block; return FULL or a fault."""
        if self.described == MAX_INTERFACES:
            return INTERFACES
        order = ">" if self.big else "<"
        link, snaplen = struct.unpack_from(order + "H2xI", block, 8)
        resolution, offset = DEFAULT_RESOLUTION, 0
        for code, value in self._options(block[16:], order):
            if code == OPTION_RESOLUTION:
                resolution = self._resolution(value, order, resolution)
            elif code == OPTION_OFFSET:
                if len(value) == _OFFSET_BYTES:
                    (offset,) = struct.unpack(order + "q", value)
                else:
                    self._odd[ODD_VALUE] += 1
        if self.described == len(self.interfaces):
            self.interfaces = np.concatenate([self.interfaces, np.zeros_like(self.interfaces)])
        row = self.interfaces[self.described]
        row["link"], row["snaplen"] = link, snaplen
        set_resolution(row, resolution, offset)
        self.described += 1
        if len(report.interfaces) < MAX_INTERFACES:
            report.interfaces.append(int(link))
        return FULL

    def _resolution(self, value: bytes, order: str, usual: int) -> int:
        """Return if_tsresol, which is one byte.

        Of a longer number its value, where one byte holds it.
        """
        if len(value) == 1:
            return value[0]
        self._odd[ODD_VALUE] += 1
        number = int.from_bytes(value, "big" if order == ">" else "little")
        return number if value and number <= 0xFF else usual

    def _options(self, data: bytes, order: str) -> list[tuple[int, bytes]]:
        """Return code and value of each option up to one that reaches beyond `data`."""
        found = []
        at = 0
        while at + 4 <= len(data):
            code, length = struct.unpack_from(order + "HH", data, at)
            if code == OPTION_END:
                break
            if at + 4 + length > len(data):
                self._odd[ODD_OPTION] += 1
                break
            found.append((code, data[at + 4 : at + 4 + length]))
            at += 4 + (length + 3) // 4 * 4
        return found


def _structure(
    window: Window, section: _Section, report: FileReport, odd: npt.NDArray[np.int64]
) -> int:
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
    if begins and total == 0 and window.ensure(smallest) and not any(window.peek(smallest)[24:]):
        odd[ODD_SHORT] += 1  # a writer that never came back to fill in the lengths
        status = section.begin(window.peek(24), big, report)
        if status == FULL:
            window.start += smallest
        return status
    if total < smallest or total > MAX_BLOCK:
        return BLOCK_LENGTH
    # Bytes of the next block tell where this one ends, if its own do not.
    window.ensure(total + 3 + _SMALLEST)
    after = int(
        block_end(
            *(window.buffer, window.start, window.end, total, big, len(window) < total + 15, odd)
        )
    )
    if after == 0:
        return CUT
    if after < 0:
        return TRAILER if total % 4 == 0 else BLOCK_LENGTH
    block = window.peek(total - 4)
    status = section.begin(block, big, report) if begins else section.describe(block, report)
    if status == FULL:
        window.start = after
    return status


def _pass_over(
    window: Window, section: _Section, report: FileReport, odd: npt.NDArray[np.int64]
) -> int:
    """Pass over a block that reaches beyond the window; return FULL or a fault."""
    order: Literal["big", "little"] = "big" if section.big else "little"
    kind = int.from_bytes(window.peek(4), order)
    total = int.from_bytes(window.peek(8)[4:], order)
    padding = -total % 4
    if not window.discard(total - 4) or not window.ensure(4):
        return CUT
    # Bytes of the next block tell where this one ends, if its own do not.
    last = not window.ensure(4 + padding + _SMALLEST)
    behind = window.peek(padding + 4)
    if len(behind) == padding + 4 and int.from_bytes(behind[padding:], order) == total:
        odd[ODD_LENGTH] += padding > 0
    elif not padding:
        if not is_boundary(window.buffer, window.start + 4, window.end, section.big, last):
            return TRAILER
        odd[ODD_TRAILER] += 1
    elif int.from_bytes(behind[:4], order) == total:
        odd[ODD_LENGTH] += 1
        padding = 0
    else:
        return BLOCK_LENGTH
    window.start += padding + 4
    odd[ODD_LONG] += kind in (ENHANCED_PACKET, SIMPLE_PACKET, OBSOLETE_PACKET)
    report.skipped_blocks += 1
    return FULL


def _only_zeros(window: Window) -> bool:
    """Whether nothing but zeros follows, as where a disk was given out ahead of the writer.

    Reads on through them.
    """
    while True:
        if window.buffer[window.start : window.end].any():
            return False
        window.start = window.end
        if not window.more():
            return True


def read_pcapng(
    window: Window, report: FileReport, source: int, part: Part = WHOLE
) -> Generator[RawBlock, None, Fault | None]:
    """Yield the blocks of a pcapng file whose magic was recognised; return why it ended early.

    Parameters
    ----------
    part
        Which part of the file to read; `window` stands at its beginning.
    """
    odd = np.zeros(ODDITIES, np.int64)
    books = Account(report)
    blocks = _read_part(window, report, source, part, odd, books)
    fault = yield from blocks
    books.close()
    for code, count in enumerate(odd.tolist()):
        report.add_odd(WHAT_IS_ODD[code], count)
    return fault


def _read_part(
    window: Window,
    report: FileReport,
    source: int,
    part: Part,
    odd: npt.NDArray[np.int64],
    books: Account,
) -> Generator[RawBlock, None, Fault | None]:
    section = _Section(odd)
    records = np.empty(BLOCK_RECORDS, RECORD_DTYPE)
    clock = latest = MIN_TIME_NS
    number = part.number
    last = fresh = False
    while True:
        count, window.start, status, skipped = walk_pcapng(
            window.buffer,
            window.start,
            window.end,
            records,
            section.interfaces,
            section.described,
            section.big,
            last,
            source,
            number,
            clock,
            odd,
        )
        report.skipped_blocks += skipped
        at = window.offset
        report.bytes = max(report.bytes, at)
        if count:
            clock = int(records["ts_ns"][count - 1])
            number += count
            if part.lane:
                records["interface"][:count] += np.uint16(part.lane << 8)
            clocks = books.add(records[:count])
            odd[ODD_ORDER] += fresh and clocks[0] < latest
            fresh, latest = False, max(latest, int(clocks[-1]))
            yield RawBlock(window.buffer, records[:count])
        if status == STRUCTURE:
            if window.peek(4) == _SECTION_BYTES:
                if part.end is not None and at >= part.end:
                    return None
                part.note(at, number)
                fresh = True
            status = _structure(window, section, report, odd)
        elif status == SKIP:
            status = _pass_over(window, section, report, odd)
            if status != FULL:
                return Fault(status, at, number)
        elif status == MORE:
            if window.more():
                status = FULL
            elif len(window) == 0:
                return None
            elif not last:
                last, status = True, FULL
            else:
                status = CUT
        if status in (BLOCK_LENGTH, CUT) and _only_zeros(window):
            odd[ODD_ZEROS] += 1
            return None
        if status != FULL:
            return Fault(status, at, number)
