"""Frame Relay (RFC 2427) and what ATM's adaptation layer 5 carries (RFC 2684, RFC 2364)."""

from __future__ import annotations

from typing import Final

from veilwatch.jit import inner_kernel
from veilwatch.traffic.decode.byteorder import Buffer, u8, u16, u32
from veilwatch.traffic.decode.link import llc, nlpid
from veilwatch.traffic.decode.steps import (
    ETHERNET,
    NOT_IP,
    OK,
    TRUNCATED_LINK,
    Walk,
    step_of_ethertype,
)
from veilwatch.traffic.decode.tunnel import inner_frame, inner_ip, inner_ppp

MAX_ADDRESS_BYTES: Final = 4
"""Longest Q.922 address field."""

UNNUMBERED: Final = 0x03
SNAP: Final = 0x80
BRIDGED_BY: Final = 0x0080C2  # IEEE 802.1, as the organisation of a SNAP header
BRIDGED_802_3: Final = (1, 7)  # with and without the frame check sequence

LANE_FRAMES: Final = 1  # traffic types of LINKTYPE_SUNATM
LLC_MULTIPLEXED: Final = 2
VC_MULTIPLEXED: Final = 0


@inner_kernel
def frame_relay(buffer: Buffer, offset: int, end: int, wire: int) -> Walk:
    """Read a Frame Relay header: an NLPID behind it, or an EtherType as Cisco has it."""
    size = 0
    last = 0
    while last == 0:
        if offset + size >= end:
            return TRUNCATED_LINK, offset, end, wire
        if size == MAX_ADDRESS_BYTES:
            return NOT_IP, offset, end, wire
        last = u8(buffer, offset + size) & 1  # no further byte of the address
        size += 1
    at = offset + size
    if at + 2 > end:
        return TRUNCATED_LINK, offset, end, wire
    if u8(buffer, at) != UNNUMBERED:
        return step_of_ethertype(u16(buffer, at)), at + 2, end, wire
    at += 1
    if u8(buffer, at) == 0:  # padding to an even number of bytes
        at += 1
    if at < end and u8(buffer, at) != SNAP:
        return nlpid(buffer, at, end, wire)
    if at + 6 > end:
        return TRUNCATED_LINK, offset, end, wire
    kind = u16(buffer, at + 4)
    organisation = u32(buffer, at) & 0xFFFFFF
    if organisation == BRIDGED_BY and kind in BRIDGED_802_3:
        return ETHERNET, at + 6, end, wire
    if organisation != 0:
        return NOT_IP, at, end, wire
    return step_of_ethertype(kind), at + 6, end, wire


@inner_kernel
def atm(buffer: Buffer, offset: int, end: int, wire: int) -> Walk:
    """Read the content of an AAL5 packet: 802.2, or one protocol for the whole virtual channel."""
    if offset + 3 > end:
        return TRUNCATED_LINK, offset, end, wire
    saps = u16(buffer, offset)
    if u8(buffer, offset + 2) == UNNUMBERED and saps in (0xAAAA, 0xFEFE, 0x0606):
        if saps == 0xAAAA and offset + 8 <= end:
            bridged = u32(buffer, offset + 2) & 0xFFFFFF == BRIDGED_BY
            if bridged and u16(buffer, offset + 6) in BRIDGED_802_3:
                if offset + 10 > end:
                    return TRUNCATED_LINK, offset, end, wire
                return ETHERNET, offset + 10, end, wire  # two bytes of padding
        return llc(buffer, offset, end, wire)
    step = inner_ip(buffer, offset, end, wire)
    if step != OK:
        return step, offset, end, wire
    if saps == 0 and inner_frame(buffer, offset + 2, end, wire):
        return ETHERNET, offset + 2, end, wire
    step, at, _, _ = inner_ppp(buffer, offset, end, wire)
    return NOT_IP if step == OK else step, at, end, wire


@inner_kernel
def sun_atm(buffer: Buffer, offset: int, end: int, wire: int) -> Walk:
    """Read the header of LINKTYPE_SUNATM: kind of traffic, virtual path and channel."""
    if offset + 4 > end:
        return TRUNCATED_LINK, offset, end, wire
    kind = u8(buffer, offset) & 0x0F
    if kind == LANE_FRAMES:
        return lane(buffer, offset + 4, end, wire)
    if kind in (LLC_MULTIPLEXED, VC_MULTIPLEXED):
        return atm(buffer, offset + 4, end, wire)
    return NOT_IP, offset, end, wire


@inner_kernel
def lane(buffer: Buffer, offset: int, end: int, wire: int) -> Walk:
    """Read ATM LAN emulation's header: an identifier of the client, 0xFF00 for control."""
    if offset + 2 > end:
        return TRUNCATED_LINK, offset, end, wire
    return NOT_IP if u16(buffer, offset) == 0xFF00 else ETHERNET, offset + 2, end, wire
