"""Where a packet was seen, as its link header tells.

A capture of `any` shows it at each interface that it passes; a router, an access point or a bridge
that is proxy for others writes its own link address into what it forwards.
"""

from __future__ import annotations

from veilwatch.jit import inner_kernel
from veilwatch.traffic.decode.byteorder import Buffer, u8, u16, u32


@inner_kernel
def ethernet_place(buffer: Buffer, offset: int, end: int, interface: int) -> int:
    """Add to a record's interface what tells its outermost link addresses, modulo 2^16."""
    if offset + 12 > end:
        return interface
    for at in range(offset, offset + 12, 2):
        interface = 31 * interface + u16(buffer, at) & 0xFFFF
    return interface


@inner_kernel
def cooked_place(buffer: Buffer, offset: int, end: int, interface: int, second: bool) -> int:
    """Add to a record's interface what its cooked header says, modulo 2^16.

    LINKTYPE_LINUX_SLL2 (`second`) has the interface's index and the packet type (incoming,
    outgoing …), LINKTYPE_LINUX_SLL the packet type only.
    """
    if not second:
        if offset + 2 > end:
            return interface
        return (interface + u16(buffer, offset)) & 0xFFFF
    if offset + 11 > end:
        return interface
    return (interface + 8 * u32(buffer, offset + 4) + u8(buffer, offset + 10)) & 0xFFFF
