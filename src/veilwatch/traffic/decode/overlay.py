"""Tunnels over UDP beside GTP-U: VXLAN (RFC 7348), GENEVE (RFC 8926), Teredo (RFC 4380).

The port only says what to look for. A datagram whose header contradicts itself stays what it
is, an ordinary UDP packet, and is counted.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from veilwatch.jit import inner_kernel
from veilwatch.traffic.decode.byteorder import Buffer, u8, u16
from veilwatch.traffic.decode.counters import GENEVE, GTP_PRIME, GTP_V0, TEREDO, VXLAN
from veilwatch.traffic.decode.fabric import is_nsh
from veilwatch.traffic.decode.steps import (
    BRIDGED_ETHERNET,
    ETHERNET,
    IPV4,
    IPV6,
    MPLS,
    NSH,
    OK,
    TRUNCATED_TUNNEL,
    Walk,
)
from veilwatch.traffic.decode.tunnel import enter, false_tunnel, inner_ip

VXLAN_INSTANCE: Final = 0x08
VXLAN_NEXT_PROTOCOL: Final = 0x04  # GPE (draft-ietf-nvo3-vxlan-gpe)
VXLAN_RESERVED: Final = 0x33  # the flags that neither VXLAN, GPE nor group policies use

GTP_HEADER_V0: Final = 20
GTP_HEADER_PRIME: Final = 6


@inner_kernel
def vxlan(
    buffer: Buffer, offset: int, end: int, wire: int, p: Any, counters: npt.NDArray[np.int64]
) -> Walk:
    """Read a VXLAN header; with the flag of the generic protocol extension also its protocol."""
    if offset + 8 >= wire:
        return false_tunnel(offset, end, wire, counters)
    if offset + 8 > end:
        return TRUNCATED_TUNNEL, offset, end, wire
    flags = u8(buffer, offset)
    if flags & VXLAN_INSTANCE == 0 or flags & VXLAN_RESERVED != 0 or buffer[offset + 7] != 0:
        return false_tunnel(offset, end, wire, counters)
    step = ETHERNET
    if flags & VXLAN_NEXT_PROTOCOL != 0:
        following = u8(buffer, offset + 3)
        if following == 1:
            step = IPV4
        elif following == 2:
            step = IPV6
        elif following == 4 and is_nsh(buffer, offset + 8, end, wire):
            step = NSH
        elif following == 5:
            step = MPLS
        elif following != 3:
            return false_tunnel(offset, end, wire, counters)
    counters[VXLAN] += 1
    enter(p)
    return step, offset + 8, end, wire


@inner_kernel
def geneve(
    buffer: Buffer, offset: int, end: int, wire: int, p: Any, counters: npt.NDArray[np.int64]
) -> Walk:
    """Read a GENEVE header with its options."""
    if offset + 8 >= wire:
        return false_tunnel(offset, end, wire, counters)
    if offset + 8 > end:
        return TRUNCATED_TUNNEL, offset, end, wire
    size = 8 + (u8(buffer, offset) & 0x3F) * 4
    kind = u16(buffer, offset + 2)
    step = OK
    if kind == BRIDGED_ETHERNET:
        step = ETHERNET
    elif kind == 0x0800:
        step = IPV4
    elif kind == 0x86DD:
        step = IPV6
    version = u8(buffer, offset) >> 6
    if version != 0 or buffer[offset + 7] != 0 or step == OK or offset + size >= wire:
        return false_tunnel(offset, end, wire, counters)
    if offset + size > end:
        return TRUNCATED_TUNNEL, offset, end, wire
    counters[GENEVE] += 1
    enter(p)
    return step, offset + size, end, wire


@inner_kernel
def teredo(
    buffer: Buffer, offset: int, end: int, wire: int, p: Any, counters: npt.NDArray[np.int64]
) -> Walk:
    """Read Teredo's indications, authentication and origin, and the IPv6 packet behind them."""
    at = offset
    if at + 4 <= end and u16(buffer, at) == 0x0001:  # RFC 4380, 5.1.1
        at += 13 + u8(buffer, at + 2) + u8(buffer, at + 3)
    if at + 2 <= end and u16(buffer, at) == 0x0000:
        at += 8
    if at >= wire:
        return false_tunnel(offset, end, wire, counters)
    if at >= end:
        return TRUNCATED_TUNNEL, offset, end, wire
    if inner_ip(buffer, at, end, wire) != IPV6:
        return false_tunnel(offset, end, wire, counters)
    counters[TEREDO] += 1
    enter(p)
    return IPV6, at, end, wire


@inner_kernel
def charging(
    buffer: Buffer, offset: int, end: int, wire: int, counters: npt.NDArray[np.int64]
) -> Walk:
    """Count GTP version 0 (3GPP TS 09.60) and GTP' (TS 32.295), which share a port.

    Neither is unwrapped: version 0 left the networks with Release 99, and GTP' carries records.
    """
    if offset + 4 > wire:
        return false_tunnel(offset, end, wire, counters)
    if offset + 4 > end:
        return OK, offset, end, wire
    version = u8(buffer, offset) >> 5
    size = wire - offset - u16(buffer, offset + 2)
    if u8(buffer, offset) & 0x10 != 0:
        if version == 0 and size == GTP_HEADER_V0:
            counters[GTP_V0] += 1
            return OK, offset, end, wire
    elif version <= 2 and (size in (GTP_HEADER_PRIME, GTP_HEADER_V0)):
        counters[GTP_PRIME] += 1
        return OK, offset, end, wire
    return false_tunnel(offset, end, wire, counters)
