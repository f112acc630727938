"""Link types whose frames begin with a record of the system or the card that captured them."""

from __future__ import annotations

from typing import Final

from veilwatch.jit import inner_kernel
from veilwatch.traffic.decode.byteorder import Buffer, le16, le32, u8, u16, u32
from veilwatch.traffic.decode.link import raw_ip, step_of_family
from veilwatch.traffic.decode.ppp import hdlc
from veilwatch.traffic.decode.steps import (
    COOKED,
    COOKED_V2,
    ETHERNET,
    IPV4,
    IPV6,
    NOT_IP,
    PKTAP,
    PPI,
    TRUNCATED_LINK,
    Walk,
    step_of_ethertype,
    step_of_link,
)
from veilwatch.traffic.decode.wan import atm
from veilwatch.traffic.decode.wireless import skipped

ENC_HEADER: Final = 12
PFLOG_OLD_HEADER: Final = 28
MIN_PFLOG: Final = 45
"""Shortest length that a record of pflog states: that of OpenBSD 3.4, without user identifiers."""

IPNET_HEADER: Final = 24

MAX_ATTRIBUTES: Final = 64
"""Most attributes of a packet that NFLOG wrote: Linux defines about twenty."""
NFULA_PAYLOAD: Final = 9

MIN_PKTAP: Final = 12
PKTAP_PACKET: Final = 1

SYMANTEC_HEADER: Final = 44
SYMANTEC_TYPE: Final = 6

MAX_ERF_EXTENSIONS: Final = 16
"""Most extension headers of an ERF record: Endace's cards add two or three."""
ERF_HEADER: Final = 16
ERF_MORE: Final = 0x80
ERF_HDLC: Final = (1, 5, 10, 15, 17, 19)
ERF_MULTI_CHANNEL: Final = (5, 17)  # four bytes say which channel
ERF_ETHERNET: Final = (2, 11, 16, 20)
ERF_AAL5: Final = (4, 9)


@inner_kernel
def enc(buffer: Buffer, offset: int, end: int, wire: int) -> Walk:
    """Read enc(4)'s record of IPsec: address family in its host's byte order, SPI, flags."""
    if offset + ENC_HEADER > end:
        return TRUNCATED_LINK, offset, end, wire
    family = u32(buffer, offset)
    if family & 0x00FFFFFF == 0:
        family >>= 24
    return step_of_family(family), offset + ENC_HEADER, end, wire


@inner_kernel
def pflog(buffer: Buffer, offset: int, end: int, wire: int) -> Walk:
    """Read pflog(4)'s record, whose length each version states, padded to four bytes."""
    if offset + 2 > end:
        return TRUNCATED_LINK, offset, end, wire
    size = u8(buffer, offset)
    if size < MIN_PFLOG:
        return NOT_IP, offset, end, wire
    family = step_of_family(u8(buffer, offset + 1))
    return skipped(family, (size + 3) & ~3, offset, end, wire)


@inner_kernel
def pflog_old(buffer: Buffer, offset: int, end: int, wire: int) -> Walk:
    """Read pflog(4)'s record as it was before OpenBSD 3.4."""
    if offset + PFLOG_OLD_HEADER > end:
        return TRUNCATED_LINK, offset, end, wire
    return step_of_family(u32(buffer, offset)), offset + PFLOG_OLD_HEADER, end, wire


@inner_kernel
def ipnet(buffer: Buffer, offset: int, end: int, wire: int) -> Walk:
    """Read the record of Solaris' ipnet: version 1, address family, zones and interfaces."""
    if offset + IPNET_HEADER > end:
        return TRUNCATED_LINK, offset, end, wire
    return step_of_family(u8(buffer, offset + 1)), offset + IPNET_HEADER, end, wire


@inner_kernel
def nflog(buffer: Buffer, offset: int, end: int, wire: int) -> Walk:
    """Read attributes (length, type, value) in their host's byte order up to the packet.

    A type is below 256: the first attribute therefore shows the order.
    """
    if offset + 8 > end:
        return TRUNCATED_LINK, offset, end, wire
    at = offset + 4
    little = buffer[at + 3] == 0
    for _ in range(MAX_ATTRIBUTES):
        if at + 4 > end:
            return TRUNCATED_LINK if at < wire else NOT_IP, at, end, wire
        size = le16(buffer, at) if little else u16(buffer, at)
        kind = le16(buffer, at + 2) if little else u16(buffer, at + 2)
        if size < 4 or at + size > wire:
            return NOT_IP, at, end, wire
        if kind == NFULA_PAYLOAD:
            if at + 4 >= end:
                return TRUNCATED_LINK, at, end, wire
            return raw_ip(buffer, at + 4, min(end, at + size), at + size)
        at += (size + 3) & ~3
    return NOT_IP, at, end, wire


@inner_kernel
def ppi(buffer: Buffer, offset: int, end: int, wire: int) -> Walk:
    """Read a PPI header: its length, and the link type of the frame behind it."""
    if offset + 8 > end:
        return TRUNCATED_LINK, offset, end, wire
    size = le16(buffer, offset + 2)
    if buffer[offset] != 0 or size < 8:
        return NOT_IP, offset, end, wire
    return recorded(buffer, le32(buffer, offset + 4), size, offset, end, wire)


@inner_kernel
def pktap(buffer: Buffer, offset: int, end: int, wire: int) -> Walk:
    """Read the record of macOS' pktap: its length, and the link type of the frame behind it."""
    if offset + MIN_PKTAP > end:
        return TRUNCATED_LINK, offset, end, wire
    size = le32(buffer, offset)
    if size < MIN_PKTAP or le32(buffer, offset + 4) != PKTAP_PACKET:
        return NOT_IP, offset, end, wire
    return recorded(buffer, le32(buffer, offset + 8), size, offset, end, wire)


@inner_kernel
def recorded(buffer: Buffer, link: int, size: int, offset: int, end: int, wire: int) -> Walk:
    """Go on with a frame of another link type; records in records are refused.

    So are cooked frames: their header is a record of the system, too.
    """
    step = step_of_link(link)
    if step in (PPI, PKTAP, COOKED, COOKED_V2):
        step = NOT_IP
    if offset + size >= end:
        return TRUNCATED_LINK, offset, end, wire
    return step, offset + size, end, wire


@inner_kernel
def symantec(buffer: Buffer, offset: int, end: int, wire: int) -> Walk:
    """Read the record of Symantec's firewall: an EtherType among zeros."""
    if offset + SYMANTEC_HEADER > end:
        return TRUNCATED_LINK, offset, end, wire
    kind = u16(buffer, offset + SYMANTEC_TYPE)
    return step_of_ethertype(kind), offset + SYMANTEC_HEADER, end, wire


@inner_kernel
def erf(buffer: Buffer, offset: int, end: int, wire: int) -> Walk:
    """Read an Endace record with its extension headers."""
    if offset + ERF_HEADER > end:
        return TRUNCATED_LINK, offset, end, wire
    kind = u8(buffer, offset + 8) & 0x7F
    more = u8(buffer, offset + 8) & ERF_MORE
    at = offset + ERF_HEADER
    for _ in range(MAX_ERF_EXTENSIONS):
        if more == 0:
            break
        if at >= end:
            return TRUNCATED_LINK, offset, end, wire
        more = u8(buffer, at) & ERF_MORE
        at += 8
    if more != 0:
        return NOT_IP, offset, end, wire
    if kind in ERF_ETHERNET:  # two bytes of padding
        return TRUNCATED_LINK if at + 2 > end else ETHERNET, at + 2, end, wire
    if kind == 22:
        return IPV4, at, end, wire
    if kind == 23:
        return IPV6, at, end, wire
    if kind in ERF_AAL5:
        at += 4 if kind == 4 else 8
        return atm(buffer, at, end, wire)
    if kind in ERF_HDLC:
        at += 4 if kind in ERF_MULTI_CHANNEL else 0
        return hdlc(buffer, at, end, wire)
    return NOT_IP, at, end, wire
