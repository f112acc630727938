"""Packet by packet, where the kernel refuses a ring: several times the work, the same records."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from typing import Final

import numpy as np

from veilwatch.capture.live.link import ETHERNET, link_type
from veilwatch.capture.live.options import (
    MAC_BYTES,
    PACKET_AUXDATA,
    PACKET_STATISTICS,
    SO_TIMESTAMPNS,
    SOL_PACKET,
    TPID_VALID,
    VLAN_BYTES,
    VLAN_VALID,
)
from veilwatch.schema.packets import BLOCK_RECORDS, RECORD_DTYPE, RawBlock

_BUFFER_BYTES: Final = 1024 * 1024
"""Bytes of packets in one block of records, above the room for one packet more."""

_SO_RCVBUFFORCE: Final = 33
_ANCILLARY_BYTES: Final = 256
_AUXDATA: Final = struct.Struct("@IIIHHHH")
_TIME: Final = struct.Struct("@qq")
_NS: Final = 1_000_000_000
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
        view = self._buffer.data
        count = at = 0
        while count < BLOCK_RECORDS and at + self._room <= len(self._buffer):
            frame = at + VLAN_BYTES
            try:
                captured, ancillary, _, address = self._socket.recvmsg_into(
                    [view[frame : at + self._room]], _ANCILLARY_BYTES
                )
            except BlockingIOError:
                break
            except OSError as error:
                self._error = error
                break
            record = self._records[count]
            length = captured
            link = link_type(address[3])
            for level, kind, data in ancillary:
                if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
                    seconds, nanoseconds = _TIME.unpack_from(data)
                    record["ts_ns"] = seconds * _NS + nanoseconds
                elif level == SOL_PACKET and kind == PACKET_AUXDATA:
                    status, length, _, _, _, tag, tpid = _AUXDATA.unpack_from(data)
                    if status & VLAN_VALID and link == ETHERNET and captured >= MAC_BYTES:
                        tpid = tpid if status & TPID_VALID else _DOT1Q
                        view[at : at + MAC_BYTES] = view[frame : frame + MAC_BYTES]
                        view[at + MAC_BYTES : frame + MAC_BYTES] = struct.pack(">HH", tpid, tag)
                        frame, captured, length = at, captured + VLAN_BYTES, length + VLAN_BYTES
            count += 1
            record["offset"] = frame
            record["number"] = self._number + count
            record["captured"] = captured
            record["length"] = length
            record["link"] = link
            at = frame + captured
        if count:
            self._number += count
            return RawBlock(self._buffer, self._records[:count])
        return None if self._error is None else self.next()

    def statistics(self) -> tuple[int, int, int]:
        """Return packets seen, dropped among them, and 0 freezes, since last asked."""
        seen, dropped = struct.unpack(
            "@II", self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)
        )
        return seen, dropped, 0

    def close(self) -> None:
        """Nothing to let go of: the socket is the caller's."""
