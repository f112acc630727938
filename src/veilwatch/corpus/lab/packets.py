"""Inner IPv4 packets with correct checksums (RFC 791, 768, 9293)."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from veilwatch.corpus.tunnel import checksum, word_sum

FIN: Final = 0x01
SYN: Final = 0x02
RST: Final = 0x04
PSH: Final = 0x08
ACK: Final = 0x10

TCP: Final = 6
UDP: Final = 17


class Packet(NamedTuple):
    """One packet at the capture point."""

    ts_ns: int
    uplink: bool
    data: bytes


class Ends(NamedTuple):
    """Addresses and ports of one direction."""

    source: bytes
    destination: bytes
    source_port: int
    destination_port: int

    def reversed(self) -> Ends:
        """Return the other direction."""
        return Ends(self.destination, self.source, self.destination_port, self.source_port)


def _ipv4(ends: Ends, protocol: int, ttl: int, identification: int, body: bytes) -> bytes:
    head = struct.pack(
        "!BBHHHBBH", 0x45, 0, 20 + len(body), identification, 0x4000, ttl, protocol, 0
    )
    addresses = ends.source + ends.destination
    return b"".join(
        (
            head[:10],
            checksum(word_sum(head) + word_sum(addresses)).to_bytes(2, "big"),
            addresses,
            body,
        )
    )


def _pseudo_sum(ends: Ends, protocol: int, length: int) -> int:
    return word_sum(ends.source + ends.destination) + protocol + length


def tcp(
    ends: Ends,
    *,
    ttl: int,
    identification: int,
    seq: int,
    ack: int,
    flags: int,
    window: int,
    options: bytes,
    payload: bytes,
) -> bytes:
    """Return an IPv4 packet with a TCP segment; `options` fill whole 32-bit words."""
    head = struct.pack(
        "!HHIIBBHHH",
        ends.source_port,
        ends.destination_port,
        seq & 0xFFFFFFFF,
        ack & 0xFFFFFFFF,
        (20 + len(options)) << 2,
        flags,
        window,
        0,
        0,
    )
    segment = b"".join((head, options, payload))
    total = word_sum(segment) + _pseudo_sum(ends, TCP, len(segment))
    body = b"".join((segment[:16], checksum(total).to_bytes(2, "big"), segment[18:]))
    return _ipv4(ends, TCP, ttl, identification, body)


def udp(ends: Ends, *, ttl: int, identification: int, payload: bytes) -> bytes:
    """Return an IPv4 packet with a UDP datagram."""
    length = 8 + len(payload)
    head = struct.pack("!HHH", ends.source_port, ends.destination_port, length)
    total = word_sum(head) + word_sum(payload) + _pseudo_sum(ends, UDP, length)
    body = b"".join((head, (checksum(total) or 0xFFFF).to_bytes(2, "big"), payload))
    return _ipv4(ends, UDP, ttl, identification, body)
