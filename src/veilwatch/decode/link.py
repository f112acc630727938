"""Link layer: from the first byte of a frame to the first IP header."""

from __future__ import annotations

from typing import Any, Final

from veilwatch.decode.byteorder import Buffer, u8, u16, u32
from veilwatch.decode.steps import (
    BAD_NETWORK,
    IPV4,
    IPV6,
    NOT_IP,
    TOO_DEEP,
    TRUNCATED_LINK,
    Walk,
    is_vlan,
    step_of_ethertype,
)
from veilwatch.jit import inline_kernel

MAX_VLAN_TAGS: Final = 8
"""Most stacked VLAN tags that are followed: provider networks stack two or three, and a deeper
stack is an attack on the decoder."""

MIN_ETHERTYPE: Final = 0x600  # below: an 802.3 length (IEEE 802.3, 3.2.6)
COOKED_802_2: Final = 4  # protocol of a cooked frame that goes on with an 802.2 header


@inline_kernel
def ethernet(buffer: Buffer, offset: int, end: int, wire: int, p: Any) -> Walk:
    """Read an Ethernet header."""
    if offset + 14 > end:
        return TRUNCATED_LINK, offset, end, wire
    ethertype = u16(buffer, offset + 12)
    step = step_of_ethertype(ethertype)
    if step != NOT_IP:  # spares most packets the call
        return step, offset + 14, end, wire
    return announced(buffer, ethertype, offset + 14, end, wire, p)


@inline_kernel
def announced(buffer: Buffer, ethertype: int, offset: int, end: int, wire: int, p: Any) -> Walk:
    """Follow an EtherType, or 802.3 length, to what it announces at `offset`.

    VLAN tags, 802.1Q 0x8100, 802.1ad 0x88A8 and the older 0x9100, nest in any order; `vlan`
    keeps the innermost identifier.
    """
    tags = 0
    while is_vlan(ethertype):
        if offset + 4 > end:
            return TRUNCATED_LINK, offset, end, wire
        if tags == MAX_VLAN_TAGS:
            return TOO_DEEP, offset, end, wire
        tags += 1
        p["vlan"] = u16(buffer, offset) & 0x0FFF
        ethertype = u16(buffer, offset + 2)
        offset += 4
    if ethertype < MIN_ETHERTYPE:
        return llc(buffer, offset, end, wire)
    return step_of_ethertype(ethertype), offset, end, wire


@inline_kernel
def llc(buffer: Buffer, offset: int, end: int, wire: int) -> Walk:
    """Read an 802.2 header: IP under its own SAP, or an EtherType behind SNAP (RFC 1042)."""
    if offset + 3 > end:
        return TRUNCATED_LINK, offset, end, wire
    saps = u16(buffer, offset)
    if u8(buffer, offset + 2) != 0x03:  # anything but unnumbered information
        return NOT_IP, offset, end, wire
    if saps == 0x0606:
        return IPV4, offset + 3, end, wire
    if saps != 0xAAAA:
        return NOT_IP, offset, end, wire
    if offset + 8 > end:
        return TRUNCATED_LINK, offset, end, wire
    organisation = u32(buffer, offset + 2) & 0xFFFFFF
    if organisation != 0 and organisation != 0x0000F8:  # RFC 1042, 802.1H
        return NOT_IP, offset, end, wire
    return step_of_ethertype(u16(buffer, offset + 6)), offset + 8, end, wire


@inline_kernel
def cooked(buffer: Buffer, type_at: int, payload: int, end: int, wire: int, p: Any) -> Walk:
    """Read a Linux cooked header (LINKTYPE_LINUX_SLL, _SLL2) by the place of its protocol."""
    if payload > end:
        return TRUNCATED_LINK, payload, end, wire
    protocol = u16(buffer, type_at)
    if protocol == COOKED_802_2:
        return llc(buffer, payload, end, wire)
    if protocol < MIN_ETHERTYPE:  # other types of Linux' own: Novell 802.3, CAN …
        return NOT_IP, payload, end, wire
    return announced(buffer, protocol, payload, end, wire, p)


@inline_kernel
def loopback(buffer: Buffer, offset: int, end: int, wire: int) -> Walk:
    """Read the 4-byte address family of BSD loopback, in either byte order.

    IPv4 is 2 everywhere. IPv6 is 10 on Linux, 23 on Windows, 24 on NetBSD and OpenBSD, 28 on
    FreeBSD, 30 on macOS.
    """
    if offset + 4 > end:
        return TRUNCATED_LINK, offset, end, wire
    family = u32(buffer, offset)
    if family & 0x00FFFFFF == 0:  # a small number, least significant byte first
        family >>= 24
    if family == 2:
        return IPV4, offset + 4, end, wire
    if family == 10 or family == 23 or family == 24 or family == 28 or family == 30:
        return IPV6, offset + 4, end, wire
    return NOT_IP, offset, end, wire


@inline_kernel
def raw_ip(buffer: Buffer, offset: int, end: int, wire: int) -> Walk:
    """Tell IPv4 from IPv6 by the version field, where nothing else does."""
    version = u8(buffer, offset) >> 4
    if version == 4:
        return IPV4, offset, end, wire
    if version == 6:
        return IPV6, offset, end, wire
    return BAD_NETWORK, offset, end, wire
