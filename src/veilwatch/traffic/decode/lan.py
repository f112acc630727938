"""Local networks that are no plain Ethernet: Token Ring, FDDI, ARCNET, Fibre Channel, cable."""

from __future__ import annotations

from typing import Any, Final

from veilwatch.jit import inner_kernel
from veilwatch.traffic.decode.byteorder import Buffer, u8, u16
from veilwatch.traffic.decode.link import announced, llc
from veilwatch.traffic.decode.steps import (
    ETHERNET,
    IPV4,
    IPV6,
    NOT_IP,
    TRUNCATED_LINK,
    Walk,
    step_of_ethertype,
)

FDDI_CLASS: Final = 0xF0
FDDI_LLC: Final = 0x50  # asynchronous, 802.2

SOURCE_ROUTED: Final = 0x80  # of the first byte of a Token Ring source address

ARCNET_IPV4: Final = 0xD4  # RFC 1201
ARCNET_IPV6: Final = 0xC4
ARCNET_IPV4_OLD: Final = 0xF0  # RFC 1051: no fragmentation header follows
ARCNET_EXCEPTION: Final = 0xFF

PREAMBLE: Final = 0x55
START: Final = 0xD5  # start of a frame; of an express one in IEEE 802.3br
MAX_PREAMBLE: Final = 7
CONTINUED: Final = (0x61, 0x52, 0x9E, 0x2A)  # IEEE 802.3br: a fragment after the first
INITIAL: Final = (0xE6, 0x4C, 0x7F, 0xB3)

GRH: Final = 40  # global routing header of InfiniBand


@inner_kernel
def token_ring(buffer: Buffer, offset: int, end: int, wire: int) -> Walk:
    """Read a Token Ring header (IEEE 802.5) with its source route."""
    if offset + 15 > end:
        return TRUNCATED_LINK, offset, end, wire
    if u8(buffer, offset + 1) >> 6 != 1:  # not 802.2
        return NOT_IP, offset, end, wire
    size = 14
    if u8(buffer, offset + 8) & SOURCE_ROUTED != 0:
        size += u8(buffer, offset + 14) & 0x1F
    return llc(buffer, offset + size, end, wire)


@inner_kernel
def fddi(buffer: Buffer, offset: int, end: int, wire: int) -> Walk:
    """Read an FDDI header."""
    if offset + 13 > end:
        return TRUNCATED_LINK, offset, end, wire
    if u8(buffer, offset) & FDDI_CLASS != FDDI_LLC:
        return NOT_IP, offset, end, wire
    return llc(buffer, offset + 13, end, wire)


@inner_kernel
def fibre_channel(buffer: Buffer, offset: int, end: int, wire: int) -> Walk:
    """Read the network header of IP over Fibre Channel (RFC 2625, 3.2)."""
    if offset + 16 > end:
        return TRUNCATED_LINK, offset, end, wire
    return llc(buffer, offset + 16, end, wire)


@inner_kernel
def firewire(buffer: Buffer, offset: int, end: int, wire: int, p: Any) -> Walk:
    """Read the header of LINKTYPE_APPLE_IP_OVER_IEEE1394: long addresses and an EtherType."""
    if offset + 18 > end:
        return TRUNCATED_LINK, offset, end, wire
    return announced(buffer, u16(buffer, offset + 16), offset + 18, end, wire, p)


@inner_kernel
def arcnet(buffer: Buffer, addresses: int, offset: int, end: int, wire: int) -> Walk:
    """Read an ARCNET header whose `addresses` (and, on Linux, offsets) stand before the type."""
    at = offset + addresses
    if at + 2 > end:
        return TRUNCATED_LINK, offset, end, wire
    kind = u8(buffer, at)
    step = NOT_IP
    size = 4  # type, flag, sequence number
    if kind == ARCNET_IPV4:
        step = IPV4
    elif kind == ARCNET_IPV6:
        step = IPV6
    elif kind == ARCNET_IPV4_OLD:
        step = IPV4
        size = 1
    if size == 4 and u8(buffer, at + 1) == ARCNET_EXCEPTION:
        size = 8
    if at + size > end:
        return TRUNCATED_LINK, offset, end, wire
    if size == 4 and u8(buffer, at + 1) != 0 and u8(buffer, at + 1) & 1 == 0:
        step = NOT_IP  # a later fragment (RFC 1201, 2)
    return step, at + size, end, wire


@inner_kernel
def mpacket(buffer: Buffer, offset: int, end: int, wire: int) -> Walk:
    """Read the preamble of LINKTYPE_ETHERNET_MPACKET; only a fragment's first part has a header."""
    at = offset
    for _ in range(MAX_PREAMBLE):
        if at >= end or u8(buffer, at) != PREAMBLE:
            break
        at += 1
    if at >= end:
        return TRUNCATED_LINK, offset, end, wire
    mark = u8(buffer, at)
    if mark == START or mark in INITIAL:
        return ETHERNET, at + 1, end, wire
    return NOT_IP, offset, end, wire


@inner_kernel
def docsis(buffer: Buffer, offset: int, end: int, wire: int) -> Walk:
    """Read a DOCSIS MAC header (CM-SP-MULPIv3.1, 6.2); of its frames those with packets."""
    if offset + 6 > end:
        return TRUNCATED_LINK, offset, end, wire
    control = u8(buffer, offset)
    size = 6
    if control & 1 != 0:  # an extended header of a length stated by the second byte
        size += u8(buffer, offset + 1)
    if control >> 6 != 0:
        return NOT_IP, offset, end, wire
    if offset + size > end:
        return TRUNCATED_LINK, offset, end, wire
    return ETHERNET, offset + size, end, wire


@inner_kernel
def ipoib(buffer: Buffer, offset: int, end: int, wire: int) -> Walk:
    """Read IP over InfiniBand (RFC 4391, 6) behind a global routing header."""
    if offset + GRH + 4 > end:
        return TRUNCATED_LINK, offset, end, wire
    return step_of_ethertype(u16(buffer, offset + GRH)), offset + GRH + 4, end, wire


@inner_kernel
def netanalyzer_transparent(buffer: Buffer, offset: int, end: int, wire: int) -> Walk:
    """Read netANALYZER's header of four bytes, and the preamble that its transparent mode keeps."""
    if offset + 4 > end:
        return TRUNCATED_LINK, offset, end, wire
    return mpacket(buffer, offset + 4, end, wire)


@inner_kernel
def switch_tag(buffer: Buffer, size: int, offset: int, end: int, wire: int, p: Any) -> Walk:
    """Read an Ethernet header with a switch's tag of `size` bytes behind its MAC addresses."""
    if offset + 14 + size > end:
        return TRUNCATED_LINK, offset, end, wire
    at = offset + 12 + size
    return announced(buffer, u16(buffer, at), at + 2, end, wire, p)
