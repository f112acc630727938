"""Between link and network: MPLS labels (RFC 3032) and PPPoE (RFC 2516)."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from veilwatch.jit import inner_kernel
from veilwatch.traffic.decode.byteorder import Buffer, u8, u16
from veilwatch.traffic.decode.counters import MPLS as MPLS_COUNT
from veilwatch.traffic.decode.counters import PPPOE as PPPOE_COUNT
from veilwatch.traffic.decode.ppp import ppp
from veilwatch.traffic.decode.steps import (
    ETHERNET,
    IPV4,
    IPV6,
    MPLS,
    NOT_IP,
    OK,
    TOO_DEEP,
    TRUNCATED_LINK,
    Walk,
    leads_on,
)
from veilwatch.traffic.decode.tunnel import inner_frame, inner_ip

MAX_LABELS: Final = 16
"""Most stacked labels that are followed: transport, service and entropy labels with their
indicators make five or six, and a deeper stack is an attack on the decoder."""

CONTROL_WORD: Final = 4  # bytes, RFC 4385, 3


@inner_kernel
def mpls(buffer: Buffer, offset: int, end: int, wire: int, counters: npt.NDArray[np.int64]) -> Walk:
    """Read a label stack. What it carries no header says: IP by its look, else a pseudowire.

    An Ethernet pseudowire may begin with a control word (RFC 4448, 4.6), whose first four bits
    are 0. So may a MAC address: the EtherType behind it then decides.
    """
    labels = 0
    while True:
        if offset + 4 > end:
            return TRUNCATED_LINK, offset, end, wire
        if labels == MAX_LABELS:
            return TOO_DEEP, offset, end, wire
        labels += 1
        bottom = u8(buffer, offset + 2) & 1
        offset += 4
        if bottom == 1:
            break
    counters[MPLS_COUNT] += 1
    if offset >= end:
        return TRUNCATED_LINK, offset, end, wire
    step = inner_ip(buffer, offset, end, wire)
    if step != OK:
        return step, offset, end, wire
    first = u8(buffer, offset) >> 4
    if offset + 14 <= end and leads_on(u16(buffer, offset + 12)):
        return ETHERNET, offset, end, wire
    if first == 0:
        return ETHERNET, offset + CONTROL_WORD, end, wire
    if first == 4:
        return IPV4, offset, end, wire
    return IPV6 if first == 6 else NOT_IP, offset, end, wire


@inner_kernel
def pppoe(
    buffer: Buffer, offset: int, end: int, wire: int, counters: npt.NDArray[np.int64]
) -> Walk:
    """Read the header of a PPPoE session's packet, and the PPP header behind it."""
    if offset + 6 > end:
        return TRUNCATED_LINK, offset, end, wire
    if u16(buffer, offset) != 0x1100:  # version 1, type 1, code 0: session data
        return NOT_IP, offset, end, wire
    counters[PPPOE_COUNT] += 1
    wire = min(wire, offset + 6 + u16(buffer, offset + 4))
    return ppp(buffer, offset + 6, min(end, wire), wire)


@inner_kernel
def label_stack(buffer: Buffer, offset: int, end: int, wire: int) -> int:
    """Return MPLS if a label stack begins at `offset` with an IP packet or a frame behind it.

    For what only a port or a protocol number announces; else OK. Captured bytes are judged.
    """
    at = offset
    for _ in range(MAX_LABELS):
        if at + 4 > end:
            return MPLS if at + 4 <= wire else OK
        bottom = u8(buffer, at + 2) & 1
        at += 4
        if bottom == 1:
            if inner_ip(buffer, at, end, wire) != OK:
                return MPLS
            if inner_frame(buffer, at, end, wire):
                return MPLS
            return MPLS if inner_frame(buffer, at + CONTROL_WORD, end, wire) else OK
    return OK
