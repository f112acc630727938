"""What UDP carries so that routers spread it: GUE, GRE (RFC 8086), MPLS (RFC 7510), LISP, AYIYA."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from veilwatch.jit import inner_kernel
from veilwatch.traffic.decode.byteorder import Buffer, u8, u16
from veilwatch.traffic.decode.counters import AYIYA, GUE, LISP, TUNNEL_CONTROL
from veilwatch.traffic.decode.etherip import VERSION_3
from veilwatch.traffic.decode.gre import gre
from veilwatch.traffic.decode.shim import label_stack
from veilwatch.traffic.decode.steps import (
    ETHERNET,
    IPV6,
    MPLS,
    OK,
    TRUNCATED_TUNNEL,
    Walk,
)
from veilwatch.traffic.decode.tunnel import enter, false_tunnel, inner_frame, inner_ip

GUE_CONTROL: Final = 0x20
GUE_LENGTH: Final = 0x1F  # of the optional fields, in units of four bytes

GRE_RESERVED: Final = 0x4FFF  # routing, which RFC 2784 dropped, the reserved bits, and the version

LISP_UNUSED: Final = 0x03  # of the flags, where the payload is not encrypted

AYIYA_FORWARD: Final = 1
AYIYA_FIXED: Final = 8


@inner_kernel
def gue(
    buffer: Buffer, offset: int, end: int, wire: int, p: Any, counters: npt.NDArray[np.int64]
) -> Walk:
    """Read a GUE header of version 0, or the IP packet that version 1 is."""
    if offset + 4 > wire:
        return false_tunnel(offset, end, wire, counters)
    if offset + 4 > end:
        return TRUNCATED_TUNNEL, offset, end, wire
    first = u8(buffer, offset)
    step = OK
    at = offset
    if first >> 6 == 1:
        step = inner_ip(buffer, offset, end, wire)
    elif first >> 6 == 0:
        at = offset + 4 + (first & GUE_LENGTH) * 4
        if at > wire:
            return false_tunnel(offset, end, wire, counters)
        if first & GUE_CONTROL != 0:
            counters[TUNNEL_CONTROL] += 1
            return OK, offset, end, wire
        if at >= end and at < wire:
            return TRUNCATED_TUNNEL, offset, end, wire
        protocol = u8(buffer, offset + 1)
        if protocol == 47:
            step, at, end, wire = gre_if_read(buffer, at, end, wire, p, counters)
        else:
            step, at, _, _ = carried(buffer, protocol, at, end, wire)
    if step == TRUNCATED_TUNNEL:
        return TRUNCATED_TUNNEL, offset, end, wire
    if step == OK:
        return false_tunnel(offset, end, wire, counters)
    counters[GUE] += 1
    enter(p)
    return step, at, end, wire


@inner_kernel
def carried(buffer: Buffer, protocol: int, at: int, end: int, wire: int) -> Walk:
    """Return what an IP protocol number in a GUE header leads to if it is there, else OK."""
    step = OK
    if protocol == 4 or protocol == 41:
        step = inner_ip(buffer, at, end, wire)
        if (step == IPV6) != (protocol == 41):
            step = OK
    elif protocol == 143:
        if inner_frame(buffer, at, end, wire):
            step = ETHERNET
    elif protocol == 97:
        if at + 2 <= end and u16(buffer, at) == VERSION_3:
            at += 2
            if inner_frame(buffer, at, end, wire):
                step = ETHERNET
    elif protocol == 137:
        step = label_stack(buffer, at, end, wire)
    return step, at, end, wire


@inner_kernel
def gre_if_read(
    buffer: Buffer, offset: int, end: int, wire: int, p: Any, counters: npt.NDArray[np.int64]
) -> Walk:
    """Read GRE within a datagram; step OK, and the datagram's payload as it was, if nobody can."""
    start = p["payload_offset"]
    length = p["payload_length"]
    captured = p["payload_captured"]
    step, at, inner_end, inner_wire = gre(buffer, offset, end, wire, p, counters)
    if step == OK:
        p["payload_offset"] = start
        p["payload_length"] = length
        p["payload_captured"] = captured
    return step, at, inner_end, inner_wire


@inner_kernel
def mpls_in_udp(
    buffer: Buffer, offset: int, end: int, wire: int, p: Any, counters: npt.NDArray[np.int64]
) -> Walk:
    """Go on with a label stack in UDP."""
    if offset + 4 > wire:
        return false_tunnel(offset, end, wire, counters)
    if offset + 4 > end:
        return TRUNCATED_TUNNEL, offset, end, wire
    if label_stack(buffer, offset, end, wire) == OK:
        return false_tunnel(offset, end, wire, counters)
    enter(p)
    return MPLS, offset, end, wire


@inner_kernel
def gre_in_udp(
    buffer: Buffer, offset: int, end: int, wire: int, p: Any, counters: npt.NDArray[np.int64]
) -> Walk:
    """Go on with GRE in UDP, if it is GRE that can be read."""
    if offset + 4 > wire:
        return false_tunnel(offset, end, wire, counters)
    if offset + 4 > end:
        return TRUNCATED_TUNNEL, offset, end, wire
    if u16(buffer, offset) & GRE_RESERVED != 0:
        return false_tunnel(offset, end, wire, counters)
    step, at, inner_end, inner_wire = gre_if_read(buffer, offset, end, wire, p, counters)
    if step == OK:
        return false_tunnel(offset, end, wire, counters)
    if step != TRUNCATED_TUNNEL:
        enter(p)
    return step, at, inner_end, inner_wire


@inner_kernel
def lisp(
    buffer: Buffer, offset: int, end: int, wire: int, p: Any, counters: npt.NDArray[np.int64]
) -> Walk:
    """Read LISP's header of eight bytes (RFC 9300, 5) in front of an IP packet."""
    if offset + 8 >= wire:
        return false_tunnel(offset, end, wire, counters)
    if offset + 8 >= end:
        return TRUNCATED_TUNNEL, offset, end, wire
    step = inner_ip(buffer, offset + 8, end, wire)
    if step == OK or u8(buffer, offset) & LISP_UNUSED != 0:
        return false_tunnel(offset, end, wire, counters)
    counters[LISP] += 1
    enter(p)
    return step, offset + 8, end, wire


@inner_kernel
def ayiya(
    buffer: Buffer, offset: int, end: int, wire: int, p: Any, counters: npt.NDArray[np.int64]
) -> Walk:
    """Read AYIYA's header: lengths of identity and signature, and IPv6 behind them."""
    if offset + AYIYA_FIXED > wire:
        return false_tunnel(offset, end, wire, counters)
    if offset + AYIYA_FIXED > end:
        return TRUNCATED_TUNNEL, offset, end, wire
    identity = 1 << (u8(buffer, offset) >> 4)
    signature = (u8(buffer, offset + 1) >> 4) * 4
    at = offset + AYIYA_FIXED + identity + signature
    forwards = u8(buffer, offset + 2) & 0x0F == AYIYA_FORWARD
    if not forwards or u8(buffer, offset + 3) != 41 or at >= wire:
        return false_tunnel(offset, end, wire, counters)
    if at >= end:
        return TRUNCATED_TUNNEL, offset, end, wire
    if inner_ip(buffer, at, end, wire) != IPV6:
        return false_tunnel(offset, end, wire, counters)
    counters[AYIYA] += 1
    enter(p)
    return IPV6, at, end, wire
