"""IEEE 802.11 data frames that are not encrypted, and what radio cards put before them."""

from __future__ import annotations

from typing import Final

from veilwatch.jit import inner_kernel
from veilwatch.traffic.decode.byteorder import Buffer, le16, u8, u16, u32
from veilwatch.traffic.decode.link import llc
from veilwatch.traffic.decode.steps import NOT_IP, TRUNCATED_LINK, WLAN, Walk

# frame control, IEEE 802.11-2020, 9.2.4.1; the first byte
TYPE_MASK: Final = 0x0F  # version and type
DATA: Final = 0x08
NO_DATA: Final = 0x40  # null frames and their like
QOS: Final = 0x80
# the second byte
BOTH_DS: Final = 0x03  # to and from the distribution system: a fourth address
PROTECTED: Final = 0x40
ORDER: Final = 0x80  # of a QoS frame: HT control follows

AMSDU: Final = 0x80  # of the QoS control field
SUBFRAME_HEADER: Final = 14  # addresses and length in front of each aggregated MSDU

MAX_PRESENT_WORDS: Final = 32
"""Most words of radiotap's presence bits: one for each antenna, of which cards have up to eight."""

RADIOTAP_TSFT: Final = 1
RADIOTAP_FLAGS: Final = 2
RADIOTAP_DATA_PAD: Final = 0x20

PRISM_HEADER: Final = 144
AVS_MAGIC: Final = 0x80211000  # the last bits hold the version


@inner_kernel
def wlan(buffer: Buffer, offset: int, end: int, wire: int) -> Walk:
    """Read a frame with its header as it went over the air."""
    return unpadded(buffer, 0, offset, end, wire)


@inner_kernel
def swapped_wlan(buffer: Buffer, offset: int, end: int, wire: int) -> Walk:
    """Read a frame whose frame control field may stand the other way round.

    Cisco's access points swap its two bytes. Only one of them can be that of a data frame, unless
    the flags are those of a frame between two stations that is sent again.
    """
    swapped = 0
    if offset + 2 <= end and u8(buffer, offset) & (TYPE_MASK | NO_DATA) != DATA:
        swapped = 1
    return unpadded(buffer, swapped, offset, end, wire)


@inner_kernel
def unpadded(buffer: Buffer, swapped: int, offset: int, end: int, wire: int) -> Walk:
    """Read a frame whose header is not padded; `swapped` is 1 or 0."""
    if offset + 2 > end:
        return TRUNCATED_LINK, offset, end, wire
    kind = u8(buffer, offset + swapped)
    flags = u8(buffer, offset + 1 - swapped)
    return data_frame(buffer, kind, flags, 1, offset, end, wire)


@inner_kernel
def data_frame(
    buffer: Buffer, kind: int, flags: int, unit: int, offset: int, end: int, wire: int
) -> Walk:
    """Read a data frame whose header is padded to a multiple of `unit` bytes.

    Of aggregated MSDUs the first is read. A frame that is marked as protected is believed to be
    open if an 802.2 header follows all the same: access points decrypt before they forward.
    """
    if kind & (TYPE_MASK | NO_DATA) != DATA:
        return NOT_IP, offset, end, wire
    header = 24
    if flags & BOTH_DS == BOTH_DS:
        header += 6
    aggregated = False
    if kind & QOS != 0:
        if offset + header + 2 > end:
            return TRUNCATED_LINK, offset, end, wire
        aggregated = u8(buffer, offset + header) & AMSDU != 0
        header += 2
        if flags & ORDER != 0:
            header += 4
    header = (header + unit - 1) & -unit
    if aggregated:
        header += SUBFRAME_HEADER
    at = offset + header
    if at + 3 > end:
        return TRUNCATED_LINK, offset, end, wire
    if u8(buffer, offset + 22) & 0x0F != 0:  # a later fragment
        return NOT_IP, offset, end, wire
    if flags & PROTECTED != 0 and (u16(buffer, at) != 0xAAAA or u8(buffer, at + 2) != 0x03):
        return NOT_IP, offset, end, wire
    return llc(buffer, at, end, wire)


@inner_kernel
def radiotap(buffer: Buffer, offset: int, end: int, wire: int) -> Walk:
    """Read a radiotap header (https://www.radiotap.org), and the 802.11 frame behind it."""
    if offset + 8 > end:
        return TRUNCATED_LINK, offset, end, wire
    size = le16(buffer, offset + 2)
    if buffer[offset] != 0 or size < 8:
        return NOT_IP, offset, end, wire
    if offset + size > end:
        return TRUNCATED_LINK, offset, end, wire
    first = u8(buffer, offset + 4)
    at = offset + 4
    for _ in range(MAX_PRESENT_WORDS):
        if u8(buffer, at + 3) & 0x80 == 0:
            break
        at += 4
        if at + 4 > offset + size:
            return NOT_IP, offset, end, wire
    at += 4
    unit = 1
    if first & RADIOTAP_FLAGS != 0:
        if first & RADIOTAP_TSFT != 0:
            at = offset + ((at - offset + 7) & ~7) + 8
        if at < offset + size:
            unit = 4 if u8(buffer, at) & RADIOTAP_DATA_PAD != 0 else 1
    offset += size
    if offset + 2 > end:
        return TRUNCATED_LINK, offset, end, wire
    kind = u8(buffer, offset)
    return data_frame(buffer, kind, u8(buffer, offset + 1), unit, offset, end, wire)


@inner_kernel
def avs(buffer: Buffer, offset: int, end: int, wire: int) -> Walk:
    """Read an AVS header, which states its length."""
    if offset + 8 > end:
        return TRUNCATED_LINK, offset, end, wire
    size = u32(buffer, offset + 4)
    if size < 8:
        return NOT_IP, offset, end, wire
    if offset + size > end:
        return TRUNCATED_LINK, offset, end, wire
    return WLAN, offset + size, end, wire


@inner_kernel
def prism(buffer: Buffer, offset: int, end: int, wire: int) -> Walk:
    """Read a Prism header, or the AVS header that some drivers give under its link type."""
    if offset + 4 > end:
        return TRUNCATED_LINK, offset, end, wire
    if u32(buffer, offset) & 0xFFFFF000 == AVS_MAGIC:
        return avs(buffer, offset, end, wire)
    if offset + PRISM_HEADER > end:
        return TRUNCATED_LINK, offset, end, wire
    return WLAN, offset + PRISM_HEADER, end, wire


@inner_kernel
def skipped(step: int, size: int, offset: int, end: int, wire: int) -> Walk:
    """Go on with `step` behind a header of `size` bytes of which nothing matters."""
    if offset + size > end:
        return TRUNCATED_LINK, offset, end, wire
    return step, offset + size, end, wire
