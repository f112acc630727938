"""Control messages within a block of packets: found by port, read one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from veilwatch.schema.packets import PacketBatch, Status
from veilwatch.traffic.subscriber import gtpv1, gtpv2, pfcp
from veilwatch.traffic.subscriber.identity import Identifier
from veilwatch.traffic.subscriber.messages import Message, Protocol
from veilwatch.traffic.subscriber.values import ValueReader

GTPC_PORT: Final = 2123
"""TS 29.274 cl. 4.4.1, TS 29.060 cl. 10.1.1."""

PFCP_PORT: Final = 8805
"""TS 29.244 cl. 6.5.3."""

MAX_DATAGRAM: Final = 16_384
"""Longest datagram that is read: the largest of the real captures has 2 kB, and a message within
this bound costs at most 0.1 s."""

_UDP: Final = 17
_WANTED: Final = np.isin(np.arange(65_536), (GTPC_PORT, PFCP_PORT))
"""By port: a look-up is cheaper than comparisons, as nearly all blocks hold none."""

_NAMES: Final = {
    Protocol.GTPV1: gtpv1.NAMES,
    Protocol.GTPV2: gtpv2.NAMES,
    Protocol.PFCP: pfcp.NAMES,
}


class Datagram(NamedTuple):
    """A UDP datagram of a control port."""

    src: int
    dst: int
    ts_ns: int
    pfcp: bool
    length: int
    data: bytes


def control_rows(batch: PacketBatch) -> npt.NDArray[np.intp]:
    """Return the rows of a block that are control packets, those inside GTP-U included."""
    packets = batch.packets
    rows: npt.NDArray[np.intp] = np.flatnonzero(
        _WANTED[packets["src_port"]] | _WANTED[packets["dst_port"]]
    )
    if not len(rows):
        return rows
    found = packets[rows]
    whole = (found["protocol"] == _UDP) & (found["status"] == int(Status.OK))
    return rows[np.flatnonzero(whole)]


def datagram(batch: PacketBatch, row: int) -> Datagram:
    """Return one row of a block as a datagram."""
    packet = batch.packets[row]
    start, captured = int(packet["payload_offset"]), int(packet["payload_captured"])
    return Datagram(
        src=int(packet["src_hi"]) << 64 | int(packet["src_lo"]),
        dst=int(packet["dst_hi"]) << 64 | int(packet["dst_lo"]),
        ts_ns=int(packet["ts_ns"]),
        pfcp=PFCP_PORT in (int(packet["src_port"]), int(packet["dst_port"])),
        length=int(packet["payload_length"]),
        data=batch.buffer[start : start + captured].tobytes(),
    )


class MessageReader:
    """Reads datagrams into messages and counts what it meets.

    Parameters
    ----------
    identify
        Turns identities into tokens.

    Attributes
    ----------
    messages
        Messages by protocol and type.
    refused
        What could not be read, by its reason.
    """

    def __init__(self, identify: Identifier) -> None:
        self._identify = identify
        self.messages: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()

    def read(self, datagram: Datagram) -> Iterator[Message]:
        """Yield the messages of a datagram, piggy-backed and bundled ones included."""
        data = datagram.data
        if datagram.length > MAX_DATAGRAM:
            self.refused["too long"] += 1
            return
        if len(data) < datagram.length:
            self.refused["cut by the capture"] += 1
        if datagram.pfcp:
            parts, parse = pfcp.split(data), pfcp.parse
        elif data[:1] and data[0] >> 5 == 2:
            parts, parse = gtpv2.split(data), gtpv2.parse
        else:
            parts, parse = iter((data,)), gtpv1.parse
        found = False
        for part in parts:
            values = ValueReader()
            message = parse(part, self._identify, values)
            if message is None:
                break
            found = True
            names = _NAMES[message.protocol]
            kind = names.get(message.kind, f"type {message.kind}")
            self.messages[f"{message.protocol} {kind}"] += 1
            if values.refused:
                self.refused["elements that do not fit"] += values.refused
            yield message
        if not found:
            self.refused["not a control message"] += 1
