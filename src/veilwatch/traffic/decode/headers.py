"""Header fields of decoded packets, one row a packet.

What the decoder keeps comes from there; the rest is read again from the bytes of the innermost IP
packet. MAC addresses and VLAN tags count where they belong to that packet: directly in front of
it, so that a tunnel's own frame is not taken for the subscriber's.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from veilwatch.jit import inner_kernel, kernel
from veilwatch.schema.headers import ABSENT, WIRE_FIELDS
from veilwatch.traffic.decode.byteorder import Buffer, i64, u8, u16, u32
from veilwatch.traffic.decode.link import MAX_VLAN_TAGS
from veilwatch.traffic.decode.network import (
    AUTHENTICATION,
    FIRST_FRAGMENT,
    FRAGMENT,
    LATER,
    MAPPED,
    MAX_EXTENSION_HEADERS,
)
from veilwatch.traffic.decode.steps import LATER_FRAGMENT, OK, is_vlan
from veilwatch.traffic.hashing import mix

_NAMES: Final = [field.name for field in WIRE_FIELDS]
ETH: Final = _NAMES.index("eth_src")
IP: Final = _NAMES.index("ip_version")
TCP: Final = _NAMES.index("tcp_src_port")
UDP: Final = _NAMES.index("udp_src_port")
ICMP: Final = _NAMES.index("icmp_type")

LINK_ETHERNET: Final = 1
G_PDU: Final = 255


@kernel
def header_rows(
    buffer: Buffer,
    records: npt.NDArray[np.void],
    packets: npt.NDArray[np.void],
    rows: npt.NDArray[np.int64],
    places: npt.NDArray[np.int64],
) -> int:
    """Write a row for each packet that has an innermost IP header; return how many there are.

    Refused packets and the signalling of GTP-U (echoes, end markers) have none.

    Parameters
    ----------
    buffer, records
        A raw block.
    packets
        The same block decoded.
    rows
        int64 array of shape (r, `WIRE_FIELDS`), filled from the top until the packets or the rows
        end.
    places
        int64 array of shape (r,): index of each row's packet in the block.
    """
    used = 0
    for i in range(len(packets)):
        p = packets[i]
        if used == len(rows):
            break
        if p["status"] != OK and p["status"] != LATER_FRAGMENT:
            continue
        if p["gtp_message"] != 0 and p["gtp_message"] != G_PDU:
            continue
        row = rows[used]
        row[:] = ABSENT
        begin = i64(records[i]["offset"])
        end = begin + i64(records[i]["captured"])
        if records[i]["link"] == LINK_ETHERNET:
            link_fields(buffer, begin, i64(p["ip_offset"]), row)
        ip_fields(buffer, p, row)
        if p["status"] == OK:
            transport_fields(buffer, end, p, row)
        places[used] = i
        used += 1
    return used


@inner_kernel
def link_fields(buffer: Buffer, offset: int, ip: int, row: Any) -> None:
    """Read an Ethernet header and its VLAN tags if the IP packet at `ip` follows them."""
    if offset + 14 > ip:
        return
    at = offset + 12
    tags = 0
    while at + 6 <= ip and is_vlan(u16(buffer, at)) and tags < MAX_VLAN_TAGS:
        at += 4
        tags += 1
    if at + 2 != ip:
        return
    row[ETH] = u32(buffer, offset + 6) << 16 | u16(buffer, offset + 10)
    row[ETH + 1] = u32(buffer, offset) << 16 | u16(buffer, offset + 4)
    row[ETH + 3] = tags


@inner_kernel
def ip_fields(buffer: Buffer, p: Any, row: Any) -> None:
    """Read an IPv4 header (RFC 791) or IPv6 header (RFC 8200)."""
    at = i64(p["ip_offset"])
    row[IP] = p["ip_version"]
    row[IP + 2] = p["dscp"]
    row[IP + 3] = p["ip_length"]
    row[IP + 7] = p["ttl"]
    row[IP + 8] = p["protocol"]
    row[IP + 10] = address(p["src_hi"], p["src_lo"])
    row[IP + 11] = address(p["dst_hi"], p["dst_lo"])
    if p["ip_version"] == 4:
        row[ETH + 2] = 0x0800
        row[IP + 1] = u8(buffer, at) & 0x0F
        row[IP + 4] = p["ip_id"]
        row[IP + 5] = u8(buffer, at + 6) >> 5
        row[IP + 6] = (u16(buffer, at + 6) & 0x1FFF) * 8
        row[IP + 9] = u16(buffer, at + 10)
        return
    row[ETH + 2] = 0x86DD
    row[IP + 6] = 0
    # Later fragments of IP show no ports; those that do are CAPWAP's, which cuts frames itself.
    ports = p["src_port"] != 0 or p["dst_port"] != 0
    if p["fragment"] == FIRST_FRAGMENT or (p["fragment"] == LATER and not ports):
        row[IP + 4] = p["ip_id"]
        row[IP + 6] = p["fragment_offset"]


@inner_kernel
def address(high: Any, low: Any) -> int:
    """Return an IPv4 address as it is, of an IPv6 address 48 bits of a hash."""
    if high == np.uint64(0) and low >> np.uint64(32) == np.uint64(MAPPED >> 32):
        return i64(low & np.uint64(0xFFFFFFFF))
    return i64(mix(np.uint64(high) ^ mix(np.uint64(low))) >> np.uint64(16))


@inner_kernel
def transport_fields(buffer: Buffer, end: int, p: Any, row: Any) -> None:
    """Read a TCP (RFC 9293), UDP (RFC 768) or ICMP (RFC 792, 4443) header."""
    protocol = p["protocol"]
    if protocol == 6:
        row[TCP] = p["src_port"]
        row[TCP + 1] = p["dst_port"]
        row[TCP + 2] = p["tcp_seq"]
        row[TCP + 3] = p["tcp_ack"]
        row[TCP + 5] = p["tcp_flags"]
        row[TCP + 6] = p["tcp_window"]
        row[TCP + 7] = p["checksum"]
        at = transport_offset(buffer, end, p)
        if at + 20 <= end:  # the decoder has found it whole; this is for the bounds
            row[TCP + 4] = u8(buffer, at + 12) >> 4
            row[TCP + 8] = u16(buffer, at + 18)
    elif protocol == 17:
        row[UDP] = p["src_port"]
        row[UDP + 1] = p["dst_port"]
        row[UDP + 3] = p["checksum"]
        at = i64(p["payload_offset"]) - 8
        if at >= 0 and at + 8 <= end:
            row[UDP + 2] = u16(buffer, at + 4)
    elif protocol == 1 or protocol == 58:
        row[ICMP] = p["icmp_type"]
        row[ICMP + 1] = p["icmp_code"]


@inner_kernel
def transport_offset(buffer: Buffer, end: int, p: Any) -> int:
    """Return where the transport header begins: behind options and extension headers."""
    at = i64(p["ip_offset"])
    if p["ip_version"] == 4:
        kind = u8(buffer, at + 9)
        at += (u8(buffer, at) & 0x0F) * 4
    else:
        kind = u8(buffer, at + 6)
        at += 40
    for _ in range(MAX_EXTENSION_HEADERS):
        if kind == i64(p["protocol"]) or at + 8 > end:
            break
        if kind == AUTHENTICATION:
            length = (u8(buffer, at + 1) + 2) * 4
        elif kind == FRAGMENT:
            length = 8
        else:
            length = (u8(buffer, at + 1) + 1) * 8
        kind = u8(buffer, at)
        at += length
    return at
