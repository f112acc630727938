"""L2TP versions 2 (RFC 2661) and 3 (RFC 3931): sessions of subscribers towards a corporate network.

Control messages, and PPP that negotiates or is encrypted, stay a flow of the tunnel's end points.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from veilwatch.jit import inner_kernel
from veilwatch.traffic.decode.byteorder import Buffer, u16, u32
from veilwatch.traffic.decode.counters import L2TP, TUNNEL_CONTROL, TUNNEL_NOT_IP
from veilwatch.traffic.decode.steps import OK, TRUNCATED_LINK, TRUNCATED_TUNNEL, Walk
from veilwatch.traffic.decode.transport import payload
from veilwatch.traffic.decode.tunnel import enter, false_tunnel, inner_ppp, pseudowire

CONTROL: Final = 0x8000
LENGTH: Final = 0x4000
SEQUENCE: Final = 0x0800
OFFSET: Final = 0x0200
RESERVED: Final = 0x34F0  # of a data message of version 2

CONTROL_HEADER: Final = 0xC800  # type, length and sequence; nothing else but the version
CONTROL_BYTES: Final = 12


@inner_kernel
def l2tp(
    buffer: Buffer, offset: int, end: int, wire: int, p: Any, counters: npt.NDArray[np.int64]
) -> Walk:
    """Read a message of either version at the start of a UDP payload."""
    if offset + 8 > wire:
        return false_tunnel(offset, end, wire, counters)
    if offset + 8 > end:
        return TRUNCATED_TUNNEL, offset, end, wire
    flags = u16(buffer, offset)
    version = flags & 0x0F
    if flags & CONTROL != 0:
        if not is_control(buffer, offset, wire):
            return false_tunnel(offset, end, wire, counters)
        counters[TUNNEL_CONTROL] += 1
        return OK, offset, end, wire
    if version == 2:
        return data_message(buffer, flags, offset, end, wire, p, counters)
    if flags != 3 or u16(buffer, offset + 2) != 0 or u32(buffer, offset + 4) == 0:
        return false_tunnel(offset, end, wire, counters)
    step, at, _, _ = session(buffer, offset + 8, end, wire, counters)
    if step in (OK, TRUNCATED_TUNNEL):
        return step, offset, end, wire
    enter(p)
    return step, at, end, wire


@inner_kernel
def is_control(buffer: Buffer, offset: int, wire: int) -> bool:
    """Whether a message that says so is a control message: flags, version and length agree."""
    flags = u16(buffer, offset)
    size = u16(buffer, offset + 2)
    return (
        flags & ~0x0F == CONTROL_HEADER
        and flags & 0x0F in (2, 3)
        and size >= CONTROL_BYTES
        and size == wire - offset
    )


@inner_kernel
def data_message(
    buffer: Buffer,
    flags: int,
    offset: int,
    end: int,
    wire: int,
    p: Any,
    counters: npt.NDArray[np.int64],
) -> Walk:
    """Read a data message of version 2, and PPP inside it (RFC 2661, 3.1)."""
    identifiers = offset + (4 if flags & LENGTH != 0 else 2)
    at = identifiers + 4
    if flags & SEQUENCE != 0:
        at += 4
    offset_at = at
    if flags & OFFSET != 0:
        at += 2
    if at >= wire or flags & RESERVED != 0:
        return false_tunnel(offset, end, wire, counters)
    if at > end:
        return TRUNCATED_TUNNEL, offset, end, wire
    stated = offset + u16(buffer, offset + 2) if flags & LENGTH != 0 else wire
    if flags & OFFSET != 0:
        at += u16(buffer, offset_at)
    if u16(buffer, identifiers) == 0 or u16(buffer, identifiers + 2) == 0:
        return false_tunnel(offset, end, wire, counters)
    if at >= stated or stated > wire:
        return false_tunnel(offset, end, wire, counters)
    inner_end = min(end, stated)
    step, inside, _, _ = inner_ppp(buffer, at, inner_end, stated)
    if step == TRUNCATED_LINK and end < stated:
        return TRUNCATED_TUNNEL, offset, end, wire
    if step in (OK, TRUNCATED_LINK):
        counters[TUNNEL_NOT_IP] += 1
        return OK, offset, end, wire
    counters[L2TP] += 1
    enter(p)
    return step, inside, inner_end, stated


@inner_kernel
def session(
    buffer: Buffer, offset: int, end: int, wire: int, counters: npt.NDArray[np.int64]
) -> Walk:
    """Read what a data message of version 3 carries behind its session identifier."""
    step, at, _, _ = pseudowire(buffer, offset, end, wire)
    if step == OK:
        if offset >= end and offset < wire:
            return TRUNCATED_TUNNEL, offset, end, wire
        counters[TUNNEL_NOT_IP] += 1
        return OK, offset, end, wire
    counters[L2TP] += 1
    return step, at, end, wire


@inner_kernel
def l2tp_in_ip(
    buffer: Buffer, offset: int, end: int, wire: int, p: Any, counters: npt.NDArray[np.int64]
) -> Walk:
    """Read a message of version 3 right above IP (RFC 3931, 4.1.1): identifier 0 is control."""
    if offset + 4 > wire:
        return payload(offset, end, wire, p)
    if offset + 4 > end:
        return TRUNCATED_TUNNEL, offset, end, wire
    if u32(buffer, offset) == 0:
        if offset + 8 <= end and is_control(buffer, offset + 4, wire):
            counters[TUNNEL_CONTROL] += 1
        return payload(offset, end, wire, p)
    step, at, _, _ = session(buffer, offset + 4, end, wire, counters)
    if step == OK:
        return payload(offset, end, wire, p)
    return step, at, end, wire
