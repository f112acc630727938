"""The transport layer.

TCP (RFC 9293), UDP (RFC 768), ICMP (RFC 792, 4443), SCTP (RFC 9260), UDP-Lite (RFC 3828), DCCP
(RFC 4340).

Each function ends the walk with `Status` OK or a refusal, except that a UDP datagram between
the ports of a tunnel goes on. A header that the IP packet itself has no room for is BAD; one
that only the capture cuts is TRUNCATED.
"""

from __future__ import annotations

from typing import Any, Final

from veilwatch.jit import inner_kernel
from veilwatch.traffic.decode.byteorder import Buffer, u8, u16, u32
from veilwatch.traffic.decode.steps import (
    BAD_TRANSPORT,
    OK,
    TRUNCATED_TRANSPORT,
    Walk,
    step_of_ports,
)

SYN: Final = 0x02
OPTION_END: Final = 0
OPTION_NOP: Final = 1
OPTION_MSS: Final = 2
OPTION_WINDOW_SCALE: Final = 3
MAX_WINDOW_SCALE: Final = 14  # RFC 7323, 2.3: a larger shift counts as 14
EXTENDED_SEQUENCE: Final = 0x01  # of DCCP: 48 bits of sequence number (RFC 4340, 5.1)


@inner_kernel
def payload(offset: int, end: int, wire: int, p: Any) -> Walk:
    """End the walk with the payload that begins at `offset`, cut or whole."""
    start = min(offset, end)  # a header may end beyond what was captured
    p["payload_offset"] = start
    p["payload_length"] = wire - offset
    p["payload_captured"] = end - start
    return OK, offset, end, wire


@inner_kernel
def tcp(buffer: Buffer, offset: int, end: int, wire: int, p: Any) -> Walk:
    """Read a TCP header; of its options the two that describe the end point, from a SYN."""
    if offset + 20 > wire:
        return BAD_TRANSPORT, offset, end, wire
    if offset + 20 > end:
        return TRUNCATED_TRANSPORT, offset, end, wire
    header = (u8(buffer, offset + 12) >> 4) * 4
    if header < 20 or offset + header > wire:
        return BAD_TRANSPORT, offset, end, wire
    flags = u16(buffer, offset + 12) & 0x1FF
    p["src_port"] = u16(buffer, offset)
    p["dst_port"] = u16(buffer, offset + 2)
    p["tcp_seq"] = u32(buffer, offset + 4)
    p["tcp_ack"] = u32(buffer, offset + 8)
    p["tcp_flags"] = flags
    p["tcp_window"] = u16(buffer, offset + 14)
    p["checksum"] = u16(buffer, offset + 16)
    if flags & SYN != 0:
        syn_options(buffer, offset + 20, min(offset + header, end), p)
    return payload(offset + header, end, wire, p)


@inner_kernel
def syn_options(buffer: Buffer, offset: int, end: int, p: Any) -> None:
    """Take maximum segment size and window scale from the options of a SYN (RFC 9293, 3.2)."""
    while offset + 2 <= end:
        kind = u8(buffer, offset)
        if kind == OPTION_END:
            return
        if kind == OPTION_NOP:
            offset += 1
            continue
        length = u8(buffer, offset + 1)
        if length < 2 or offset + length > end:
            return
        if kind == OPTION_MSS and length == 4:
            p["tcp_mss"] = u16(buffer, offset + 2)
        elif kind == OPTION_WINDOW_SCALE and length == 3:
            p["tcp_wscale"] = min(u8(buffer, offset + 2), MAX_WINDOW_SCALE)
        offset += length


@inner_kernel
def udp(buffer: Buffer, tunnels: Buffer, offset: int, end: int, wire: int, p: Any) -> Walk:
    """Read a UDP header. The datagram ends by its own length, or by IP's where that is 0.

    The length of a first fragment's datagram reaches beyond the fragment. The payload does not,
    but a tunnel inside is told the whole.
    """
    if offset + 8 > wire:
        return BAD_TRANSPORT, offset, end, wire
    if offset + 8 > end:
        return TRUNCATED_TRANSPORT, offset, end, wire
    length = u16(buffer, offset + 4)
    datagram = wire if length == 0 else offset + length  # 0: jumbogram, RFC 2675, 4
    if datagram < offset + 8:
        return BAD_TRANSPORT, offset, end, wire
    src_port = u16(buffer, offset)
    dst_port = u16(buffer, offset + 2)
    p["src_port"] = src_port
    p["dst_port"] = dst_port
    p["checksum"] = u16(buffer, offset + 6)
    wire = min(wire, datagram)
    end = min(end, wire)
    payload(offset + 8, end, wire, p)
    return step_of_ports(tunnels, src_port, dst_port), offset + 8, end, datagram


@inner_kernel
def icmp(buffer: Buffer, offset: int, end: int, wire: int, p: Any) -> Walk:
    """Read the first 8 bytes of an ICMP or ICMPv6 message: every defined one has as many."""
    if offset + 8 > wire:
        return BAD_TRANSPORT, offset, end, wire
    if offset + 8 > end:
        return TRUNCATED_TRANSPORT, offset, end, wire
    p["icmp_type"] = buffer[offset]
    p["icmp_code"] = buffer[offset + 1]
    p["checksum"] = u16(buffer, offset + 2)
    return payload(offset + 8, end, wire, p)


@inner_kernel
def sctp(buffer: Buffer, offset: int, end: int, wire: int, p: Any) -> Walk:
    """Read the SCTP common header; the payload begins with the first chunk."""
    if offset + 12 > wire:
        return BAD_TRANSPORT, offset, end, wire
    if offset + 12 > end:
        return TRUNCATED_TRANSPORT, offset, end, wire
    p["src_port"] = u16(buffer, offset)
    p["dst_port"] = u16(buffer, offset + 2)
    return payload(offset + 12, end, wire, p)


@inner_kernel
def udp_lite(buffer: Buffer, offset: int, end: int, wire: int, p: Any) -> Walk:
    """Read a UDP-Lite header. Its third field is what the checksum covers: IP has the length."""
    if offset + 8 > wire:
        return BAD_TRANSPORT, offset, end, wire
    if offset + 8 > end:
        return TRUNCATED_TRANSPORT, offset, end, wire
    p["src_port"] = u16(buffer, offset)
    p["dst_port"] = u16(buffer, offset + 2)
    p["checksum"] = u16(buffer, offset + 6)
    return payload(offset + 8, end, wire, p)


@inner_kernel
def dccp(buffer: Buffer, offset: int, end: int, wire: int, p: Any) -> Walk:
    """Read a DCCP generic header; the payload begins where its data offset says."""
    if offset + 12 > wire:
        return BAD_TRANSPORT, offset, end, wire
    if offset + 12 > end:
        return TRUNCATED_TRANSPORT, offset, end, wire
    header = u8(buffer, offset + 4) * 4
    smallest = 16 if u8(buffer, offset + 8) & EXTENDED_SEQUENCE != 0 else 12
    if header < smallest or offset + header > wire:
        return BAD_TRANSPORT, offset, end, wire
    p["src_port"] = u16(buffer, offset)
    p["dst_port"] = u16(buffer, offset + 2)
    p["checksum"] = u16(buffer, offset + 6)
    return payload(offset + header, end, wire, p)
