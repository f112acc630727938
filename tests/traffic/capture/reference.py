"""The oracle of the capture kernels: the formats once more, in plain Python on whole files.

Slow and simple on purpose, with exact integers and without the code that it checks. Tests
compare records and faults.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from fractions import Fraction
from math import floor

from veilwatch.schema.packets import MAX_CAPTURED
from veilwatch.traffic.capture.clock import MAX_TIME_NS, MIN_TIME_NS
from veilwatch.traffic.capture.fault import (
    BLOCK_LENGTH,
    BYTE_ORDER,
    CAPTURED,
    CUT,
    INTERFACES,
    ODD_CAPTURED,
    ODD_INTERFACE,
    ODD_LENGTH,
    ODD_LONG,
    ODD_OPTION,
    ODD_OVERFULL,
    ODD_SHORT,
    ODD_TRAILER,
    ODD_VALUE,
    ODD_ZEROS,
    TRAILER,
    VERSION,
    WHAT_IS_ODD,
    Fault,
)
from veilwatch.traffic.capture.pcapng import MAX_BLOCK, MAX_INTERFACES, MAX_PLAUSIBLE


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
    odd: dict[str, int] = field(default_factory=dict)
    fault: Fault | None = None

    def note(self, code: int) -> None:
        """Count what is odd."""
        self.odd[WHAT_IS_ODD[code]] = self.odd.get(WHAT_IS_ODD[code], 0) + 1


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
        "1c0001ac": (">", 6, 0),
        "1c0001ab": (">", 6, 0),
        "ac01001c": ("<", 6, 0),
        "ab01001c": ("<", 6, 0),
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
    if b"\x1c\x00\x01" in (data[:3], data[3:0:-1]):  # the size of all records
        at += 4
        if len(data) < at:
            reading.fault = Fault(CUT, 24, 0)
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
            block, after = _next_block(data, at, order, reading)
            if block[:4] == b"\n\r\r\n":
                order = _byte_order(block)
                interfaces = []
            (kind,) = struct.unpack(order + "I", block[:4])
            body = block[8:]
            if kind == 0x0A0D0D0A:
                _open_section(body, order, reading)
            elif kind == 1:
                if len(interfaces) == MAX_INTERFACES:
                    raise _Broken(INTERFACES)
                interfaces.append(_describe(body, order, reading))
                reading.interfaces.append(interfaces[-1].link)
            elif kind not in (2, 3, 6) or not _packet(kind, body, order, interfaces, reading):
                reading.skipped_blocks += 1
            at = after
        except _Broken as fault:
            if fault.args[0] in (CUT, BLOCK_LENGTH) and not any(data[at:]):
                reading.note(ODD_ZEROS)
            else:
                reading.fault = Fault(fault.args[0], at, len(reading.records))
            break
    return reading


def _byte_order(block: bytes) -> str:
    orders = {"1a2b3c4d": ">", "4d3c2b1a": "<"}
    if block[8:12].hex() not in orders:
        raise _Broken(BYTE_ORDER)
    return orders[block[8:12].hex()]


def _next_block(data: bytes, at: int, order: str, reading: Reading) -> tuple[bytes, int]:
    """Return a block without its second length, and where the next one begins."""
    if len(data) - at < 12:
        raise _Broken(CUT)
    begins = data[at : at + 4] == b"\n\r\r\n"
    if begins:
        order = _byte_order(data[at:])
    kind, total = struct.unpack(order + "II", data[at : at + 8])
    if begins and total == 0 and len(data) >= at + 28 and not any(data[at + 24 : at + 28]):
        reading.note(ODD_SHORT)
        return data[at : at + 24], at + 28
    structure = begins or kind == 1
    most = MAX_BLOCK if structure else MAX_PLAUSIBLE if kind in (2, 3, 6) else 2**32
    if not (28 if begins else 20 if kind == 1 else 12) <= total <= most:
        raise _Broken(BLOCK_LENGTH)
    padded = at + total + -total % 4
    if padded > len(data) and at + total > len(data):
        raise _Broken(CUT)
    length = struct.pack(order + "I", total)
    inside = data[at : at + total - 4]
    if padded <= len(data) and data[padded - 4 : padded] == length:
        if total % 4:
            reading.note(ODD_LENGTH)
        return inside, padded
    if total % 4 == 0:
        if not _begins_block(data[padded:], order):
            raise _Broken(TRAILER)
        reading.note(ODD_TRAILER)
        return inside, padded
    if data[at + total - 4 : at + total] == length:
        reading.note(ODD_LENGTH)
        return inside, at + total
    raise _Broken(BLOCK_LENGTH)


def _begins_block(rest: bytes, order: str) -> bool:
    if len(rest) < 12:
        return not rest
    kind, total = struct.unpack(order + "II", rest[:8])
    if kind == 0x0A0D0D0A:
        return True
    return kind in (*range(1, 14), 0xBAD, 0x40000BAD) and 12 <= total <= MAX_PLAUSIBLE


def _options(data: bytes, order: str, reading: Reading) -> list[tuple[int, bytes]]:
    found = []
    while len(data) >= 4:
        code, length = struct.unpack(order + "HH", data[:4])
        if code == 0:
            break
        value = data[4 : 4 + length]
        if len(value) < length:
            reading.note(ODD_OPTION)
            break
        found.append((code, value))
        data = data[4 + length + -length % 4 :]
    return found


def _open_section(body: bytes, order: str, reading: Reading) -> None:
    if struct.unpack(order + "H", body[4:6]) != (1,):
        raise _Broken(VERSION)
    _options(body[16:], order, reading)


def _describe(body: bytes, order: str, reading: Reading) -> _Interface:
    link, snaplen = struct.unpack(order + "H2xI", body[:8])
    tick, offset = Fraction(1, 10**6), 0
    for code, value in _options(body[8:], order, reading):
        if code == 9:
            number = int.from_bytes(value, "big" if order == ">" else "little")
            if len(value) != 1:
                reading.note(ODD_VALUE)
            if value and number < 256:
                tick = Fraction(1, (2 if number >= 128 else 10) ** (number % 128))
        if code == 14:
            if len(value) == 8:
                (offset,) = struct.unpack(order + "q", value)
            else:
                reading.note(ODD_VALUE)
    return _Interface(link, snaplen, tick, offset)


def _packet(
    kind: int, body: bytes, order: str, interfaces: list[_Interface], reading: Reading
) -> bool:
    """Add the packet of a block, where it holds one that can be read."""
    if len(body) + 12 > MAX_BLOCK:
        reading.note(ODD_LONG)
        return False
    if len(body) < (4 if kind == 3 else 20):
        reading.note(ODD_SHORT)
        return False
    before = reading.records
    if kind == 3:
        index, payload = 0, body[4:]
        (length,) = struct.unpack(order + "I", body[:4])
    else:
        index, high, low, captured, length = struct.unpack(
            order + ("IIIII" if kind == 6 else "H2xIIII"), body[:20]
        )
        payload = body[20:]
    if index >= len(interfaces):
        reading.note(ODD_INTERFACE)
        return False
    interface = interfaces[index]
    if kind == 3:
        captured = min(length, interface.snaplen) if interface.snaplen else length
        time = before[-1].ts_ns if before else MIN_TIME_NS
    else:
        time = _time((high * 2**32 + low) * interface.tick + interface.offset)
    if MAX_CAPTURED < captured <= len(payload):
        reading.note(ODD_CAPTURED)
        return False
    if captured > len(payload):
        reading.note(ODD_OVERFULL)
        captured = min(len(payload), MAX_CAPTURED)
    before.append(Record(len(before) + 1, time, length, interface.link, index, payload[:captured]))
    return True
