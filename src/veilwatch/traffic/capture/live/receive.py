"""Packet by packet, where the kernel refuses a ring: several times the work, the same records."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from typing import Final

import numpy as np

from veilwatch.schema.packets import BLOCK_RECORDS, RECORD_DTYPE, RawBlock
from veilwatch.schema.units import SECOND_NS
from veilwatch.traffic.capture.live.link import ETHERNET, UNKNOWN, link_type
from veilwatch.traffic.capture.live.options import (
    MAC_BYTES,
    PACKET_AUXDATA,
    PACKET_STATISTICS,
    SO_TIMESTAMPNS,
    SOL_PACKET,
    TPID_VALID,
    VLAN_BYTES,
    VLAN_VALID,
)

_BUFFER_BYTES: Final = 1024 * 1024
"""Bytes of packets in one block of records, above the room for one packet more."""

_SO_RCVBUFFORCE: Final = 33
_ANCILLARY_BYTES: Final = 256
_AUXDATA: Final = struct.Struct("@IIIHHHH")
_TAG: Final = struct.Struct(">HH")
_TIME: Final = struct.Struct("@qq")
_DOT1Q: Final = 0x8100


class Receiver:
    """Blocks of packets that were received one by one.

    Parameters
    ----------
    descriptor
        Packet socket.
    snaplen
        Most bytes of a packet.
    buffer_mb
        MiB of packets that may wait in the kernel, as far as it allows.
    source
        Value for the records.
    """

    settle_s = 0.0

    def __init__(
        self, descriptor: socket.socket, snaplen: int, buffer_mb: int, source: int
    ) -> None:
        self._socket = descriptor
        self._room = snaplen + VLAN_BYTES
        self._buffer = np.empty(_BUFFER_BYTES + self._room, np.uint8)
        self._records = np.zeros(BLOCK_RECORDS, RECORD_DTYPE)
        self._records["source"] = source
        self._number = 0
        self._error: OSError | None = None
        self._hardware, self._link = -1, UNKNOWN
        descriptor.setblocking(False)
        descriptor.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        size = buffer_mb * 1024 * 1024
        descriptor.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
        with suppress(PermissionError):  # beyond net.core.rmem_max only with CAP_NET_ADMIN
            descriptor.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size)

    def next(self) -> RawBlock | None:
        """Return the packets that wait, None if there are none now.

        Raises
        ------
        OSError
            If the interface is down.
        """
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        # Plain lists, turned into columns at the end: writing to a record takes as long as a call.
        times: list[int] = []
        offsets: list[int] = []
        captures: list[int] = []
        lengths: list[int] = []
        links: list[int] = []
        view, room = self._buffer.data, self._room
        at, last = 0, len(view) - room
        while len(times) < BLOCK_RECORDS and at <= last:
            frame = at + VLAN_BYTES
            try:
                captured, ancillary, _, address = self._socket.recvmsg_into(
                    [view[frame : at + room]], _ANCILLARY_BYTES
                )
            except BlockingIOError:
                break
            except OSError as error:
                self._error = error
                break
            length, ts_ns, link = captured, 0, self._link_of(address[3])
            for level, kind, data in ancillary:
                if level == SOL_PACKET and kind == PACKET_AUXDATA:
                    status, length, _, _, _, tag, tpid = _AUXDATA.unpack_from(data)
                    if status & VLAN_VALID and link == ETHERNET and captured >= MAC_BYTES:
                        tpid = tpid if status & TPID_VALID else _DOT1Q
                        view[at : at + MAC_BYTES] = view[frame : frame + MAC_BYTES]
                        view[at + MAC_BYTES : frame + MAC_BYTES] = _TAG.pack(tpid, tag)
                        frame, captured, length = at, captured + VLAN_BYTES, length + VLAN_BYTES
                elif level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
                    seconds, nanoseconds = _TIME.unpack_from(data)
                    ts_ns = seconds * SECOND_NS + nanoseconds
            times.append(ts_ns)
            offsets.append(frame)
            captures.append(captured)
            lengths.append(length)
            links.append(link)
            at = frame + captured
        count = len(times)
        if not count:
            return None if self._error is None else self.next()
        records = self._records[:count]
        records["ts_ns"], records["offset"] = times, offsets
        records["captured"], records["length"], records["link"] = captures, lengths, links
        records["number"] = np.arange(self._number + 1, self._number + count + 1)
        self._number += count
        return RawBlock(self._buffer, records)

    def _link_of(self, hardware: int) -> int:
        """Return the link type; hardly ever another one than before."""
        if hardware != self._hardware:
            self._hardware, self._link = hardware, int(link_type(hardware))
        return self._link

    def statistics(self) -> tuple[int, int, int]:
        """Return packets seen, dropped among them, and 0 freezes, since last asked."""
        seen, dropped = struct.unpack(
            "@II", self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)
        )
        return seen, dropped, 0

    def close(self) -> None:
        """Nothing to let go of: the socket is the caller's."""
