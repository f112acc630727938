"""TZSP, the TaZmen Sniffer Protocol: how MikroTik and others send a mirror over UDP."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from veilwatch.jit import inner_kernel
from veilwatch.traffic.decode.byteorder import Buffer, u8, u16
from veilwatch.traffic.decode.counters import TUNNEL_CONTROL, TZSP
from veilwatch.traffic.decode.steps import (
    AVS,
    ETHERNET,
    FDDI,
    NOT_IP,
    OK,
    PPP,
    PRISM,
    RAW_IP,
    TOKEN_RING,
    TRUNCATED_TUNNEL,
    WLAN,
    Walk,
)
from veilwatch.traffic.decode.tunnel import enter, false_tunnel

MAX_TAGS: Final = 64
"""Most tagged fields that are followed: about twenty are defined."""

PADDING: Final = 0
END: Final = 1

RECEIVED: Final = 0
TO_SEND: Final = 1
LAST_TYPE: Final = 5  # configuration, keep-alive, port opener are the others


@inner_kernel
def tzsp(
    buffer: Buffer, offset: int, end: int, wire: int, p: Any, counters: npt.NDArray[np.int64]
) -> Walk:
    """Read a TZSP header at the start of a UDP payload, up to the tag that ends it."""
    if offset + 4 > wire:
        return false_tunnel(offset, end, wire, counters)
    if offset + 4 > end:
        return TRUNCATED_TUNNEL, offset, end, wire
    kind = u8(buffer, offset + 1)
    if buffer[offset] != 1 or kind > LAST_TYPE:
        return false_tunnel(offset, end, wire, counters)
    if kind != RECEIVED and kind != TO_SEND:
        counters[TUNNEL_CONTROL] += 1
        return OK, offset, end, wire
    step, at, _, _ = tagged(buffer, offset, end, wire)
    if step == TRUNCATED_TUNNEL:
        return TRUNCATED_TUNNEL, offset, end, wire
    if step == OK:
        return false_tunnel(offset, end, wire, counters)
    counters[TZSP] += 1
    enter(p)
    return step, at, end, wire


@inner_kernel
def tagged(buffer: Buffer, offset: int, end: int, wire: int) -> Walk:
    """Return what lies behind the tags of a header, OK if they do not end or carry no frame."""
    step = step_of_tzsp(u16(buffer, offset + 2))
    at = offset + 4
    for _ in range(MAX_TAGS):
        if at >= wire or step == NOT_IP:
            break
        if at >= end:
            return TRUNCATED_TUNNEL, at, end, wire
        tag = u8(buffer, at)
        at += 1
        if tag == END:
            if at >= wire:
                break
            return TRUNCATED_TUNNEL if at >= end else step, at, end, wire
        if tag != PADDING:
            if at >= wire:
                break
            if at >= end:
                return TRUNCATED_TUNNEL, at, end, wire
            at += 1 + u8(buffer, at)
    return OK, at, end, wire


@inner_kernel
def step_of_tzsp(encapsulated: int) -> int:
    """Return what the protocol field says is carried."""
    step = NOT_IP
    if encapsulated == 1:
        step = ETHERNET
    elif encapsulated == 2:
        step = TOKEN_RING
    elif encapsulated == 4:
        step = PPP
    elif encapsulated == 5:
        step = FDDI
    elif encapsulated == 7:
        step = RAW_IP
    elif encapsulated == 18:
        step = WLAN
    elif encapsulated == 119:
        step = PRISM
    elif encapsulated == 127:
        step = AVS
    return step


@inner_kernel
def tzsp_frame(buffer: Buffer, offset: int, end: int, wire: int) -> Walk:
    """Read a TZSP header that is the link type of a capture."""
    if offset + 4 > end:
        return NOT_IP if offset + 4 > wire else TRUNCATED_TUNNEL, offset, end, wire
    if buffer[offset] != 1:
        return NOT_IP, offset, end, wire
    step, at, _, _ = tagged(buffer, offset, end, wire)
    return NOT_IP if step == OK else step, at, end, wire
