"""Blocks of a ring, built by hand, against plain Python."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from veilwatch.schema.packets import RECORD_DTYPE
from veilwatch.traffic.capture.live.ring import BROKEN, HEADER_BYTES, walk_ring

VLAN_VALID, TPID_VALID = 0x10, 0x40
LINKS = {1: 1, 772: 1, 0xFFFE: 101, 519: 101, 768: 101, 769: 101, 776: 101, 512: 101, 803: 127}


@dataclass
class Packet:
    frame: bytes
    seconds: int = 1_700_000_000
    nanoseconds: int = 5
    length: int | None = None
    status: int = 1
    tag: int = 0
    tpid: int = 0
    hardware: int = 1
    room: int = 14  # between the header and the frame


def build(packets: list[Packet], start: int = 48) -> bytearray:
    """A block as the kernel leaves it; the block header itself is not walked."""
    out = bytearray(start)
    for k, packet in enumerate(packets):
        mac = HEADER_BYTES + packet.room
        step = -(-(mac + len(packet.frame)) // 8) * 8
        head = struct.pack(
            "=IIIIIIHHIIHH8x",
            *(0 if k == len(packets) - 1 else step, packet.seconds, packet.nanoseconds),
            len(packet.frame),
            len(packet.frame) if packet.length is None else packet.length,
            *(packet.status, mac, mac + 14, 0, packet.tag, packet.tpid, 0),
        )
        address = struct.pack("=HHiHBB8x", 17, 8, 3, packet.hardware, 0, 6)
        out += (head + address + bytes(packet.room) + packet.frame).ljust(step, b"\0")
    return out


def expected(packet: Packet) -> tuple[int, int, int, bytes]:
    """Time, length, link and bytes of a packet as they should come out."""
    frame = packet.frame
    length = len(frame) if packet.length is None else packet.length
    link = LINKS.get(packet.hardware, 0xFFFF)
    tagged = packet.status & VLAN_VALID and link == 1 and len(frame) >= 12 and packet.room >= 4
    if tagged:
        tpid = packet.tpid if packet.status & TPID_VALID else 0x8100
        frame = frame[:12] + struct.pack(">HH", tpid, packet.tag) + frame[12:]
        length += 4
    return packet.seconds * 10**9 + packet.nanoseconds, length, link, frame


def walk(
    block: bytearray, count: int, rows: int = 64, start: int = 48
) -> tuple[list[tuple[int, int, int, bytes]], int]:
    """What the kernel makes of a block, taken in pieces of at most `rows` records."""
    block += bytes(-len(block) % 8)
    ring = np.frombuffer(block, np.uint8)
    at, left = start, count
    found: list[tuple[int, int, int, bytes]] = []
    while left > 0:
        records = np.zeros(rows, RECORD_DTYPE)
        noted, at, left = walk_ring(
            ring,
            ring.view(np.uint16),
            ring.view(np.uint32),
            at,
            len(block),
            left,
            records,
            len(found),
        )
        for record in records[:noted]:
            begin = int(record["offset"])
            assert 0 <= begin <= begin + record["captured"] <= len(block)
            frame = ring[begin : begin + record["captured"]].tobytes()
            assert record["number"] == len(found) + 1
            found.append((int(record["ts_ns"]), int(record["length"]), int(record["link"]), frame))
    return found, left


packets = st.builds(
    Packet,
    frame=st.binary(max_size=80),
    seconds=st.integers(0, 2**32 - 1),
    nanoseconds=st.integers(0, 10**9 - 1),
    length=st.none() | st.integers(0, 2**31),
    status=st.sampled_from([1, 1 | VLAN_VALID, 1 | VLAN_VALID | TPID_VALID, 1 | TPID_VALID]),
    tag=st.integers(0, 0xFFFF),
    tpid=st.sampled_from([0, 0x8100, 0x88A8, 0x9100]),
    hardware=st.sampled_from([*LINKS, 783, 824]),
    room=st.integers(0, 20),
)


@examples(200)
@given(st.lists(packets, min_size=1, max_size=12), st.integers(1, 5))
def test_every_block_as_plain_python_reads_it(sent: list[Packet], rows: int) -> None:
    assert walk(build(sent), len(sent), rows) == ([expected(packet) for packet in sent], 0)


@examples(300)
@given(
    st.lists(packets, min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=20),
    st.integers(1, 8),
)
def test_a_damaged_block_is_never_left(
    sent: list[Packet], damage: list[tuple[int, int]], count: int
) -> None:
    block = build(sent)
    for at, value in damage:
        block[48 + at % (len(block) - 48)] = value
    _, left = walk(block, count)  # asserts the bounds of every record
    assert left in (0, BROKEN)


@pytest.mark.parametrize("cut", [1, 20, 60, 90, 100])
def test_a_block_that_ends_inside_a_packet(cut: int) -> None:
    block = build([Packet(b"x" * 60)])
    del block[-cut:]
    assert walk(block, 1) in (([], BROKEN), ([expected(Packet(b"x" * 60))], 0))


def test_an_offset_into_the_header_is_refused() -> None:
    block = build([Packet(b"x" * 60)])
    struct.pack_into("=H", block, 48 + 24, HEADER_BYTES - 1)
    assert walk(block, 1) == ([], BROKEN)
