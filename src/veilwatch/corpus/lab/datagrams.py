"""Payloads of the lab's UDP protocols: DNS (RFC 1035), NTP (RFC 5905), RTP (RFC 3550)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from ipaddress import IPv4Address
from typing import Final

from veilwatch.corpus.lab.draw import Draw

TEXT: Final = 16
"""Type of TXT records."""

_NTP_EPOCH: Final = 2_208_988_800  # s from 1900 to 1970


def _dns_name(name: str) -> bytes:
    return b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0"


def dns_query(identity: int, name: str, kind: int = 1) -> bytes:
    """Return a recursive query for the IPv4 addresses of `name`, or records of another kind."""
    question = _dns_name(name) + struct.pack("!HH", kind, 1)
    return struct.pack("!6H", identity, 0x0100, 1, 0, 0, 0) + question


def dns_text(identity: int, name: str, text: bytes, ttl: int) -> bytes:
    """Return the answer to a question for a TXT record (RFC 1035, 3.3.14)."""
    question = _dns_name(name) + struct.pack("!HH", TEXT, 1)
    parts = [text[at : at + 255] for at in range(0, len(text), 255)]
    data = b"".join(bytes([len(part)]) + part for part in parts)
    head = struct.pack("!6H", identity, 0x8180, 1, 1, 0, 0)
    return head + question + struct.pack("!HHHIH", 0xC00C, TEXT, 1, ttl, len(data)) + data


def dns_answer(
    identity: int, name: str, addresses: Sequence[IPv4Address], ttl: int, alias: str = ""
) -> bytes:
    """Return the answer: addresses, behind an alias if given, or NXDOMAIN with the zone's SOA."""
    question = _dns_name(name) + b"\0\1\0\1"
    if not addresses:
        head = struct.pack("!6H", identity, 0x8183, 1, 0, 1, 0)
        zone = 12 + len(question) - 4 - len(_dns_name("example"))
        soa = _dns_name("ns.example") + _dns_name("admin.example")
        soa += struct.pack("!5I", 2024, 7200, 3600, 1_209_600, 900)
        return head + question + struct.pack("!HHHIH", 0xC000 | zone, 6, 1, 900, len(soa)) + soa
    head = struct.pack("!6H", identity, 0x8180, 1, len(addresses) + bool(alias), 0, 0)
    records, owner = b"", 0xC00C
    if alias:
        target = _dns_name(alias)
        records = struct.pack("!HHHIH", owner, 5, 1, ttl, len(target)) + target
        owner = 0xC000 | (len(head) + len(question) + len(records) - len(target))
    for address in addresses:
        records += struct.pack("!HHHIH", owner, 1, 1, ttl, 4) + address.packed
    return head + question + records


def ntp(time: float, *, request: bool, draw: Draw) -> bytes:
    """Return a client's or a server's NTP packet sent at `time` (s since 1970)."""
    stamp = int((time + _NTP_EPOCH) * 2**32)
    if request:
        return struct.pack("!BBbb", 0x23, 0, 6, -20) + bytes(36) + stamp.to_bytes(8, "big")
    head = struct.pack("!BBbb", 0x24, 2, 6, -23) + draw.octets(12)
    return head + b"".join((stamp - i).to_bytes(8, "big") for i in (2**33, 2**20, 2**10, 0))


def rtp(number: int, source: int, size: int, draw: Draw) -> bytes:
    """Return packet `number` of an encrypted media stream (SRTP looks like RTP, RFC 3711)."""
    head = struct.pack("!BBHII", 0x80, 111, number & 0xFFFF, (number * 960) & 0xFFFFFFFF, source)
    return head + draw.octets(max(size - len(head), 0))
