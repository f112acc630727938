"""Captures made by hand, byte by byte, for tests: independent of the writers under test."""

from __future__ import annotations

import io
import struct
from unittest.mock import patch

from tests.traffic.capture.reference import Reading, Record
from veilwatch.schema.captures import FileReport
from veilwatch.schema.packets import BLOCK_RECORDS, RawBlock
from veilwatch.traffic.capture import window as window_module
from veilwatch.traffic.capture.fault import ODD_ORDER, WHAT_IS_ODD
from veilwatch.traffic.capture.pcap import read_pcap
from veilwatch.traffic.capture.pcapng import read_pcapng
from veilwatch.traffic.capture.source import PlainSource
from veilwatch.traffic.capture.stream import CaptureStream
from veilwatch.traffic.capture.window import Window

T0 = 1_700_000_000


def pcap(
    packets: list[tuple[int, int, bytes]],
    *,
    order: str = "<",
    magic: int = 0xA1B2C3D4,
    network: int = 1,
    version: tuple[int, int] = (2, 4),
) -> bytes:
    """A pcap of (seconds, fraction, frame); lengths on the wire are 7 more than captured."""
    out = bytearray(struct.pack(order + "IHHiIII", magic, *version, 0, 0, 65535, network))
    extra = struct.pack(order + "IHBx", 3, 0x800, 4) if magic == 0xA1B2CD34 else b""
    for seconds, fraction, frame in packets:
        out += struct.pack(order + "IIII", seconds, fraction, len(frame), len(frame) + 7)
        out += extra + frame
    return bytes(out)


def option(order: str, code: int, value: bytes) -> bytes:
    return struct.pack(order + "HH", code, len(value)) + value + b"\0" * (-len(value) % 4)


def block(order: str, kind: int, body: bytes) -> bytes:
    body += b"\0" * (-len(body) % 4)
    total = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + total + body + total


def section(order: str = "<", options: bytes = b"", major: int = 1) -> bytes:
    return block(order, 0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, major, 0, -1) + options)


def interface(
    order: str = "<",
    link: int = 1,
    snaplen: int = 0,
    resolution: int | None = None,
    offset: int | None = None,
) -> bytes:
    options = b""
    if resolution is not None:
        options += option(order, 9, bytes([resolution]))
    if offset is not None:
        options += option(order, 14, struct.pack(order + "q", offset))
    if options:
        options += option(order, 0, b"")
    return block(order, 1, struct.pack(order + "HHI", link, 0, snaplen) + options)


def enhanced(
    ticks: int, frame: bytes, order: str = "<", index: int = 0, options: bytes = b""
) -> bytes:
    head = struct.pack(
        order + "IIIII", index, ticks >> 32, ticks & 0xFFFFFFFF, len(frame), len(frame) + 7
    )
    return block(order, 6, head + frame + b"\0" * (-len(frame) % 4) + options)


def obsolete(ticks: int, frame: bytes, order: str = "<", index: int = 0) -> bytes:
    head = struct.pack(
        order + "HHIIII", index, 9, ticks >> 32, ticks & 0xFFFFFFFF, len(frame), len(frame) + 7
    )
    return block(order, 2, head + frame)


def simple(length: int, frame: bytes, order: str = "<") -> bytes:
    return block(order, 3, struct.pack(order + "I", length) + frame)


def rows(block: RawBlock) -> list[Record]:
    """The records of a block with their bytes."""
    assert 0 < len(block) <= BLOCK_RECORDS
    found = []
    for record in block.records:
        start, captured = int(record["offset"]), int(record["captured"])
        frame = block.buffer[start : start + captured].tobytes()
        assert len(frame) == captured
        found.append(
            Record(
                int(record["number"]),
                int(record["ts_ns"]),
                int(record["length"]),
                int(record["link"]),
                int(record["interface"]),
                frame,
            )
        )
    return found


def read_all(stream: CaptureStream) -> list[Record]:
    """Every record of a stream, which is closed at the end."""
    with stream:
        return [record for block in stream for record in rows(block)]


def read_bytes(data: bytes, window_bytes: int) -> tuple[Reading, FileReport]:
    """What the kernels make of `data` with a window that begins at `window_bytes`."""
    with patch.object(window_module, "WINDOW_BYTES", window_bytes):
        window = Window(PlainSource(io.BytesIO(data)))
    report = FileReport("test")
    reader = read_pcapng if data[:4] == b"\n\r\r\n" else read_pcap
    blocks = reader(window, report, 0)
    records: list[Record] = []
    while True:
        try:
            records += rows(next(blocks))
        except StopIteration as end:
            fault = end.value
            break
    assert report.packets == len(records)
    odd = {what: count for what, count in report.odd.items() if what != WHAT_IS_ODD[ODD_ORDER]}
    return Reading(records, report.interfaces, report.skipped_blocks, odd, fault), report
