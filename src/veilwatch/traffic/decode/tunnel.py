"""What every tunnel has in common: stepping inside, and judging whether there is an inside."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from veilwatch.jit import inner_kernel
from veilwatch.traffic.decode.byteorder import Buffer, u8, u16, u32
from veilwatch.traffic.decode.counters import TUNNEL_FALSE
from veilwatch.traffic.decode.ppp import cisco_hdlc, ppp
from veilwatch.traffic.decode.steps import (
    ETHERNET,
    IPV4,
    IPV6,
    OK,
    TRUNCATED_LINK,
    Walk,
    is_vlan,
)

MAX_LOOKED_AT_TAGS: Final = 3
"""Most VLAN tags in a frame that is recognised by its look alone: provider, customer, and one for
an access network. The frame itself is then read with `link.MAX_VLAN_TAGS`."""

ARP_OF_IPV4: Final = 0x00010800  # hardware Ethernet, protocol IPv4 (RFC 826)


@inner_kernel
def false_tunnel(offset: int, end: int, wire: int, counters: npt.NDArray[np.int64]) -> Walk:
    """Leave a datagram the ordinary UDP packet that it turned out to be."""
    counters[TUNNEL_FALSE] += 1
    return OK, offset, end, wire


@inner_kernel
def enter(p: Any) -> None:
    """Forget the outer UDP datagram; the network layer inside writes all of its fields anew."""
    p["src_port"] = 0
    p["dst_port"] = 0
    p["payload_offset"] = 0
    p["payload_length"] = 0
    p["payload_captured"] = 0
    p["checksum"] = 0


@inner_kernel
def inner_ip(buffer: Buffer, offset: int, end: int, wire: int) -> int:
    """Return IPV4 or IPV6 if an IP packet seems to begin at `offset` and fits, else OK.

    Only captured bytes are judged: what the capture cut is given the benefit of the doubt.
    """
    version = 4
    if offset < end:
        version = u8(buffer, offset) >> 4
    if version == 4 and offset + 20 <= wire:
        if offset + 4 > end:
            return IPV4
        header = (u8(buffer, offset) & 0x0F) * 4
        length = u16(buffer, offset + 2)
        return IPV4 if 20 <= header <= length <= wire - offset else OK
    if version == 6 and offset + 40 <= wire:
        if offset + 6 > end:
            return IPV6
        return IPV6 if 40 + u16(buffer, offset + 4) <= wire - offset else OK
    return OK


@inner_kernel
def inner_frame(buffer: Buffer, offset: int, end: int, wire: int) -> bool:
    """Whether an Ethernet frame seems to begin at `offset`, where no header says so.

    Its source has to be a station, and what its EtherType announces has to be there and to fit:
    IPv4, IPv6, ARP, or PPPoE. Where the capture ends before the EtherType the answer is no.
    """
    if offset + 14 > end or u8(buffer, offset + 6) & 1 != 0:
        return False
    kind = u16(buffer, offset + 12)
    at = offset + 14
    for _ in range(MAX_LOOKED_AT_TAGS):
        if not is_vlan(kind) or at + 4 > end:
            break
        kind = u16(buffer, at + 2)
        at += 4
    if kind == 0x0800:
        return at + 20 <= wire and (at >= end or inner_ip(buffer, at, end, wire) == IPV4)
    if kind == 0x86DD:
        return at + 40 <= wire and (at >= end or inner_ip(buffer, at, end, wire) == IPV6)
    if at + 6 > end:
        return False
    if kind == 0x0806:
        return u32(buffer, at) == ARP_OF_IPV4 and u16(buffer, at + 4) == 0x0604
    if kind == 0x8863 or kind == 0x8864:
        return u8(buffer, at) == 0x11 and at + 6 + u16(buffer, at + 4) <= wire
    return False


@inner_kernel
def fills(buffer: Buffer, offset: int, end: int, wire: int) -> int:
    """Return IPV4 or IPV6 if an IP packet begins at `offset` that ends where `wire` ends, else OK.

    Stricter than `inner_ip`: for places where only the look tells that a packet begins there.
    """
    if offset + 6 > end:
        return OK
    step = inner_ip(buffer, offset, end, wire)
    if step == IPV4 and u16(buffer, offset + 2) == wire - offset:
        return IPV4
    if step == IPV6 and u16(buffer, offset + 4) + 40 == wire - offset:
        return IPV6
    return OK


@inner_kernel
def inner_ppp(buffer: Buffer, offset: int, end: int, wire: int) -> Walk:
    """Read a PPP header with an IP packet behind it that fits.

    Step OK: something else, or nothing that PPP would carry; TRUNCATED_LINK: cut before the packet.
    """
    step, at, _, _ = ppp(buffer, offset, end, wire)
    return fitting(buffer, step, at, end, wire)


@inner_kernel
def fitting(buffer: Buffer, step: int, at: int, end: int, wire: int) -> Walk:
    """Return `step` if it is an IP packet of that version that fits, OK if it is not."""
    if step == TRUNCATED_LINK or (at >= end and at < wire):
        return TRUNCATED_LINK, at, end, wire
    if step in (IPV4, IPV6) and inner_ip(buffer, at, end, wire) == step:
        return step, at, end, wire
    return OK, at, end, wire


@inner_kernel
def pseudowire(buffer: Buffer, offset: int, end: int, wire: int) -> Walk:
    """Find what a pseudowire carries behind 0, 4, 8 or 12 bytes that nothing describes.

    L2TPv3 (RFC 3931, 4.1) puts a cookie of 0, 4 or 8 bytes there, and a sublayer of 4 or none,
    both agreed upon by a control connection that a mirror seldom shows. A frame is looked for at
    each place before anything else is: what it has to agree with is longest. Step OK: nothing.
    """
    for skip in range(0, 16, 4):
        if inner_frame(buffer, offset + skip, end, wire):
            return ETHERNET, offset + skip, end, wire
    for skip in range(0, 16, 4):
        at = offset + skip
        step = fills(buffer, at, end, wire)
        if step != OK:
            return step, at, end, wire
        if at + 4 > end:
            break
        word = u16(buffer, at)
        step = OK
        if word == 0xFF03:
            step, at, _, _ = ppp(buffer, at, end, wire)
        elif word == 0x0F00 or word == 0x8F00:
            step, at, _, _ = cisco_hdlc(buffer, at, end, wire)
        if step in (IPV4, IPV6) and fills(buffer, at, end, wire) == step:
            return step, at, end, wire
    return OK, offset, end, wire
