"""Frames right above IP: EtherIP (RFC 3378), MikroTik's EoIP, SRv6 (RFC 8986), MPLS (RFC 4023)."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from veilwatch.jit import inner_kernel
from veilwatch.traffic.decode.byteorder import Buffer, u8, u16
from veilwatch.traffic.decode.counters import EOIP, ETHERIP, GRE
from veilwatch.traffic.decode.shim import label_stack
from veilwatch.traffic.decode.steps import ETHERNET, MPLS, OK, TRUNCATED_TUNNEL, Walk
from veilwatch.traffic.decode.transport import payload
from veilwatch.traffic.decode.tunnel import inner_frame

VERSION_3: Final = 0x3000
EOIP_V6: Final = 0x03  # lower half of the first byte; the rest is the tunnel's identifier

EOIP_FLAGS: Final = 0x2001  # GRE version 1 with a key and without a sequence number
EOIP_PROTOCOL: Final = 0x6400


@inner_kernel
def etherip(
    buffer: Buffer, offset: int, end: int, wire: int, p: Any, counters: npt.NDArray[np.int64]
) -> Walk:
    """Read EtherIP's two bytes: version 3 and zeros.

    MikroTik's EoIP over IPv6 uses the same protocol, and so do old BSD systems, with the halves of
    the first byte the other way round: their frames are known by their look.
    """
    if offset + 2 >= wire:
        return payload(offset, end, wire, p)
    if offset + 2 >= end:
        return TRUNCATED_TUNNEL, offset, end, wire
    known = u16(buffer, offset) == VERSION_3
    if not known and u8(buffer, offset) & 0x0F == EOIP_V6:
        known = inner_frame(buffer, offset + 2, end, wire)
    if not known:
        return payload(offset, end, wire, p)
    counters[ETHERIP] += 1
    return ETHERNET, offset + 2, end, wire


@inner_kernel
def eoip(
    buffer: Buffer, offset: int, end: int, wire: int, p: Any, counters: npt.NDArray[np.int64]
) -> Walk:
    """Read EoIP's header, that of GRE with length and identifier in place of the key.

    Its keep-alives, of length 0, stay a flow of its end points.
    """
    if offset + 8 > wire:
        return payload(offset, end, wire, p)
    if offset + 8 > end:
        return TRUNCATED_TUNNEL, offset, end, wire
    size = u16(buffer, offset + 4)
    if size < 14 or offset + 8 + size > wire:
        return payload(offset, end, wire, p)
    counters[GRE] += 1
    counters[EOIP] += 1
    wire = offset + 8 + size
    return ETHERNET, offset + 8, min(end, wire), wire


@inner_kernel
def ethernet_in_ip(buffer: Buffer, offset: int, end: int, wire: int, p: Any) -> Walk:
    """Go on with the frame that follows an IP header, as segment routing has it (RFC 8986, 9)."""
    if inner_frame(buffer, offset, end, wire):
        return ETHERNET, offset, end, wire
    return payload(offset, end, wire, p)


@inner_kernel
def mpls_in_ip(buffer: Buffer, offset: int, end: int, wire: int, p: Any) -> Walk:
    """Go on with the label stack that follows an IP header."""
    if label_stack(buffer, offset, end, wire) == OK:
        return payload(offset, end, wire, p)
    return MPLS, offset, end, wire
