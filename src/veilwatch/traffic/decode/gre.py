"""Tunnels right above IP: GRE (RFC 2784, 2890, 2637), ERSPAN inside it, IP in IP (RFC 2003, 4213).

A GRE packet whose content nobody here reads stays a flow of its own between its end points.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from veilwatch.jit import inner_kernel
from veilwatch.traffic.decode.byteorder import Buffer, u8, u16
from veilwatch.traffic.decode.counters import ERSPAN, GRE, IP_IN_IP
from veilwatch.traffic.decode.etherip import EOIP_FLAGS, EOIP_PROTOCOL, eoip
from veilwatch.traffic.decode.ppp import ppp
from veilwatch.traffic.decode.steps import (
    ETHERNET,
    FRAME_RELAY,
    IPV4,
    IPV6,
    NOT_IP,
    OK,
    RAW_IP,
    TRUNCATED_TUNNEL,
    WLAN,
    Walk,
    step_of_ethertype,
)
from veilwatch.traffic.decode.transport import payload
from veilwatch.traffic.decode.tunnel import inner_ip

CHECKSUM_FLAG: Final = 0x8000
ROUTING_FLAG: Final = 0x4000  # RFC 1701; dropped by RFC 2784
KEY_FLAG: Final = 0x2000
SEQUENCE_FLAG: Final = 0x1000
ACKNOWLEDGEMENT_FLAG: Final = 0x0080  # version 1 only

ERSPAN_I_II: Final = 0x88BE
ERSPAN_III: Final = 0x22EB
POINT_TO_POINT: Final = 0x880B
CACHE_REDIRECTION: Final = 0x883E  # WCCP
ARUBA: Final = 0x8200  # 802.11 frames of an access point; eight queues in steps of 0x10
ARUBA_LAST: Final = 0x8370
RAW_FRAME_RELAY: Final = 0x6559


@inner_kernel
def ip_in_ip(
    buffer: Buffer,
    version: int,
    offset: int,
    end: int,
    wire: int,
    p: Any,
    counters: npt.NDArray[np.int64],
) -> Walk:
    """Go on with the IP packet that follows an IP header; anything else is its payload."""
    if offset >= wire or (offset < end and u8(buffer, offset) >> 4 != version):
        return payload(offset, end, wire, p)
    counters[IP_IN_IP] += 1
    return IPV4 if version == 4 else IPV6, offset, end, wire


@inner_kernel
def gre(
    buffer: Buffer, offset: int, end: int, wire: int, p: Any, counters: npt.NDArray[np.int64]
) -> Walk:
    """Read a GRE header of version 0, or of version 1 as PPTP has it."""
    if offset + 4 > wire:
        return payload(offset, end, wire, p)
    if offset + 4 > end:
        return TRUNCATED_TUNNEL, offset, end, wire
    flags = u16(buffer, offset)
    protocol = u16(buffer, offset + 2)
    if flags == EOIP_FLAGS and protocol == EOIP_PROTOCOL:
        return eoip(buffer, offset, end, wire, p, counters)
    version = flags & 0x07
    inside = offset + 4
    if flags & CHECKSUM_FLAG != 0:
        inside += 4
    if flags & KEY_FLAG != 0:
        inside += 4
    if flags & SEQUENCE_FLAG != 0:
        inside += 4
    if version == 1 and flags & ACKNOWLEDGEMENT_FLAG != 0:
        inside += 4
    if inside > wire or flags & ROUTING_FLAG != 0 or version > 1:
        return payload(offset, end, wire, p)
    if inside > end:
        return TRUNCATED_TUNNEL, offset, end, wire

    # Version 1 without a sequence number only acknowledges; most sessions are encrypted above PPP.
    if protocol == POINT_TO_POINT and (version == 0 or flags & SEQUENCE_FLAG != 0):
        step, at, _, _ = ppp(buffer, inside, end, wire)
        if step in (IPV4, IPV6):
            counters[GRE] += 1
            return step, at, end, wire
    if version == 1 or protocol == POINT_TO_POINT:
        return payload(offset, end, wire, p)
    if protocol in (ERSPAN_I_II, ERSPAN_III):
        return erspan(buffer, protocol, flags, offset, inside, end, wire, p, counters)
    step = step_of_ethertype(protocol)
    if protocol == CACHE_REDIRECTION:
        step = inner_ip(buffer, inside, end, wire)
        if step == OK:  # version 2 has a header of four bytes in front of the packet
            inside += 4
            step = inner_ip(buffer, inside, end, wire)
    elif protocol & 0xFF0F == ARUBA and protocol <= ARUBA_LAST:
        step = WLAN
    elif protocol == RAW_FRAME_RELAY:
        step = FRAME_RELAY
    if step in (NOT_IP, OK):
        return payload(offset, end, wire, p)
    counters[GRE] += 1
    return step, inside, end, wire


@inner_kernel
def erspan(
    buffer: Buffer,
    protocol: int,
    flags: int,
    offset: int,
    inside: int,
    end: int,
    wire: int,
    p: Any,
    counters: npt.NDArray[np.int64],
) -> Walk:
    """Read the header of a mirror session (draft-foschiano-erspan-03), `inside` the GRE header.

    Type I has none. Type II always comes with a GRE sequence number. Type III tells what it
    mirrors, and whether a platform's subheader follows.
    """
    step = ETHERNET
    size = 0
    wanted = 0  # version in the first four bits
    if protocol == ERSPAN_III:
        size = 12
        wanted = 2
    elif flags & SEQUENCE_FLAG != 0:
        size = 8
        wanted = 1
    if inside + size > wire:
        return payload(offset, end, wire, p)
    if inside + size > end:
        return TRUNCATED_TUNNEL, offset, end, wire
    if size > 0 and u8(buffer, inside) >> 4 != wanted:
        return payload(offset, end, wire, p)
    if size == 12:
        word = u16(buffer, inside + 10)
        kind = (word >> 10) & 0x1F
        if kind == 2:
            step = RAW_IP
        elif kind != 0:
            return payload(offset, end, wire, p)
        if word & 1 != 0:
            size = 20
    if inside + size >= wire:
        return payload(offset, end, wire, p)
    if inside + size >= end:
        return TRUNCATED_TUNNEL, offset, end, wire
    counters[GRE] += 1
    counters[ERSPAN] += 1
    return step, inside + size, end, wire
