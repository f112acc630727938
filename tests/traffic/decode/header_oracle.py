"""Header fields in plain Python: beside the kernel, from the reference decoder and `struct`."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

from tests.traffic.decode.reference import Decoded, mix
from veilwatch.schema.headers import ABSENT, WIRE_FIELDS
from veilwatch.schema.packets import Status

EXTENSIONS = {0, 43, 44, 51, 60}
MASK = (1 << 64) - 1


def fields_of(frame: bytes, link: int, decoded: Decoded) -> dict[str, int] | None:
    """Return the header fields of a frame by name; None if its packet gets no row."""
    p = decoded.fields
    if p["status"] not in (Status.OK, Status.LATER_FRAGMENT) or p["gtp_message"] not in (0, 255):
        return None
    packet = frame[p["ip_offset"] :]
    out = dict.fromkeys((field.name for field in WIRE_FIELDS), ABSENT)
    if link == 1:
        out |= _ethernet(frame, p["ip_offset"])
    out |= _ipv4(packet) if packet[0] >> 4 == 4 else _ipv6(packet, p["protocol"])
    out["ip_length"] = p["ip_length"]  # 0 in the header where segmentation was left to the card
    if p["status"] == Status.OK:
        out |= _transport(packet[_header_length(packet, p["protocol"]) :], p["protocol"])
    return out


def _ethernet(frame: bytes, ip: int) -> dict[str, int]:
    tags = (ip - 14) // 4
    kinds = [frame[12 + 4 * k : 14 + 4 * k] for k in range(max(tags, 0))]
    vlan = {b"\x81\x00", b"\x88\xa8", b"\x91\x00"}
    if ip < 14 or (ip - 14) % 4 or tags > 8 or not vlan.issuperset(kinds):
        return {}
    destination, source = (int.from_bytes(frame[k : k + 6], "big") for k in (0, 6))
    return {"eth_src": source, "eth_dst": destination, "vlan_tags": tags}


def _ipv4(packet: bytes) -> dict[str, int]:
    first, tos, _, number, position, ttl, protocol, checksum = struct.unpack_from(
        ">BBHHHBBH", packet
    )
    rest = packet[(first & 15) * 4 :]
    if protocol == 51 and not position & 0x1FFF and len(rest) >= 12:
        protocol = _walk(rest, 51)[1]
    return {
        "eth_type": 0x0800,
        "ip_version": 4,
        "ip_ihl": first & 15,
        "ip_tos": tos,
        "ip_id": number,
        "ip_flags": position >> 13,
        "ip_ttl": ttl,
        "ip_fragment_offset": (position & 0x1FFF) * 8,
        "ip_protocol": protocol,
        "ip_checksum": checksum,
        "ip_src": int(IPv4Address(packet[12:16])),
        "ip_dst": int(IPv4Address(packet[16:20])),
    }


def _ipv6(packet: bytes, protocol: int) -> dict[str, int]:
    (word,) = struct.unpack_from(">I", packet)
    out = {
        "eth_type": 0x86DD,
        "ip_version": 6,
        "ip_tos": word >> 20 & 255,
        "ip_ttl": packet[7],
        "ip_protocol": protocol,
        "ip_fragment_offset": 0,
        "ip_src": _ipv6_address(packet[8:24]),
        "ip_dst": _ipv6_address(packet[24:40]),
    }
    kind, rest = packet[6], packet[40:]
    fragmented = False
    while kind in EXTENSIONS and len(rest) >= 8:
        if kind == 44:
            position, number = struct.unpack_from(">2xHI", rest)
            fragmented |= bool(position & 0xFFF9)
            if fragmented:
                out["ip_id"] = number
            if position & 0xFFF8:  # a later fragment: nothing of its headers follows
                out["ip_fragment_offset"] = position & 0xFFF8
                break
        size, kind = _walk(rest, kind)
        rest = rest[size:]
    return out


def _ipv6_address(data: bytes) -> int:
    value = int(IPv6Address(data))
    high, low = value >> 64, value & MASK
    if value >> 32 == 0xFFFF:  # ::ffff:a.b.c.d
        return value & 0xFFFFFFFF
    return mix(high ^ mix(low)) >> 16


def _walk(header: bytes, kind: int) -> tuple[int, int]:
    """Return the length of an extension header, and what follows it."""
    length = {44: 8, 51: (header[1] + 2) * 4}.get(kind, (header[1] + 1) * 8)
    return length, header[0]


def _header_length(packet: bytes, protocol: int) -> int:
    at, kind = ((packet[0] & 15) * 4, packet[9]) if packet[0] >> 4 == 4 else (40, packet[6])
    while kind != protocol and kind in EXTENSIONS:
        size, kind = _walk(packet[at:], kind)
        at += size
    return at


def _transport(segment: bytes, protocol: int) -> dict[str, int]:
    if protocol == 6:
        source, destination, seq, ack, word, window, checksum, urgent = struct.unpack_from(
            ">HHIIHHHH", segment
        )
        return {
            "tcp_src_port": source,
            "tcp_dst_port": destination,
            "tcp_seq": seq,
            "tcp_ack": ack,
            "tcp_offset": word >> 12,
            "tcp_flags": word & 0x1FF,
            "tcp_window": window,
            "tcp_checksum": checksum,
            "tcp_urgent": urgent,
        }
    if protocol == 17:
        ports = struct.unpack_from(">HHHH", segment)
        names = ("udp_src_port", "udp_dst_port", "udp_length", "udp_checksum")
        return dict(zip(names, ports, strict=True))
    if protocol in (1, 58):
        return {"icmp_type": segment[0], "icmp_code": segment[1]}
    return {}
