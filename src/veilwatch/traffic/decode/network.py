"""Network layer: IPv4 (RFC 791) and IPv6 (RFC 8200) with options, extensions and fragments.

`ip_length` comes from the IP header, never from what was captured, so that padding, wrapping
and truncation do not change it. A length of 0 is what segmentation offload leaves on the sending
host (RFC 2675 jumbograms look the same): there the frame's own length stands in, unless nothing
follows the header by its own word.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from veilwatch.jit import inner_kernel
from veilwatch.traffic.decode.byteorder import Buffer, u8, u16, u32, u64
from veilwatch.traffic.decode.steps import (
    BAD_NETWORK,
    LATER_FRAGMENT,
    TRUNCATED_NETWORK,
    Walk,
    step_of_protocol,
)
from veilwatch.traffic.decode.transport import payload
from veilwatch.traffic.hashing import mix

MAX_EXTENSION_HEADERS: Final = 16
"""Most IPv6 extension headers that are followed: RFC 8200 names eight, each once (destination
options twice), and a longer chain serves only to tire whoever reads it."""

FIRST_FRAGMENT: Final = 1
LATER: Final = 2

HOP_BY_HOP: Final = 0
ROUTING: Final = 43
FRAGMENT: Final = 44
AUTHENTICATION: Final = 51
NO_NEXT_HEADER: Final = 59  # RFC 8200, 4.7; what Teredo's bubbles are
DESTINATION: Final = 60

MAPPED: Final = 0xFFFF << 32  # ::ffff:a.b.c.d, RFC 4291, 2.5.5.2


@inner_kernel
def ipv4(buffer: Buffer, offset: int, end: int, wire: int, p: Any) -> Walk:
    """Read an IPv4 header and, behind it, an IPsec authentication header."""
    if offset < end and u8(buffer, offset) >> 4 != 4:
        return BAD_NETWORK, offset, end, wire
    if offset + 20 > end:
        return TRUNCATED_NETWORK, offset, end, wire
    header = (u8(buffer, offset) & 0x0F) * 4
    length = u16(buffer, offset + 2)
    if length == 0:
        length = wire - offset
    if header < 20 or length < header:
        return BAD_NETWORK, offset, end, wire
    if offset + header > end:
        return TRUNCATED_NETWORK, offset, end, wire

    position = u16(buffer, offset + 6)
    p["ip_version"] = 4
    p["ip_length"] = length
    p["ip_offset"] = offset
    p["ip_id"] = u16(buffer, offset + 4)
    p["dscp"] = buffer[offset + 1]
    p["ttl"] = buffer[offset + 8]
    p["protocol"] = buffer[offset + 9]
    p["src_hi"] = 0
    p["src_lo"] = MAPPED | u32(buffer, offset + 12)
    p["dst_hi"] = 0
    p["dst_lo"] = MAPPED | u32(buffer, offset + 16)

    wire = offset + length
    end = min(end, wire)
    protocol = u8(buffer, offset + 9)
    offset += header
    if position & 0x1FFF != 0:
        return later_fragment((position & 0x1FFF) * 8, offset, end, wire, p)
    p["fragment"] = 0
    if position & 0x2000 != 0:
        first_fragment(offset, p)
    if protocol == AUTHENTICATION:
        return extensions(buffer, protocol, offset, end, wire, p)
    return step_of_protocol(protocol), offset, end, wire


@inner_kernel
def ipv6(buffer: Buffer, offset: int, end: int, wire: int, p: Any) -> Walk:
    """Read an IPv6 header and its extension headers."""
    if offset < end and u8(buffer, offset) >> 4 != 6:
        return BAD_NETWORK, offset, end, wire
    if offset + 40 > end:
        return TRUNCATED_NETWORK, offset, end, wire
    length = 40 + u16(buffer, offset + 4)
    if length == 40 and u8(buffer, offset + 6) != NO_NEXT_HEADER:
        length = max(40, wire - offset)

    p["ip_version"] = 6
    p["ip_length"] = length
    p["ip_offset"] = offset
    p["ip_id"] = 0
    p["dscp"] = (u16(buffer, offset) >> 4) & 0xFF
    p["ttl"] = buffer[offset + 7]
    p["protocol"] = buffer[offset + 6]
    p["src_hi"] = u64(buffer, offset + 8)
    p["src_lo"] = u64(buffer, offset + 16)
    p["dst_hi"] = u64(buffer, offset + 24)
    p["dst_lo"] = u64(buffer, offset + 32)
    p["fragment"] = 0

    wire = offset + length
    end = min(end, wire)
    return extensions(buffer, u8(buffer, offset + 6), offset + 40, end, wire, p)


@inner_kernel
def first_fragment(offset: int, p: Any) -> None:
    """Note that the IP packet whose data begins at `offset` has further fragments."""
    p["fragment"] = FIRST_FRAGMENT
    p["fragment_key"] = fragment_key(p)
    p["fragment_start"] = offset


@inner_kernel
def later_fragment(position: int, offset: int, end: int, wire: int, p: Any) -> Walk:
    """End the walk at a fragment that holds the data of an IP packet from `position` on."""
    p["fragment"] = LATER
    p["fragment_key"] = fragment_key(p)
    p["fragment_start"] = offset
    p["fragment_offset"] = position
    payload(offset, end, wire, p)
    return LATER_FRAGMENT, offset, end, wire


@inner_kernel
def fragment_key(p: Any) -> Any:
    """Return what the fragments of one IP packet share (RFC 791 cl. 3.2, RFC 8200 cl. 4.5)."""
    return fragment_key_of(p, p["ip_id"])


@inner_kernel
def fragment_key_of(p: Any, identification: int) -> Any:
    """Return what the fragments with an identification between two addresses share.

    The protocol takes no part: an IPv6 fragment header names the first extension header. The tunnel
    does: private addresses behind two gateways use the same identifications.
    """
    key = mix(np.uint64(p["src_hi"]) ^ mix(np.uint64(p["src_lo"])))
    low = np.uint64(p["dst_lo"]) ^ np.uint64(identification)
    key = mix(key ^ np.uint64(p["dst_hi"]) ^ mix(low))
    if p["gtp_depth"] != 0:
        key = mix(key ^ np.uint64(p["outer_dst_lo"]) ^ mix(np.uint64(p["gtp_teid"])))
    return key | np.uint64(1)


@inner_kernel
def extensions(buffer: Buffer, protocol: int, offset: int, end: int, wire: int, p: Any) -> Walk:
    """Walk extension headers, of which `protocol` is the first, to the upper layer.

    `protocol` of the packet is the header that the walk stopped at: the upper layer, or the
    extension header that could not be read.
    """
    for _ in range(MAX_EXTENSION_HEADERS + 1):
        p["protocol"] = protocol
        fixed = 8
        if protocol == AUTHENTICATION:
            fixed = 12  # RFC 4302, 2
        elif (
            protocol != HOP_BY_HOP
            and protocol != ROUTING
            and protocol != DESTINATION
            and protocol != FRAGMENT
        ):
            return step_of_protocol(protocol), offset, end, wire
        if offset + fixed > wire:
            return BAD_NETWORK, offset, end, wire
        if offset + fixed > end:
            return TRUNCATED_NETWORK, offset, end, wire
        length = fixed
        if protocol == AUTHENTICATION:
            length = (u8(buffer, offset + 1) + 2) * 4
        elif protocol != FRAGMENT:
            length = (u8(buffer, offset + 1) + 1) * 8
        if length < fixed or offset + length > wire:
            return BAD_NETWORK, offset, end, wire
        if offset + length > end:
            return TRUNCATED_NETWORK, offset, end, wire
        if protocol == FRAGMENT:
            position = u16(buffer, offset + 2)
            p["ip_id"] = u32(buffer, offset + 4)
            if position & 0xFFF8 != 0:
                p["protocol"] = buffer[offset]
                return later_fragment(position & 0xFFF8, offset + 8, end, wire, p)
            if position & 1 != 0:
                first_fragment(offset + 8, p)
        protocol = u8(buffer, offset)
        offset += length
    return BAD_NETWORK, offset, end, wire
