"""The TPACKET_V3 ring: the kernel fills blocks of shared memory, a kernel of ours walks them.

Layout: linux/if_packet.h, struct tpacket_block_desc and struct tpacket3_hdr, in the byte order
of the machine; a struct sockaddr_ll follows each header.
"""

from __future__ import annotations

import mmap
import socket
import struct
from contextlib import suppress
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from veilwatch.errors import CaptureError
from veilwatch.jit import kernel
from veilwatch.schema.packets import BLOCK_RECORDS, RECORD_DTYPE, RawBlock
from veilwatch.traffic.capture.live.link import link_type
from veilwatch.traffic.capture.live.options import (
    MAC_BYTES,
    PACKET_RESERVE,
    PACKET_RX_RING,
    PACKET_STATISTICS,
    PACKET_VERSION,
    RETIRE_MS,
    SOL_PACKET,
    TPID_VALID,
    VLAN_BYTES,
    VLAN_VALID,
)

BLOCK_BYTES: Final = 256 * 1024
"""Bytes of one block of the ring: it stays in the second-level cache while it is walked and
decoded, and holds any frame but those of jumbo GRO, which are cut."""

SETTLE_S: Final = RETIRE_MS / 1000 + 0.03
"""After this long without new packets the kernel has handed over every block, its timers being
late by some ms."""

_TPACKET_V3: Final = 2
_FRAME_BYTES: Final = 2048  # demanded by the kernel, without meaning in version 3
_USER: Final = 1  # bit of block_status: the block is ours

# Offsets in struct tpacket_block_desc.
_BLOCK_STATUS: Final = 8
_BLOCK_PACKETS: Final = 12
_BLOCK_FIRST: Final = 16

# Offsets in struct tpacket3_hdr and the struct sockaddr_ll behind it.
_NEXT: Final = 0
_SECONDS: Final = 4
_NANOSECONDS: Final = 8
_CAPTURED: Final = 12
_LENGTH: Final = 16
_STATUS: Final = 20
_MAC: Final = 24
_TAG: Final = 32
_TPID: Final = 36
_INDEX: Final = 52
_HARDWARE: Final = 56
HEADER_BYTES: Final = 68

BROKEN: Final = -1
"""What `walk_ring` answers for the packets left of a block that contradicts itself."""

_NS: Final = 1_000_000_000
_ETHERNET: Final = 1
_DOT1Q: Final = 0x8100


@kernel
def walk_ring(
    ring: Any, halves: Any, words: Any, at: Any, end: Any, left: Any, records: Any, number: Any
) -> Any:
    """Note the packets of one block in `records` until one of them runs out.

    A VLAN tag that the kernel stripped is put back: both MAC addresses move 4 bytes towards
    their header (PACKET_RESERVE keeps the room), the tag goes behind them.

    Parameters
    ----------
    ring
        The whole ring, uint8. It is ours to write to.
    halves, words
        The same memory as uint16 and uint32.
    at, end
        Where the next packet's header begins, and the end of its block.
    left
        Packets left in the block.
    records
        Array of `RECORD_DTYPE` to fill; `source` is the caller's.
    number
        Records before these.

    Returns
    -------
    count, at, left
        Records noted, and where to go on; `left` is `BROKEN` if lengths lead out of the block.
    """
    count = 0
    while left > 0 and count < len(records):
        if at + HEADER_BYTES > end:
            return count, at, BROKEN
        step = np.int64(words[(at + _NEXT) >> 2])
        captured = np.int64(words[(at + _CAPTURED) >> 2])
        length = np.int64(words[(at + _LENGTH) >> 2])
        status = np.int64(words[(at + _STATUS) >> 2])
        mac = np.int64(halves[(at + _MAC) >> 1])
        frame = at + mac
        if mac < HEADER_BYTES or frame + captured > end:
            return count, at, BROKEN
        if left > 1 and (step < HEADER_BYTES or at + step > end):
            return count, at, BROKEN
        link = link_type(np.int64(halves[(at + _HARDWARE) >> 1]))
        if (
            status & VLAN_VALID
            and link == _ETHERNET
            and captured >= MAC_BYTES
            and mac >= HEADER_BYTES + VLAN_BYTES
        ):
            tpid = np.int64(halves[(at + _TPID) >> 1]) if status & TPID_VALID else _DOT1Q
            tag = np.int64(words[(at + _TAG) >> 2])
            frame -= VLAN_BYTES
            for k in range(MAC_BYTES):
                ring[frame + k] = ring[frame + VLAN_BYTES + k]
            ring[frame + MAC_BYTES] = tpid >> 8
            ring[frame + MAC_BYTES + 1] = tpid & 0xFF
            ring[frame + MAC_BYTES + 2] = (tag >> 8) & 0xFF
            ring[frame + MAC_BYTES + 3] = tag & 0xFF
            captured += VLAN_BYTES
            length += VLAN_BYTES
        record = records[count]
        # At most (2^32 - 1) s and as many ns: below MAX_TIME_NS.
        record.ts_ns = np.int64(words[(at + _SECONDS) >> 2]) * _NS + np.int64(
            words[(at + _NANOSECONDS) >> 2]
        )
        record.offset = frame
        record.number = number + count + 1
        record.captured = captured
        record.length = length
        record.link = link
        record.interface = words[(at + _INDEX) >> 2] & 0xFFFF
        count += 1
        left -= 1
        at += step
    return count, at, left


def load_kernel() -> None:
    """Compile `walk_ring`, or load it from the cache."""
    ring = np.zeros(8, np.uint8)
    walk_ring(
        *(ring, ring.view(np.uint16), ring.view(np.uint32), 0, 0, 0),
        *(np.zeros(0, RECORD_DTYPE), 0),
    )


def ask_for_ring(descriptor: socket.socket, ring_mb: int) -> int:
    """Let the kernel make a ring for a socket; return its bytes.

    Raises
    ------
    OSError
        If the kernel has no such ring or not the memory for it.
    """
    blocks = ring_mb * 1024 * 1024 // BLOCK_BYTES
    descriptor.setsockopt(SOL_PACKET, PACKET_VERSION, _TPACKET_V3)
    descriptor.setsockopt(SOL_PACKET, PACKET_RESERVE, VLAN_BYTES)
    frames = blocks * (BLOCK_BYTES // _FRAME_BYTES)
    descriptor.setsockopt(
        SOL_PACKET,
        PACKET_RX_RING,
        struct.pack("@7I", BLOCK_BYTES, blocks, _FRAME_BYTES, frames, RETIRE_MS, 0, 0),
    )
    return blocks * BLOCK_BYTES


class Ring:
    """Blocks of a ring, one after the other.

    Parameters
    ----------
    descriptor
        Socket for which `ask_for_ring` made a ring.
    size
        What it returned.
    source
        Value for the records.
    """

    settle_s = SETTLE_S

    def __init__(self, descriptor: socket.socket, size: int, source: int) -> None:
        self._socket = descriptor
        self._map = mmap.mmap(descriptor.fileno(), size)
        self._bytes: npt.NDArray[np.uint8] = np.frombuffer(self._map, np.uint8)
        self._halves = self._bytes.view(np.uint16)
        self._words = self._bytes.view(np.uint32)
        self._records = np.zeros(BLOCK_RECORDS, RECORD_DTYPE)
        self._records["source"] = source
        self._start = 0  # of the block at hand
        self._held = False  # whether it is ours
        self._at = 0
        self._left = 0
        self._number = 0

    def next(self) -> RawBlock | None:
        """Return the packets that come next, None if there are none now.

        What the block before pointed to goes back to the kernel.

        Raises
        ------
        CaptureError
            If a block contradicts itself.
        """
        while self._left == 0:
            if self._held:
                self._release()
            if not self._words[(self._start + _BLOCK_STATUS) >> 2] & _USER:
                return None
            self._held = True
            self._left = int(self._words[(self._start + _BLOCK_PACKETS) >> 2])
            self._at = self._start + int(self._words[(self._start + _BLOCK_FIRST) >> 2])
        count, self._at, self._left = walk_ring(
            *(self._bytes, self._halves, self._words, self._at, self._start + BLOCK_BYTES),
            *(self._left, self._records, self._number),
        )
        if self._left == BROKEN:
            raise CaptureError("a block of the ring contradicts itself", hint="update the kernel")
        self._number += count
        return RawBlock(self._bytes, self._records[:count])

    def _release(self) -> None:
        """Give the block at hand back to the kernel and turn to the next one."""
        self._words[(self._start + _BLOCK_STATUS) >> 2] = 0
        self._held = False
        self._start = (self._start + BLOCK_BYTES) % len(self._bytes)

    def statistics(self) -> tuple[int, int, int]:
        """Return packets seen, dropped among them, and freezes of the queue, since last asked."""
        seen, dropped, freezes = struct.unpack(
            "@III", self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 12)
        )
        return seen, dropped, freezes

    def close(self) -> None:
        """Let go of the memory; what still points into it keeps it alive."""
        self._bytes = np.zeros(0, np.uint8)
        self._halves, self._words = self._bytes.view(np.uint16), self._bytes.view(np.uint32)
        with suppress(BufferError):
            self._map.close()
