"""The pcap format (draft-ietf-opsawg-pcap), in both byte orders and its dialects."""

from __future__ import annotations

import struct
from collections.abc import Generator
from typing import Any, Final

import numpy as np

from veilwatch.jit import kernel
from veilwatch.schema.captures import FileReport
from veilwatch.schema.packets import BLOCK_RECORDS, MAX_CAPTURED, RECORD_DTYPE, RawBlock
from veilwatch.traffic.capture.account import Account
from veilwatch.traffic.capture.clock import NS
from veilwatch.traffic.capture.fault import CAPTURED, CUT, FULL, MORE, VERSION, Fault
from veilwatch.traffic.capture.part import WHOLE, Part
from veilwatch.traffic.capture.window import Window
from veilwatch.traffic.capture.words import word32

MICRO_MAGIC: Final = 0xA1B2C3D4
NANO_MAGIC: Final = 0xA1B23C4D
MODIFIED_MAGIC: Final = 0xA1B2CD34
"""A. Kuznetzov's dialect of old Linux tcpdump: eight more bytes in each record header."""

LCAP_MAGICS: Final = (0x1C0001AC, 0x1C0001AB)
"""IXIA's dialects, of hardware and of software: the size of all records follows the header."""

MAGICS: Final = (MICRO_MAGIC, NANO_MAGIC, MODIFIED_MAGIC, *LCAP_MAGICS)

HEADER_BYTES: Final = 24
RECORD_BYTES: Final = 16
MODIFIED_RECORD_BYTES: Final = 24

FIRST_MINOR_IN_ORDER: Final = 3
"""Versions before 2.3 wrote the length on the wire before the captured length."""

LINK_BITS: Final = 0x03FF_FFFF
"""The link type without the length of the frame check sequence in the bits above."""

NO_LINK: Final = 0xFFFF
"""Stands for a link type that does not fit into 16 bits: none such is assigned."""


@kernel
def walk_pcap(
    buffer: Any,
    start: Any,
    end: Any,
    records: Any,
    big: Any,
    subsecond: Any,
    header: Any,
    captured_at: Any,
    link: Any,
    source: Any,
    number: Any,
) -> Any:
    """Note the records of `buffer[start:end]` in `records` until one of them runs out.

    Parameters
    ----------
    buffer
        uint8 array.
    start, end
        int64 bounds of the bytes at hand.
    records
        Array of `RECORD_DTYPE` to fill.
    big
        Whether the file is big-endian.
    subsecond
        ns in one unit of the second time field: 1000 or 1.
    header
        Bytes of a record header.
    captured_at
        Where in it the captured length lies, 8 or 12; the length on the wire is at the other.
    link, source
        Values for the records.
    number
        Records of this file before these.

    Returns
    -------
    count, start, status
        Records noted, where the next one begins, and FULL, MORE or CAPTURED.
    """
    count = 0
    while count < len(records):
        if start + header > end:
            return count, start, MORE
        captured = word32(buffer, start + captured_at, big)
        if captured > MAX_CAPTURED:
            return count, start, CAPTURED
        if start + header + captured > end:
            return count, start, MORE
        record = records[count]
        # At most (2^32 - 1) s and as many µs: below MAX_TIME_NS.
        record.ts_ns = word32(buffer, start, big) * NS + word32(buffer, start + 4, big) * subsecond
        record.offset = start + header
        record.number = number + count + 1
        record.captured = captured
        record.length = word32(buffer, start + 20 - captured_at, big)
        record.source = source
        record.link = link
        record.interface = 0
        count += 1
        start += header + captured
    return count, start, FULL


def read_pcap(
    window: Window, report: FileReport, source: int, _part: Part = WHOLE
) -> Generator[RawBlock, None, Fault | None]:
    """Yield the blocks of a pcap file whose magic was recognised; return why it ended early."""
    books = Account(report)
    fault = yield from _read(window, report, source, books)
    books.close()
    return fault


def _read(
    window: Window, report: FileReport, source: int, books: Account
) -> Generator[RawBlock, None, Fault | None]:
    if not window.ensure(HEADER_BYTES):
        return Fault(CUT, 0, 0)
    head = window.peek(HEADER_BYTES)
    big = struct.unpack(">I", head[:4])[0] in MAGICS
    order = ">" if big else "<"
    magic, major, minor, _, _, _, network = struct.unpack(order + "IHHiIII", head)
    if major != 2:
        return Fault(VERSION, 0, 0)
    link = min(network & LINK_BITS, NO_LINK)
    report.interfaces.append(link)
    subsecond = 1 if magic == NANO_MAGIC else 1000
    header = MODIFIED_RECORD_BYTES if magic == MODIFIED_MAGIC else RECORD_BYTES
    captured_at = 12 if minor < FIRST_MINOR_IN_ORDER else 8
    records = np.empty(BLOCK_RECORDS, RECORD_DTYPE)
    window.start += HEADER_BYTES
    if magic in LCAP_MAGICS:
        if not window.ensure(4):
            return Fault(CUT, HEADER_BYTES, 0)
        window.start += 4
    while True:
        count, window.start, status = walk_pcap(
            window.buffer,
            window.start,
            window.end,
            records,
            big,
            subsecond,
            header,
            captured_at,
            link,
            source,
            report.packets,
        )
        report.bytes = window.offset
        if count:
            books.add(records[:count])
            yield RawBlock(window.buffer, records[:count])
        if status == CAPTURED:
            return Fault(CAPTURED, window.offset, report.packets)
        if status == MORE and not window.more():
            return Fault(CUT, window.offset, report.packets) if len(window) else None
