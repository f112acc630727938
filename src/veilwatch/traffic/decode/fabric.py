"""Between link and network in data centres: 802.1ah, FabricPath, TRILL, MACsec, service chains."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from veilwatch.jit import inner_kernel
from veilwatch.traffic.decode.byteorder import Buffer, u8, u16
from veilwatch.traffic.decode.counters import FABRIC, MACSEC
from veilwatch.traffic.decode.counters import NSH as NSH_COUNT
from veilwatch.traffic.decode.link import announced
from veilwatch.traffic.decode.steps import (
    ETHERNET,
    IPV4,
    IPV6,
    MPLS,
    NOT_IP,
    TRUNCATED_LINK,
    Walk,
)

# TCI and AN of a MACsec tag, IEEE 802.1AE, 9.5
CHANNEL_PRESENT: Final = 0x20
ENCRYPTED_OR_CHANGED: Final = 0x0C

MIN_NSH: Final = 8


@inner_kernel
def framed(size: int, offset: int, end: int, wire: int, counters: npt.NDArray[np.int64]) -> Walk:
    """Go on with the Ethernet frame behind `size` bytes of 802.1ah (4) or FabricPath (2)."""
    if offset + size > end:
        return TRUNCATED_LINK, offset, end, wire
    counters[FABRIC] += 1
    return ETHERNET, offset + size, end, wire


@inner_kernel
def trill(
    buffer: Buffer, offset: int, end: int, wire: int, counters: npt.NDArray[np.int64]
) -> Walk:
    """Read a TRILL header with its options (RFC 6325, 3)."""
    if offset + 6 > end:
        return TRUNCATED_LINK, offset, end, wire
    word = u16(buffer, offset)
    if word >> 14 != 0:
        return NOT_IP, offset, end, wire
    return framed(6 + (word >> 6 & 0x1F) * 4, offset, end, wire, counters)


@inner_kernel
def macsec(
    buffer: Buffer, offset: int, end: int, wire: int, p: Any, counters: npt.NDArray[np.int64]
) -> Walk:
    """Read a MACsec tag: what it protects without encrypting stands there as it was."""
    if offset + 6 > end:
        return TRUNCATED_LINK, offset, end, wire
    control = u8(buffer, offset)
    if control & ENCRYPTED_OR_CHANGED != 0:
        counters[MACSEC] += 1
        return NOT_IP, offset, end, wire
    at = offset + (14 if control & CHANNEL_PRESENT != 0 else 6)
    if at + 2 > end:
        return TRUNCATED_LINK, offset, end, wire
    return announced(buffer, u16(buffer, at), at + 2, end, wire, p)


@inner_kernel
def is_nsh(buffer: Buffer, offset: int, end: int, wire: int) -> bool:
    """Whether a network service header begins at `offset`, as far as that was captured."""
    if offset + MIN_NSH > wire:
        return False
    if offset + 2 > end:
        return True
    size = (u8(buffer, offset + 1) & 0x3F) * 4
    return u8(buffer, offset) >> 6 == 0 and MIN_NSH <= size <= wire - offset


@inner_kernel
def nsh(buffer: Buffer, offset: int, end: int, wire: int, counters: npt.NDArray[np.int64]) -> Walk:
    """Read a network service header (RFC 8300, 2.2); one within another is refused."""
    if offset + MIN_NSH > end:
        return TRUNCATED_LINK, offset, end, wire
    if not is_nsh(buffer, offset, end, wire):
        return NOT_IP, offset, end, wire
    at = offset + (u8(buffer, offset + 1) & 0x3F) * 4
    if at > end:
        return TRUNCATED_LINK, offset, end, wire
    kind = u8(buffer, offset + 3)
    step = NOT_IP
    if kind == 1:
        step = IPV4
    elif kind == 2:
        step = IPV6
    elif kind == 3:
        step = ETHERNET
    elif kind == 5:
        step = MPLS
    if step != NOT_IP:
        counters[NSH_COUNT] += 1
    return step, at, end, wire
