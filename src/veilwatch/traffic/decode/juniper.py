"""Frames that Juniper's routers capture: a cookie with flags, extensions, then the layer's own.

Numbers of protocols are those of the router's tools, as Wireshark and tcpdump give them.
"""

from __future__ import annotations

from typing import Final

from veilwatch.jit import inner_kernel
from veilwatch.traffic.decode.byteorder import Buffer, le16, le32, u8, u16, u32
from veilwatch.traffic.decode.ppp import cisco_hdlc, ppp
from veilwatch.traffic.decode.steps import (
    ETHERNET,
    FRAME_RELAY,
    IPV4,
    IPV6,
    JUNIPER_ATM_1,
    JUNIPER_ATM_2,
    JUNIPER_CISCO_HDLC,
    JUNIPER_ETHERNET,
    JUNIPER_FRAME_RELAY,
    JUNIPER_GGSN,
    JUNIPER_PPP,
    JUNIPER_SERVICES,
    MPLS,
    NOT_IP,
    TRUNCATED_LINK,
    Walk,
)
from veilwatch.traffic.decode.wan import atm

MAGIC: Final = 0x4D4743  # "MGC"
INCOMING: Final = 0x01
NO_LINK_HEADER: Final = 0x02
EXTENSIONS: Final = 0x80

VOICE_HEADER: Final = 18


@inner_kernel
def step_of_juniper(protocol: int) -> int:
    """Return what a protocol number of Juniper's leads to."""
    if protocol == 2 or protocol == 3:  # IPv4, and IPv4 that came by MPLS
        return IPV4
    if protocol == 6 or protocol == 7:
        return IPV6
    if protocol == 4 or protocol == 5 or protocol == 8:  # with labels
        return MPLS
    return ETHERNET if protocol == 204 else NOT_IP


@inner_kernel
def juniper(buffer: Buffer, kind: int, offset: int, end: int, wire: int) -> Walk:
    """Read a Juniper header; `kind` is the step of its link type."""
    if offset + 6 > end:
        return TRUNCATED_LINK, offset, end, wire
    if u32(buffer, offset) >> 8 != MAGIC:
        return NOT_IP, offset, end, wire
    flags = u8(buffer, offset + 3)
    at = offset + 4
    if flags & EXTENSIONS != 0:
        at += 2 + u16(buffer, at)
    if at + 8 > end:
        return TRUNCATED_LINK, offset, end, wire
    if kind == JUNIPER_ATM_1:
        return atm(buffer, at + 4, end, wire)
    if kind == JUNIPER_ATM_2:
        return atm(buffer, at + (4 if flags & NO_LINK_HEADER != 0 else 8), end, wire)
    if flags & NO_LINK_HEADER != 0:
        return step_of_juniper(le32(buffer, at)), at + 4, end, wire
    if kind == JUNIPER_ETHERNET:
        return ETHERNET, at, end, wire
    if kind == JUNIPER_PPP:
        return ppp(buffer, at, end, wire)
    if kind == JUNIPER_FRAME_RELAY:
        return FRAME_RELAY, at, end, wire
    if kind == JUNIPER_CISCO_HDLC:
        return cisco_hdlc(buffer, at, end, wire)
    if kind == JUNIPER_GGSN:
        return step_of_juniper(le16(buffer, at)), at + 4, end, wire
    size = VOICE_HEADER
    if kind == JUNIPER_SERVICES:
        size = 16 if flags & INCOMING != 0 else 12
    return TRUNCATED_LINK if at + size > end else IPV4, at + size, end, wire
