"""Which datagrams a head keeps, how they lie in it, and when no more of them are expected.

DTLS goes over UDP, UDP-Lite and DCCP (RFC 5238), DNS and QUIC over UDP. Of DNS the first datagram
of each direction is kept. QUIC and DTLS spread their handshake over several datagrams, in any order
and with repeats between, so a few of them are kept, each behind its length in two bytes,
big-endian.

Of QUIC only that is kept which keys that are public can open, or which says how they come about:
Initial packets, Retry and Version Negotiation. 0-RTT and Handshake packets take no room, neither
in datagrams of their own nor coalesced with an Initial (RFC 9000 cl. 12.2), nor does a datagram
that was seen before. A retransmission under a new packet number cannot be told from new content
here, as both are protected; the bounds leave room for some.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from veilwatch.jit import inner_kernel
from veilwatch.schema.flows import HEAD_BYTES, MAX_DATAGRAMS
from veilwatch.traffic.flow.copying import copy_run
from veilwatch.traffic.flow.state import NIL

UDP: Final = 17
DCCP: Final = 33
UDP_LITE: Final = 136

START_WITHIN_DATAGRAMS: Final = 128
"""A handshake must begin within this many payload packets of a UDP flow, both directions: DTLS of
WebRTC comes behind the connectivity checks of STUN, one each 50 ms and direction (RFC 8445 cl. 14),
and QUIC behind 0-RTT packets that have overtaken it."""

READY_AFTER_DATAGRAMS: Final = 64
"""A head is handed on after this many payload packets from where it began: a burst of 0-RTT
packets between two Initial packets is shorter, and the buffer is wanted elsewhere."""

DNS_HEADER: Final = 12
"""Bytes of a DNS header (RFC 1035 cl. 4.1.1)."""

LONG_HEADER: Final = 7
"""Bytes of the shortest long header: flags, version, empty connection ids (RFC 8999 cl. 5.1)."""

MAX_CONNECTION_ID: Final = 20
"""Longest connection id of the versions that are walked through (RFC 9000 cl. 17.2)."""

MIN_PROTECTED: Final = 20
"""Shortest part behind a long header (RFC 9001 cl. 5.4.2)."""

MAX_LENGTH: Final = 65_535
"""Longest token or packet of a datagram; more is not QUIC."""

MAX_COALESCED: Final = 16
"""Packets walked through in one datagram: one of each kind is the rule (RFC 9000 cl. 12.2), a
client that scatters its hello may write several Initial packets."""

HANDSHAKE_BYTES: Final = 64
"""Bytes kept of a Handshake packet where its direction has said nothing else: its header with two
connection ids takes at most 47."""

MIN_OPENING: Final = 200
"""Bytes of the smallest datagram that may open QUIC. Initial packets that carry a hello come in
datagrams of 1200 bytes (RFC 9000 cl. 14.1), those of gQUIC in a little less; the rest is margin."""

MIN_HELLO: Final = 90
"""Bytes of the smallest later datagram whose Initial packets are kept: those that only acknowledge
have at most 80, those that carry a part of a hello are padded to 1200 (RFC 9000 cl. 14.1)."""

LENGTH_BYTES: Final = 2
"""Bytes of the length before each datagram of a head."""

DTLS_HEADERS: Final = 25
"""Bytes of the headers of a record and of a handshake message (RFC 6347 cl. 4.1, 4.2.2)."""

NO_PACKET: Final = -1
INITIAL: Final = 0
HANDSHAKE: Final = 2
RETRY: Final = 3
VERSION_NEGOTIATION: Final = 4
OPAQUE: Final = 5
"""What a long header begins: one of the four kinds of packets of version 1, Version Negotiation,
or a first packet of a version that does not say where it ends."""

_V2: Final = 0x6B3343CF
_V2_DRAFT: Final = 0x709A50C4
_IETF_DRAFTS: Final = 0xFF000000
_FIRST_DRAFT_OF_THIS_LAYOUT: Final = 0xFF000016  # draft 22
_Q050: Final = 0x51303530
_T050: Final = 0x54303530
_T051: Final = 0x54303531

_CHANGE_CIPHER_SPEC: Final = 20
_ALERT: Final = 21
_DTLS_HANDSHAKE: Final = 22
_APPLICATION_DATA: Final = 23


@inner_kernel
def carries_datagrams(packet: Any) -> Any:
    """Whether a packet is a datagram that may be a handshake's."""
    protocol = packet.protocol
    return protocol in (UDP, DCCP, UDP_LITE)


@inner_kernel
def is_dns_port(port: Any) -> Any:
    """Whether `port` belongs to DNS, mDNS or LLMNR."""
    return port in (53, 5353, 5355)


@inner_kernel
def is_dns(packet: Any) -> Any:
    """Whether a datagram goes to or comes from a port of DNS."""
    if packet.protocol != UDP:
        return False
    return is_dns_port(packet.src_port) or is_dns_port(packet.dst_port)


@inner_kernel
def number(buffer: Any, offset: Any, width: Any) -> Any:
    """Return `width` bytes as a big-endian number."""
    value = np.int64(0)
    for i in range(offset, offset + width):
        value = value << 8 | np.int64(buffer[i])
    return value


@inner_kernel
def varint(buffer: Any, offset: Any, end: Any) -> Any:
    """Return a variable-length integer (RFC 9000 cl. 16) and the offset behind it, -1 if cut."""
    if offset >= end:
        return np.int64(0), np.int64(-1)
    width = np.int64(1) << (np.int64(buffer[offset]) >> 6)
    if offset + width > end:
        return np.int64(0), np.int64(-1)
    value = number(buffer, offset, width) & ((np.int64(1) << (8 * width - 2)) - 1)
    return value, np.int64(offset + width)


@inner_kernel
def packet_kind(first: Any, version: Any) -> Any:
    """Return the kind of a packet; version 2 numbers them anew (RFC 9369 cl. 3.2)."""
    bits = np.int64(first) >> 4 & 3
    return (bits - 1) & 3 if version in (_V2, _V2_DRAFT) else bits


@inner_kernel
def says_where_it_ends(version: Any) -> Any:
    """Whether packets carry token and length as in RFC 9000 cl. 17.2; not so old gQUIC, drafts."""
    if version >> 16 in (0x5130, 0x5430):  # Q0, T0
        return version in (_Q050, _T050, _T051)
    return not _IETF_DRAFTS < version < _FIRST_DRAFT_OF_THIS_LAYOUT


@inner_kernel
def long_packet(buffer: Any, start: Any, end: Any) -> Any:
    """Return the kind of the packet at `start` and the offset behind it.

    That offset lies beyond `end` where the datagram was cut within the packet. What has no length
    takes the rest of the datagram.
    """
    nothing = np.int64(NO_PACKET), np.int64(end)
    if start + LONG_HEADER > end or buffer[start] & 0x80 == 0:
        return nothing
    version = number(buffer, start + 1, 4)
    if version == 0:
        return np.int64(VERSION_NEGOTIATION), np.int64(end)
    kind = packet_kind(buffer[start], version)
    if not says_where_it_ends(version):
        return (np.int64(OPAQUE), np.int64(end)) if kind == INITIAL else nothing
    cut = kind, np.int64(end)
    offset = np.int64(start) + 5
    for _ in range(2):
        if offset >= end:
            return cut
        if buffer[offset] > MAX_CONNECTION_ID:
            return nothing
        offset += 1 + np.int64(buffer[offset])
    if kind == RETRY:
        return cut
    if kind == INITIAL:
        token, offset = varint(buffer, offset, end)
        if token > MAX_LENGTH:
            return nothing
        if offset < 0 or offset + token >= end:
            return cut
        offset += token
    length, offset = varint(buffer, offset, end)
    if offset < 0:
        return cut
    if length < MIN_PROTECTED or length > MAX_LENGTH:
        return nothing
    return kind, offset + length


@inner_kernel
def is_kept(kind: Any, fresh: Any) -> Any:
    """Whether a kind of packet is kept; `fresh` if its direction has said nothing before."""
    if kind in (INITIAL, RETRY, VERSION_NEGOTIATION):
        return True
    return fresh and kind in (OPAQUE, HANDSHAKE)


@inner_kernel
def holds_kept(buffer: Any, packet: Any, fresh: Any) -> Any:
    """Return the first kind of packet in a datagram that is kept, `NO_PACKET` if none is.

    `HANDSHAKE` only where nothing else is.
    """
    start = np.int64(packet.payload_offset)
    end = start + np.int64(packet.payload_captured)
    found = np.int64(NO_PACKET)
    for _ in range(MAX_COALESCED):
        kind, after = long_packet(buffer, start, end)
        if kind != NO_PACKET and is_kept(kind, fresh):
            found = kind
            if kind != HANDSHAKE:
                break
        if kind == NO_PACKET or after >= end:
            break
        start = after
    return found


@inner_kernel
def begins_gquic(buffer: Any, packet: Any) -> Any:
    """Whether a datagram begins as in gQUIC up to Q043: with a version, without a long header."""
    first = buffer[packet.payload_offset]
    return first & 0xC8 == 0x08 and buffer[packet.payload_offset + 9] == 0x51


@inner_kernel
def begins_quic(buffer: Any, packet: Any) -> Any:
    """Whether a datagram holds a QUIC client's first packet or the answer (RFC 9000 cl. 17.2)."""
    if packet.payload_captured < 20 or packet.payload_length < MIN_OPENING:
        return False
    if buffer[packet.payload_offset] & 0xC0 != 0xC0:
        return begins_gquic(buffer, packet)
    return holds_kept(buffer, packet, True) in (INITIAL, OPAQUE)


@inner_kernel
def continues_quic(row: Any, direction: Any, buffer: Any, packet: Any) -> Any:
    """Whether a datagram of a QUIC flow says something of its handshake.

    Of the first byte all versions share one bit only (RFC 8999 cl. 5.1): Version Negotiation may
    leave the others at random, and RFC 9287 lets both sides clear the fixed bit. Initial packets in
    small datagrams only acknowledge, unless they are all that a side has said.
    """
    if packet.payload_captured < LONG_HEADER or buffer[packet.payload_offset] & 0x80 == 0:
        return False
    fresh = row.head[direction] == NIL
    kind = holds_kept(buffer, packet, fresh)
    if kind == INITIAL:
        return fresh or packet.payload_length >= MIN_HELLO
    return kind != NO_PACKET


@inner_kernel
def is_dtls_handshake(buffer: Any, packet: Any) -> Any:
    """Whether a datagram begins with a handshake message in clear (RFC 6347 cl. 4.1, 4.2.2).

    That is a record of epoch 0 that holds a part of a message, whose length, place and size agree.
    """
    at = np.int64(packet.payload_offset)
    if packet.payload_captured < DTLS_HEADERS or buffer[at] != _DTLS_HANDSHAKE:
        return False
    version = number(buffer, at + 1, 2)
    if version < 0xFEFC and version != 0x0100:  # the latter by old OpenSSL
        return False
    if number(buffer, at + 3, 2) != 0:
        return False
    size = number(buffer, at + 22, 3)
    fits = number(buffer, at + 19, 3) + size <= number(buffer, at + 14, 3)
    return fits and size + 12 <= number(buffer, at + 11, 2)


@inner_kernel
def begins_dtls(buffer: Any, packet: Any) -> Any:
    """Whether a datagram begins with a hello, or with the request to verify one."""
    return is_dtls_handshake(buffer, packet) and 1 <= buffer[packet.payload_offset + 13] <= 3


@inner_kernel
def wants_datagram(row: Any, direction: Any, buffer: Any, packet: Any) -> Any:
    """Whether a datagram begins a head of its flow or continues one."""
    if is_dns(packet):
        return row.head[direction] == NIL and packet.payload_captured >= DNS_HEADER
    udp = packet.protocol == UDP
    if row.head[0] == NIL and row.head[1] == NIL:
        return (udp and begins_quic(buffer, packet)) or begins_dtls(buffer, packet)
    if udp and continues_quic(row, direction, buffer, packet):
        return True
    return is_dtls_handshake(buffer, packet)


@inner_kernel
def datagrams_kept(head: Any) -> Any:
    """Return how many datagrams lie in a head."""
    count = 0
    offset = 0
    while offset + LENGTH_BYTES <= head.length:
        offset += LENGTH_BYTES + (int(head.bytes[offset]) << 8 | int(head.bytes[offset + 1]))
        count += 1
    return count


@inner_kernel
def is_full(head: Any) -> Any:
    """Whether a head takes no further datagram."""
    return head.length + LENGTH_BYTES >= HEAD_BYTES or datagrams_kept(head) >= MAX_DATAGRAMS


@inner_kernel
def put(head: Any, buffer: Any, offset: Any, stop: Any, used: Any) -> Any:
    """Write bytes behind a head, `used` of whose next datagram are there; return how many then."""
    start = np.int64(head.length) + LENGTH_BYTES + used
    kept = min(np.int64(stop) - offset, HEAD_BYTES - start)
    copy_run(head.bytes, start, buffer, offset, kept)
    return used + max(kept, np.int64(0))


@inner_kernel
def is_repeat(head: Any, size: Any) -> Any:
    """Whether the `size` bytes behind a head are those of a datagram that lies in it."""
    new = np.int64(head.length) + LENGTH_BYTES
    offset = np.int64(0)
    while offset < head.length:
        length = number(head.bytes, offset, LENGTH_BYTES)
        offset += LENGTH_BYTES
        if length == size:
            same = np.int64(0)
            while same < size and head.bytes[offset + same] == head.bytes[new + same]:
                same += 1
            if same == size:
                return True
        offset += length
    return False


@inner_kernel
def keep_datagram(head: Any, buffer: Any, packet: Any) -> Any:
    """Put what is wanted of a datagram behind those of a head, as far as there is room.

    Nothing is put where the same lies in it already.
    """
    if is_full(head):
        return
    start = np.int64(packet.payload_offset)
    end = start + np.int64(packet.payload_captured)
    used = np.int64(0)
    if buffer[start] & 0x80 == 0 or is_dns(packet):
        used = put(head, buffer, start, end, used)
    else:
        lonely = np.int64(-1)  # a Handshake packet, kept if nothing else is
        for _ in range(MAX_COALESCED):
            kind, after = long_packet(buffer, start, end)
            if kind == HANDSHAKE:
                lonely = start if lonely < 0 else lonely
            elif kind != NO_PACKET and is_kept(kind, head.length + used == 0):
                used = put(head, buffer, start, min(after, end), used)
            if kind == NO_PACKET or after >= end:
                break
            start = after
        if head.length + used == 0 and lonely >= 0:
            used = put(head, buffer, lonely, min(end, lonely + HANDSHAKE_BYTES), used)
    if used > 0 and not is_repeat(head, used):
        head.bytes[head.length] = used >> 8
        head.bytes[head.length + 1] = used & 0xFF
        head.length += LENGTH_BYTES + used


@inner_kernel
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
    copy_run(head.bytes, np.int64(head.length), buffer, offset, kept)
    head.length += kept
    length = np.int64(head.length) - start
    head.bytes[start - 2] = length >> 8
    head.bytes[start - 1] = length & 0xFF


@inner_kernel
def ends_dtls(buffer: Any, packet: Any) -> Any:
    """Whether who sent a datagram of a DTLS flow has keys: what follows is not in clear.

    Encrypted records have another epoch, a type of their own (RFC 9146) or the header of DTLS 1.3
    (RFC 9147 cl. 4); media of SRTP share the flow with them, STUN and TURN channels do not tell
    (RFC 7983 cl. 7).
    """
    at = np.int64(packet.payload_offset)
    first = np.int64(buffer[at])
    if first in (_ALERT, _DTLS_HANDSHAKE):
        return packet.payload_captured >= 5 and number(buffer, at + 3, 2) != 0
    return first == _CHANGE_CIPHER_SPEC or _APPLICATION_DATA <= first < 64 or first >= 128


@inner_kernel
def is_answered(pool: Any, row: Any, direction: Any, buffer: Any, packet: Any) -> Any:
    """Whether a flow's heads hold all datagrams that are expected, `packet` being its latest.

    Of DNS that is one each way. Who sends a short header in QUIC has keys from the other side's
    hello and has sent all of its own (RFC 9001 cl. 4.9), so both hellos have passed by; likewise
    who sends an encrypted record of DTLS. Of gQUIC up to Q043 only the first datagram says much.
    """
    if is_dns(packet):
        return row.head[0] != NIL and row.head[1] != NIL
    if row.head[direction] == NIL:
        return False
    opening = pool[row.head[direction]].bytes[LENGTH_BYTES]
    if packet.payload_captured > 0:
        if opening == _DTLS_HANDSHAKE:
            if ends_dtls(buffer, packet):
                return True
        elif opening & 0x80 == 0 or buffer[packet.payload_offset] & 0xC0 == 0x40:
            return True
    return (
        row.head[1 - direction] != NIL and is_full(pool[row.head[0]]) and is_full(pool[row.head[1]])
    )


@inner_kernel
def is_late(pool: Any, row: Any, datagrams: Any) -> Any:
    """Whether no more is waited for in a flow of so many payload packets.

    `base` of a head of datagrams holds how many there were when it began.
    """
    if row.head[0] == NIL and row.head[1] == NIL:
        return datagrams >= START_WITHIN_DATAGRAMS
    begun = datagrams
    for direction in range(2):
        if row.head[direction] != NIL:
            begun = min(begun, np.int64(pool[row.head[direction]].base))
    return datagrams - begun >= READY_AFTER_DATAGRAMS
