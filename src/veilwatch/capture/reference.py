"""The oracle of the capture kernels: the formats once more, in plain Python on whole files.

Slow and simple on purpose, with exact integers and without the code that it checks. Tests
compare records and faults.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from fractions import Fraction
from math import floor

from veilwatch.capture.clock import MAX_TIME_NS, MIN_TIME_NS
from veilwatch.capture.fault import (
    BLOCK_LENGTH,
    BYTE_ORDER,
    CAPTURED,
    CUT,
    INTERFACE,
    INTERFACES,
    OPTION,
    OVERFULL,
    TRAILER,
    VERSION,
    Fault,
)
from veilwatch.capture.pcapng import MAX_BLOCK, MAX_INTERFACES
from veilwatch.schema.packets import MAX_CAPTURED


@dataclass(frozen=True, slots=True)
class Record:
    """One packet; the fields are those of `RECORD_DTYPE`, with the bytes themselves."""

    number: int
    ts_ns: int
    length: int
    link: int
    interface: int
    frame: bytes


@dataclass(slots=True)
class Reading:
    """What a capture holds and why that is not all."""

    records: list[Record] = field(default_factory=list)
    interfaces: list[int] = field(default_factory=list)
    skipped_blocks: int = 0
    fault: Fault | None = None


@dataclass(frozen=True, slots=True)
class _Interface:
    link: int
    snaplen: int
    tick: Fraction
    offset: int


class _Broken(Exception):
    """Ends the reading of a block with a fault code."""


def read_reference(data: bytes) -> Reading:
    """Read a whole, uncompressed pcap or pcapng whose magic is known to be right."""
    if data[:4] == bytes.fromhex("0a0d0d0a"):
        return _read_pcapng(data)
    return _read_pcap(data)


def _time(seconds: Fraction | int) -> int:
    return min(max(floor(seconds * 10**9), MIN_TIME_NS), MAX_TIME_NS)


def _read_pcap(data: bytes) -> Reading:
    reading = Reading()
    dialects = {
        "a1b2c3d4": (">", 6, 0),
        "d4c3b2a1": ("<", 6, 0),
        "a1b23c4d": (">", 9, 0),
        "4d3cb2a1": ("<", 9, 0),
        "a1b2cd34": (">", 6, 8),
        "34cdb2a1": ("<", 6, 8),
    }
    order, digits, extra = dialects[data[:4].hex()]
    if len(data) < 24:
        reading.fault = Fault(CUT, 0, 0)
        return reading
    major, minor, network = struct.unpack(order + "HH12xI", data[4:24])
    if major != 2:
        reading.fault = Fault(VERSION, 0, 0)
        return reading
    link = network % 2**26
    link = link if link < 2**16 else 2**16 - 1
    reading.interfaces.append(link)
    at = 24
    while at < len(data):
        head = data[at : at + 16 + extra]
        code = CUT
        if len(head) == 16 + extra:
            seconds, part, captured, length = struct.unpack(order + "IIII", head[:16])
            if minor < 3:
                captured, length = length, captured
            frame = data[at + len(head) : at + len(head) + captured]
            if captured > MAX_CAPTURED:
                code = CAPTURED
            elif len(frame) == captured:
                time = _time(seconds + Fraction(part, 10**digits))
                number = len(reading.records) + 1
                reading.records.append(Record(number, time, length, link, 0, frame))
                at += len(head) + captured
                continue
        reading.fault = Fault(code, at, len(reading.records))
        break
    return reading


def _read_pcapng(data: bytes) -> Reading:
    reading = Reading()
    order = "<"
    interfaces: list[_Interface] = []
    at = 0
    while at < len(data):
        try:
            if data[at : at + 4] == b"\n\r\r\n":
                order = _byte_order(data[at:])
                interfaces = []
            block = _whole_block(data, at, order)
            (kind,) = struct.unpack(order + "I", block[:4])
            body = block[8:-4]
            if kind == 0x0A0D0D0A:
                _open_section(body, order)
            elif kind == 1:
                if len(interfaces) == MAX_INTERFACES:
                    raise _Broken(INTERFACES)
                interfaces.append(_describe(body, order))
                reading.interfaces.append(interfaces[-1].link)
            elif kind in (2, 3, 6):
                reading.records.append(_packet(kind, body, order, interfaces, reading.records))
            else:
                reading.skipped_blocks += 1
            at += len(block)
        except _Broken as fault:
            reading.fault = Fault(fault.args[0], at, len(reading.records))
            break
    return reading


def _byte_order(rest: bytes) -> str:
    if len(rest) < 12:
        raise _Broken(CUT)
    orders = {"1a2b3c4d": ">", "4d3c2b1a": "<"}
    if rest[8:12].hex() not in orders:
        raise _Broken(BYTE_ORDER)
    return orders[rest[8:12].hex()]


def _whole_block(data: bytes, at: int, order: str) -> bytes:
    if len(data) - at < 12:
        raise _Broken(CUT)
    kind, total = struct.unpack(order + "II", data[at : at + 8])
    least = {0x0A0D0D0A: 28, 1: 20, 2: 32, 3: 16, 6: 32}
    if total % 4 or total < least.get(kind, 12) or (kind in least and total > MAX_BLOCK):
        raise _Broken(BLOCK_LENGTH)
    block = data[at : at + total]
    if len(block) < total:
        raise _Broken(CUT)
    if block[-4:] != block[4:8]:
        raise _Broken(TRAILER)
    return block


def _options(data: bytes, order: str) -> list[tuple[int, bytes]]:
    found = []
    while len(data) >= 4:
        code, length = struct.unpack(order + "HH", data[:4])
        if code == 0:
            break
        value = data[4 : 4 + length]
        if len(value) < length:
            raise _Broken(OPTION)
        found.append((code, value))
        data = data[4 + length + -length % 4 :]
    return found


def _open_section(body: bytes, order: str) -> None:
    if struct.unpack(order + "H", body[4:6]) != (1,):
        raise _Broken(VERSION)
    _options(body[16:], order)


def _describe(body: bytes, order: str) -> _Interface:
    link, snaplen = struct.unpack(order + "H2xI", body[:8])
    tick, offset = Fraction(1, 10**6), 0
    for code, value in _options(body[8:], order):
        if code == 9:
            if len(value) != 1:
                raise _Broken(OPTION)
            power = value[0] % 128
            tick = Fraction(1, (2 if value[0] >= 128 else 10) ** power)
        if code == 14:
            if len(value) != 8:
                raise _Broken(OPTION)
            (offset,) = struct.unpack(order + "q", value)
    return _Interface(link, snaplen, tick, offset)


def _packet(
    kind: int, body: bytes, order: str, interfaces: list[_Interface], before: list[Record]
) -> Record:
    if kind == 3:
        index, payload = 0, body[4:]
        (length,) = struct.unpack(order + "I", body[:4])
    else:
        index, high, low, captured, length = struct.unpack(
            order + ("IIIII" if kind == 6 else "H2xIIII"), body[:20]
        )
        payload = body[20:]
    if index >= len(interfaces):
        raise _Broken(INTERFACE)
    interface = interfaces[index]
    if kind == 3:
        captured = min(length, interface.snaplen) if interface.snaplen else length
        time = before[-1].ts_ns if before else MIN_TIME_NS
    else:
        time = _time((high * 2**32 + low) * interface.tick + interface.offset)
    if captured > MAX_CAPTURED:
        raise _Broken(CAPTURED)
    if captured > len(payload):
        raise _Broken(OVERFULL)
    return Record(len(before) + 1, time, length, interface.link, index, payload[:captured])
