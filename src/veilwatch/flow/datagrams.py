"""Which UDP datagrams a head keeps, how they lie in it, and when no more of them are expected.

Of DNS the first datagram of each direction is kept. QUIC spreads its handshake: a ClientHello with
a post-quantum key share takes two Initial packets, and Retry or Version Negotiation make a client
send it again. So the first few datagrams with a long header are kept, each behind its length in
two bytes, big-endian.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from veilwatch.flow.state import NIL
from veilwatch.jit import inline_kernel
from veilwatch.schema.flows import HEAD_BYTES, MAX_DATAGRAMS

UDP: Final = 17

DNS_HEADER: Final = 12
"""Bytes of a DNS header (RFC 1035 cl. 4.1.1)."""

LONG_HEADER: Final = 7
"""Bytes of the shortest long header: flags, version, empty connection ids (RFC 8999 cl. 5.1)."""

MIN_OPENING: Final = 200
"""Bytes of the smallest datagram that may open QUIC. Initial packets that carry a hello come in
datagrams of 1200 bytes (RFC 9000 cl. 14.1), those of gQUIC in a little less; the rest is margin."""

MIN_HELLO: Final = 90
"""Bytes of the smallest later datagram that is kept: Initial packets that only acknowledge have at
most 80, those with the shortest hello of a server (HelloRetryRequest) above 90."""

LENGTH_BYTES: Final = 2
"""Bytes of the length before each datagram of a head."""


@inline_kernel
def is_dns_port(port: Any) -> Any:
    """Whether `port` belongs to DNS, mDNS or LLMNR."""
    return port in (53, 5353, 5355)


@inline_kernel
def is_dns(packet: Any) -> Any:
    """Whether a datagram goes to or comes from a port of DNS."""
    return is_dns_port(packet.src_port) or is_dns_port(packet.dst_port)


@inline_kernel
def begins_quic(buffer: Any, packet: Any) -> Any:
    """Whether a datagram looks like a QUIC client's first or its answer (RFC 9000 cl. 17.2)."""
    if packet.payload_captured < 20 or packet.payload_length < MIN_OPENING:
        return False
    first = buffer[packet.payload_offset]
    # gQUIC up to Q043 sets the version flag (0x01) and not the long-header bit.
    return first & 0xC0 == 0xC0 or (first & 0x08 != 0 and buffer[packet.payload_offset + 9] == 0x51)


@inline_kernel
def continues_quic(row: Any, direction: Any, buffer: Any, packet: Any) -> Any:
    """Whether a datagram of a QUIC flow says something of its handshake.

    Of the first byte all versions share one bit only (RFC 8999 cl. 5.1): Version Negotiation may
    leave the others at random, and RFC 9287 lets both sides clear the fixed bit. That packet and
    Retry are small, and are the first that a server says, or the second after each other. Other
    datagrams that small only acknowledge.
    """
    if packet.payload_captured < LONG_HEADER:
        return False
    first = buffer[packet.payload_offset]
    if row.head[direction] == NIL or packet.payload_length >= MIN_HELLO:
        return first & 0x80 != 0
    return first & 0xB0 == 0xB0


@inline_kernel
def wants_datagram(row: Any, direction: Any, buffer: Any, packet: Any) -> Any:
    """Whether a datagram begins a head of its flow or continues one."""
    if is_dns(packet):
        return row.head[direction] == NIL and packet.payload_captured >= DNS_HEADER
    if row.head[0] == NIL and row.head[1] == NIL:
        return begins_quic(buffer, packet)
    return continues_quic(row, direction, buffer, packet)


@inline_kernel
def datagrams_kept(head: Any) -> Any:
    """Return how many datagrams lie in a head."""
    count = 0
    offset = 0
    while offset + LENGTH_BYTES <= head.length:
        offset += LENGTH_BYTES + (int(head.bytes[offset]) << 8 | int(head.bytes[offset + 1]))
        count += 1
    return count


@inline_kernel
def keep_datagram(head: Any, buffer: Any, offset: Any, captured: Any) -> Any:
    """Put a datagram behind those of a head, as far as it has room; no more than the bound."""
    start = int(head.length) + LENGTH_BYTES
    kept = min(captured, HEAD_BYTES - start)
    if kept <= 0 or datagrams_kept(head) >= MAX_DATAGRAMS:
        return
    head.bytes[start - 2] = kept >> 8
    head.bytes[start - 1] = kept & 0xFF
    for i in range(kept):
        head.bytes[start + i] = buffer[offset + i]
    head.length = start + kept


@inline_kernel
def extend_datagram(head: Any, buffer: Any, offset: Any, captured: Any, position: Any) -> Any:
    """Lengthen the last datagram of a head by what follows its first `position` bytes.

    Fragments that come in another order leave it as it is.
    """
    start = 0
    end = LENGTH_BYTES
    while end <= head.length:
        start = end
        end += LENGTH_BYTES + (int(head.bytes[start - 2]) << 8 | int(head.bytes[start - 1]))
    if start == 0 or position != head.length - start:
        return
    kept = min(captured, HEAD_BYTES - np.int64(head.length))
    for i in range(kept):
        head.bytes[head.length + i] = buffer[offset + i]
    head.length += kept
    length = np.int64(head.length) - start
    head.bytes[start - 2] = length >> 8
    head.bytes[start - 1] = length & 0xFF


@inline_kernel
def is_answered(pool: Any, row: Any, direction: Any, buffer: Any, packet: Any) -> Any:
    """Whether a flow's heads hold all datagrams that are expected, `packet` being its latest.

    Of DNS that is one each way. Who sends a short header in QUIC has keys from the other side's
    hello and has sent all of its own (RFC 9001 cl. 4.9), so both hellos have passed by.
    """
    if is_dns(packet):
        return row.head[0] != NIL and row.head[1] != NIL
    if row.head[direction] == NIL:
        return False
    if packet.payload_captured > 0 and buffer[packet.payload_offset] & 0x80 == 0:
        return True
    return (
        row.head[1 - direction] != NIL
        and datagrams_kept(pool[row.head[0]]) >= MAX_DATAGRAMS
        and datagrams_kept(pool[row.head[1]]) >= MAX_DATAGRAMS
    )
