"""CAPWAP's data channel (RFC 5415, 4; RFC 5416): Wi-Fi access points towards their controller.

A frame over too small an MTU comes in fragments of CAPWAP's own. The first one is read and says
whose the others are, as a first fragment of IP does.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from veilwatch.jit import inner_kernel
from veilwatch.traffic.decode.byteorder import Buffer, u8, u16
from veilwatch.traffic.decode.counters import CAPWAP, CAPWAP_FRAGMENT, TUNNEL_CONTROL
from veilwatch.traffic.decode.network import LATER, fragment_key_of
from veilwatch.traffic.decode.steps import (
    ETHERNET,
    LATER_FRAGMENT,
    OK,
    TRUNCATED_TUNNEL,
    Walk,
)
from veilwatch.traffic.decode.transport import payload
from veilwatch.traffic.decode.tunnel import enter, false_tunnel
from veilwatch.traffic.decode.wireless import swapped_wlan

DTLS: Final = 1  # of the preamble's type
IEEE_802_11: Final = 1  # of the wireless binding; Cisco's controllers leave it 0

NATIVE: Final = 0x100  # T: the frame is one of the wireless binding, else of IEEE 802.3
FRAGMENT: Final = 0x80
LAST: Final = 0x40
WIRELESS: Final = 0x20
RADIO: Final = 0x10
KEEP_ALIVE: Final = 0x08
RESERVED: Final = 0x07

NO_IP_ID: Final = 1 << 32
"""Keeps identifications of CAPWAP apart from those of IP, which are shorter."""


@inner_kernel
def capwap(
    buffer: Buffer, offset: int, end: int, wire: int, p: Any, counters: npt.NDArray[np.int64]
) -> Walk:
    """Read a CAPWAP header at the start of a UDP payload."""
    if offset + 8 > wire:
        return false_tunnel(offset, end, wire, counters)
    if offset + 8 > end:
        return TRUNCATED_TUNNEL, offset, end, wire
    if buffer[offset] == DTLS and u8(buffer, offset + 4) in (20, 21, 22, 23, 25):
        counters[TUNNEL_CONTROL] += 1
        return OK, offset, end, wire
    size = (u8(buffer, offset + 1) >> 3) * 4
    flags = u16(buffer, offset + 2) & 0x1FF
    binding = (u16(buffer, offset + 2) >> 9) & 0x1F
    position = (u16(buffer, offset + 6) >> 3) * 8
    native = flags & NATIVE != 0
    if (
        buffer[offset] != 0
        or size < 8
        or offset + size > wire
        or flags & RESERVED != 0
        or u8(buffer, offset + 7) & 0x07 != 0
        or (native and binding > IEEE_802_11)
        or (position != 0 and flags & FRAGMENT == 0)
        # CAPWAP cuts frames so that IP need not: who does both is something else.
        or (flags & FRAGMENT != 0 and p["fragment"] != 0)
    ):
        return false_tunnel(offset, end, wire, counters)
    if flags & KEEP_ALIVE != 0:
        counters[TUNNEL_CONTROL] += 1
        return OK, offset, end, wire
    if offset + size >= wire:
        return false_tunnel(offset, end, wire, counters)
    if offset + size >= end:
        return TRUNCATED_TUNNEL, offset, end, wire
    at = offset + size
    if flags & FRAGMENT != 0:
        p["fragment_key"] = fragment_key_of(p, u16(buffer, offset + 4) | NO_IP_ID)
        p["fragment_start"] = at
        if position != 0:
            counters[CAPWAP_FRAGMENT] += 1
            p["fragment"] = LATER
            p["fragment_offset"] = position
            payload(at, end, wire, p)
            return LATER_FRAGMENT, at, end, wire
    counters[CAPWAP] += 1
    enter(p)
    if native:
        return swapped_wlan(buffer, at, end, wire)
    return ETHERNET, at, end, wire
