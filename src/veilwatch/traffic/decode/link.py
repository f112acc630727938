"""Link layer: Ethernet and its tags, 802.2, BSD loopback, raw IP."""

from __future__ import annotations

from typing import Any, Final

from veilwatch.jit import inner_kernel
from veilwatch.traffic.decode.byteorder import Buffer, u8, u16, u32
from veilwatch.traffic.decode.ppp import ppp
from veilwatch.traffic.decode.steps import (
    BAD_NETWORK,
    IPV4,
    IPV6,
    NOT_IP,
    TOO_DEEP,
    TRUNCATED_LINK,
    TRUNCATED_NETWORK,
    Walk,
    is_vlan,
    step_of_ethertype,
)

MAX_VLAN_TAGS: Final = 8
"""Most stacked VLAN tags that are followed: provider networks stack two or three, and a deeper
stack is an attack on the decoder."""

MIN_ETHERTYPE: Final = 0x600  # below: an 802.3 length (IEEE 802.3, 3.2.6)

INET6_FAMILIES: Final = (10, 23, 24, 26, 28, 30)

VN_TAG: Final = 0x8926  # Cisco's 802.1Qbh
E_TAG: Final = 0x893F  # IEEE 802.1BR
HSR: Final = 0x892F  # IEC 62439-3
R_TAG: Final = 0xF1C1  # IEEE 802.1CB
TRUSTSEC: Final = 0x8909  # Cisco's metadata
EDSA: Final = 0xDADA  # tag of a Marvell switch
ARISTA: Final = 0xD28B  # time stamps of a tap
ARISTA_48_BITS: Final = 0x20  # of the version


@inner_kernel
def ethernet(buffer: Buffer, offset: int, end: int, wire: int, p: Any) -> Walk:
    """Read an Ethernet header."""
    if offset + 14 > end:
        return TRUNCATED_LINK, offset, end, wire
    ethertype = u16(buffer, offset + 12)
    step = step_of_ethertype(ethertype)
    if step != NOT_IP:  # spares most packets the call
        return step, offset + 14, end, wire
    return announced(buffer, ethertype, offset + 14, end, wire, p)


@inner_kernel
def announced(buffer: Buffer, ethertype: int, offset: int, end: int, wire: int, p: Any) -> Walk:
    """Follow an EtherType, or 802.3 length, to what it announces at `offset`.

    VLAN tags, 802.1Q 0x8100, 802.1ad 0x88A8 and the older 0x9100, nest in any order with those of
    other kinds; `vlan` keeps the innermost identifier.
    """
    tags = 0
    size = tag_size(buffer, ethertype, offset, end)
    while size > 0:
        if offset + size > end:
            return TRUNCATED_LINK, offset, end, wire
        if tags == MAX_VLAN_TAGS:
            return TOO_DEEP, offset, end, wire
        tags += 1
        if is_vlan(ethertype):
            p["vlan"] = u16(buffer, offset) & 0x0FFF
        offset += size
        ethertype = u16(buffer, offset - 2)
        size = tag_size(buffer, ethertype, offset, end)
    if ethertype < MIN_ETHERTYPE:
        return llc(buffer, offset, end, wire)
    return step_of_ethertype(ethertype), offset, end, wire


@inner_kernel
def tag_size(buffer: Buffer, ethertype: int, offset: int, end: int) -> int:
    """Return the length of a tag with the EtherType that ends it, 0 if none is announced."""
    if is_vlan(ethertype):
        return 4
    if ethertype in (VN_TAG, HSR, R_TAG):
        return 6
    if ethertype in (E_TAG, TRUSTSEC, EDSA):
        return 8
    if ethertype == ARISTA:
        short = offset + 4 <= end and u16(buffer, offset + 2) & ARISTA_48_BITS != 0
        return 12 if short else 14
    return 0


@inner_kernel
def llc(buffer: Buffer, offset: int, end: int, wire: int) -> Walk:
    """Read an 802.2 header: IP under its own SAP, or what SNAP (RFC 1042) or an NLPID announces."""
    if offset + 3 > end:
        return TRUNCATED_LINK, offset, end, wire
    saps = u16(buffer, offset)
    if u8(buffer, offset + 2) != 0x03:  # anything but unnumbered information
        return NOT_IP, offset, end, wire
    if saps == 0x0606:
        return IPV4, offset + 3, end, wire
    if saps == 0xFEFE:
        return nlpid(buffer, offset + 3, end, wire)
    if saps != 0xAAAA:
        return NOT_IP, offset, end, wire
    if offset + 8 > end:
        return TRUNCATED_LINK, offset, end, wire
    organisation = u32(buffer, offset + 2) & 0xFFFFFF
    if organisation != 0 and organisation != 0x0000F8:  # RFC 1042, 802.1H
        return NOT_IP, offset, end, wire
    return step_of_ethertype(u16(buffer, offset + 6)), offset + 8, end, wire


@inner_kernel
def nlpid(buffer: Buffer, offset: int, end: int, wire: int) -> Walk:
    """Read an identifier of ISO/IEC TR 9577, as ATM and Frame Relay have it (RFC 2684, 2427)."""
    if offset + 1 > end:
        return TRUNCATED_LINK, offset, end, wire
    kind = u8(buffer, offset)
    if kind == 0xCC:
        return IPV4, offset + 1, end, wire
    if kind == 0x8E:
        return IPV6, offset + 1, end, wire
    if kind == 0xCF:
        return ppp(buffer, offset + 1, end, wire)  # RFC 2364, RFC 1973
    return NOT_IP, offset, end, wire


@inner_kernel
def step_of_family(family: int) -> int:
    """Return what an address family leads to: its number for IPv6 differs from system to system.

    IPv4 is 2 everywhere. IPv6 is 10 on Linux, 23 on Windows, 24 on NetBSD and OpenBSD, 26 on
    Solaris, 28 on FreeBSD, 30 on macOS.
    """
    if family == 2:
        return IPV4
    if family in INET6_FAMILIES:
        return IPV6
    return NOT_IP


@inner_kernel
def loopback(buffer: Buffer, offset: int, end: int, wire: int) -> Walk:
    """Read the 4-byte address family of BSD loopback, in either byte order.

    Some tools put an EtherType there.
    """
    if offset + 4 > end:
        return TRUNCATED_LINK, offset, end, wire
    family = u32(buffer, offset)
    if family & 0x00FFFFFF == 0:  # a small number, least significant byte first
        family >>= 24
    if family == 0x0800:
        return IPV4, offset + 4, end, wire
    if family == 0x86DD:
        return IPV6, offset + 4, end, wire
    return step_of_family(family), offset + 4, end, wire


@inner_kernel
def raw_ip(buffer: Buffer, offset: int, end: int, wire: int) -> Walk:
    """Tell IPv4 from IPv6 by the version field, where nothing else does."""
    if offset >= end:
        return TRUNCATED_NETWORK, offset, end, wire
    version = u8(buffer, offset) >> 4
    if version == 4:
        return IPV4, offset, end, wire
    if version == 6:
        return IPV6, offset, end, wire
    return BAD_NETWORK, offset, end, wire
