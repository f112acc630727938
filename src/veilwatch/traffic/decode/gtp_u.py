"""GTP-U version 1 (3GPP TS 29.281), the tunnel of the mobile core's user plane.

A datagram on port 2152 is GTP-U only if its header says so *and* its lengths agree; a G-PDU also
has to begin like an IP packet, a frame or PPP that fits into it. Whatever fails that stays an
ordinary UDP packet, so that other programs on port 2152 neither lose their flows nor invent
subscribers.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from veilwatch.jit import inner_kernel
from veilwatch.schema.packets import NONE8
from veilwatch.traffic.decode.byteorder import Buffer, u8, u16, u32
from veilwatch.traffic.decode.counters import (
    GTP_ECHO_REQUEST,
    GTP_ECHO_RESPONSE,
    GTP_END_MARKER,
    GTP_ERROR_INDICATION,
    GTP_ETHERNET,
    GTP_FALSE,
    GTP_G_PDU,
    GTP_NOT_IP,
    GTP_OTHER,
    GTP_PPP,
)
from veilwatch.traffic.decode.steps import (
    BAD_TUNNEL,
    ETHERNET,
    IPV4,
    IPV6,
    OK,
    TRUNCATED_TUNNEL,
    Walk,
)
from veilwatch.traffic.decode.tunnel import enter, inner_frame, inner_ip, inner_ppp

MAX_GTP_EXTENSIONS: Final = 16
"""Most extension headers that are followed: TS 29.281 defines nine types, and what is seen on
N3 and S1-U has one or two."""

PACKED_EXTENSIONS: Final = 4  # types that fit into `gtp_extensions`

VERSION_1: Final = 3  # upper four bits of the first byte: version 1, protocol type GTP
E_FLAG: Final = 0x04
OPTIONAL_FLAGS: Final = 0x07  # any of E, S, PN brings the four optional bytes
G_PDU: Final = 255
PDU_SESSION_CONTAINER: Final = 0x85


@inner_kernel
def gtp_u(
    buffer: Buffer, offset: int, end: int, wire: int, p: Any, counters: npt.NDArray[np.int64]
) -> Walk:
    """Read a GTP-U header (TS 29.281, 5.1) at the start of a UDP payload.

    `wire` is the end of the whole datagram, also where this packet is its first fragment only.
    """
    if offset + 8 > wire or (offset < end and u8(buffer, offset) >> 4 != VERSION_1):
        counters[GTP_FALSE] += 1
        return OK, offset, end, wire
    if offset + 8 > end:
        return TRUNCATED_TUNNEL, offset, end, wire
    flags = u8(buffer, offset)
    message = u8(buffer, offset + 1)
    message_end = offset + 8 + u16(buffer, offset + 2)
    teid = u32(buffer, offset + 4)
    if message != G_PDU:
        return signalling(message, message_end, teid, offset, end, wire, p, counters)
    header = 12 if flags & OPTIONAL_FLAGS != 0 else 8
    if message_end > wire or offset + header > message_end:
        counters[GTP_FALSE] += 1
        return OK, offset, end, wire
    if offset + header > end:
        return TRUNCATED_TUNNEL, offset, end, wire

    kind = u8(buffer, offset + 11) if flags & E_FLAG != 0 else 0
    offset += header
    count = 0
    kinds = 0
    pdu_type = NONE8
    qfi = NONE8
    while kind != 0:  # extension headers, TS 29.281, 5.2
        if offset >= message_end or count == MAX_GTP_EXTENSIONS:
            return BAD_TUNNEL, offset, end, wire
        if offset >= end:
            return TRUNCATED_TUNNEL, offset, end, wire
        length = u8(buffer, offset) * 4
        if length == 0 or offset + length > message_end:
            return BAD_TUNNEL, offset, end, wire
        if offset + length > end:
            return TRUNCATED_TUNNEL, offset, end, wire
        if kind == PDU_SESSION_CONTAINER:  # TS 38.415, 5.5.2
            pdu_type = u8(buffer, offset + 1) >> 4
            qfi = u8(buffer, offset + 2) & 0x3F if pdu_type <= 1 else NONE8
        if count < PACKED_EXTENSIONS:
            kinds |= kind << (8 * count)
        count += 1
        kind = u8(buffer, offset + length - 1)
        offset += length

    inner_end = min(end, message_end)
    step = inner_ip(buffer, offset, inner_end, message_end)
    if step == OK:
        step, offset = other_session(buffer, offset, inner_end, message_end, counters)
    if step == OK:
        counters[GTP_NOT_IP] += 1
        return OK, offset, end, wire
    counters[GTP_G_PDU] += 1
    p["outer_src_hi"] = p["src_hi"]
    p["outer_src_lo"] = p["src_lo"]
    p["outer_dst_hi"] = p["dst_hi"]
    p["outer_dst_lo"] = p["dst_lo"]
    p["gtp_depth"] += 1
    p["gtp_message"] = message
    p["gtp_teid"] = teid
    p["gtp_extensions"] = kinds
    p["gtp_extension_count"] = count
    p["gtp_pdu_type"] = pdu_type
    p["gtp_qfi"] = qfi
    enter(p)
    return step, offset, inner_end, message_end


@inner_kernel
def other_session(
    buffer: Buffer, offset: int, end: int, wire: int, counters: npt.NDArray[np.int64]
) -> tuple[int, int]:
    """Return step and place of what a session of another type than IP carries; OK: unknown.

    An Ethernet PDU session (TS 23.501, 5.6.10.2) carries frames, a PDP context of type PPP
    (TS 29.061) PPP. The tunnel does not say so; the look has to. Unstructured PDUs are not read.
    """
    if inner_frame(buffer, offset, end, wire):
        counters[GTP_ETHERNET] += 1
        return ETHERNET, offset
    step, at, _, _ = inner_ppp(buffer, offset, end, wire)
    if step in (IPV4, IPV6):
        counters[GTP_PPP] += 1
        return step, at
    return OK, offset


@inner_kernel
def signalling(
    message: int,
    message_end: int,
    teid: int,
    offset: int,
    end: int,
    wire: int,
    p: Any,
    counters: npt.NDArray[np.int64],
) -> Walk:
    """Note a message between the tunnel's end points; it stays their own UDP packet.

    A message fills its datagram. Inside another tunnel it leaves that tunnel's fields alone.
    """
    if message_end != wire:
        counters[GTP_FALSE] += 1
        return OK, offset, end, wire
    if message == 1:
        counters[GTP_ECHO_REQUEST] += 1
    elif message == 2:
        counters[GTP_ECHO_RESPONSE] += 1
    elif message == 26:
        counters[GTP_ERROR_INDICATION] += 1
    elif message == 254:
        counters[GTP_END_MARKER] += 1
    else:
        counters[GTP_OTHER] += 1
    if p["gtp_depth"] == 0:
        p["gtp_message"] = message
        p["gtp_teid"] = teid
    return OK, offset, end, wire
