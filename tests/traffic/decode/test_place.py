"""Where a packet was captured: what tells the places of one capture apart."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from scapy.layers.inet import IP, UDP

from veilwatch.schema.packets import RECORD_DTYPE, RawBlock
from veilwatch.traffic.decode import Decoder

PACKET = bytes(IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1, dport=2) / b"x")


def sll2(index: int, kind: int) -> bytes:
    return struct.pack(">HHIHBB8s", 0x0800, 0, index, 1, kind, 6, bytes(8)) + PACKET


def sll(kind: int) -> bytes:
    return struct.pack(">HHH8sH", kind, 1, 6, bytes(8), 0x0800) + PACKET


def places(frames: list[bytes], link: int, interfaces: list[int]) -> list[int]:
    records = np.zeros(len(frames), RECORD_DTYPE)
    records["captured"] = records["length"] = [len(frame) for frame in frames]
    records["offset"] = np.cumsum([0, *map(len, frames[:-1])])
    records["link"], records["interface"] = link, interfaces
    block = RawBlock(np.frombuffer(bytearray(b"".join(frames)), np.uint8), records)
    packets = Decoder().decode(block).packets
    assert (packets["status"] == 0).all()
    return [int(number) for number in packets["interface"]]


def test_interfaces_of_a_pcapng_are_places() -> None:
    raw = 101
    assert places([PACKET] * 3, raw, [0, 1, 7]) == [0, 1, 7]


@pytest.mark.parametrize("base", [0, 3])
def test_each_interface_and_direction_of_any_is_a_place(base: int) -> None:
    frames = [sll2(index, kind) for index in (1, 2, 3, 40_000) for kind in (0, 3, 4)]
    assert len(set(places(frames, 276, [base] * len(frames)))) == len(frames)
    assert places([sll2(2, 4)] * 2, 276, [base] * 2)[0] == places([sll2(2, 4)], 276, [base])[0]


def test_link_addresses_of_the_outermost_frame_are_a_place() -> None:
    stations = [bytes([2, 0, 0, 0, 0, last]) for last in (1, 2, 3)]
    pairs = [one + other for one in stations for other in stations if one != other]
    frames = [pair + b"\x08\x00" + PACKET for pair in pairs]
    alone = places(frames, 1, [0] * len(frames))
    assert len(set(alone)) == len(frames)
    assert set(alone).isdisjoint(places(frames, 1, [1] * len(frames)))
    assert places(frames[:1] * 2, 1, [0, 0]) == alone[:1] * 2


def test_the_first_cooked_header_tells_directions_only() -> None:
    assert len(set(places([sll(kind) for kind in (0, 3, 4)], 113, [0] * 3))) == 3
