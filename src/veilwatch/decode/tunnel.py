"""What every tunnel has in common: stepping inside, and judging whether there is an inside."""

from __future__ import annotations

from typing import Any

from veilwatch.decode.byteorder import Buffer, u8, u16
from veilwatch.decode.steps import IPV4, IPV6, OK
from veilwatch.jit import inline_kernel


@inline_kernel
def enter(p: Any) -> None:
    """Forget the outer UDP datagram; the network layer inside writes all of its fields anew."""
    p["src_port"] = 0
    p["dst_port"] = 0
    p["payload_offset"] = 0
    p["payload_length"] = 0
    p["payload_captured"] = 0
    p["checksum"] = 0


@inline_kernel
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
