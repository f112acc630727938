"""DTLS in clear: records of epoch 0 in datagrams, and the handshake messages in them.

DTLS 1.0 to 1.3 (RFC 4347, 6347, 9147), and the version that old OpenSSL spoke under the number
0x0100. Messages are numbered, may be cut into fragments and repeated, in any order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from struct import Struct
from typing import Final, NamedTuple

from veilwatch.traffic.handshake.byte_stream import ByteStream
from veilwatch.traffic.handshake.tls import (
    ALERT,
    CHANGE_CIPHER_SPEC,
    CLIENT_HELLO,
    HANDSHAKE,
    Message,
)

OLDEST: Final = 0x0100
"""DTLS before it had a standard, spoken by OpenSSL 0.9.8 and Cisco AnyConnect."""

VERSIONS: Final = range(0xFEFC, 0x10000)
"""Versions of DTLS, which count down: 1.3 is 0xFEFC."""

MAX_MESSAGES: Final = 32
"""Handshake messages put together of one side: a handshake has fewer than ten, and each repeat
that contradicts the first takes a place."""

_RECORD: Final = Struct(">BHHHLH")  # type, version, epoch, number (16 + 32 bits), length
_FRAGMENT: Final = Struct(">BBHHBHBH")  # type, length, number, offset, size: 24 bits as 8 + 16


class Fragment(NamedTuple):
    """A part of a handshake message (RFC 6347, section 4.2.2)."""

    kind: int
    length: int
    number: int
    offset: int
    content: bytes


@dataclass(slots=True)
class Flight:
    """What one side says in clear.

    Attributes
    ----------
    messages
        By their number; the body of one that is not whole ends at its first hole.
    version
        In the first record that holds a handshake message, 0 without one.
    """

    messages: list[Message] = field(default_factory=list)
    version: int = 0


def is_dtls(version: int) -> bool:
    """Tell whether a version number is one of DTLS."""
    return version in VERSIONS or version == OLDEST


def read_flight(datagrams: list[bytes]) -> Flight:
    """Put together the handshake messages of one side of a flow."""
    flight = Flight()
    streams: dict[tuple[int, int, int], ByteStream] = {}
    for datagram in datagrams:
        for version, content in _records(datagram):
            for part in _fragments(content):
                flight.version = flight.version or version
                key = part.number, part.kind, part.length
                stream = streams.get(key)
                if stream is None:
                    if len(streams) == MAX_MESSAGES:
                        continue
                    stream = streams[key] = ByteStream()
                stream.put(part.offset, part.content)
    for (_, kind, length), stream in sorted(streams.items(), key=lambda item: item[0][0]):
        flight.messages.append(Message(kind, length, stream.whole()[:length]))
    return flight


def client_hello(flight: Flight) -> Message | None:
    """Return the ClientHello that the server acts on.

    The one with a cookie is it where the server asked for one (RFC 6347, section 4.2.1); else the
    first, also where a HelloRetryRequest made the client say hello again, as in TLS and QUIC.
    """
    hellos = [message for message in flight.messages if message.kind == CLIENT_HELLO]
    verified = [message for message in hellos if message.whole and _has_cookie(message.body)]
    return next(iter([*verified, *hellos]), None)


def _has_cookie(body: bytes) -> bool:
    cookie_at = 35 + body[34] if len(body) > 34 else len(body)
    return cookie_at < len(body) and body[cookie_at] > 0


def _records(datagram: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield version and content of the handshake records of epoch 0, the last one perhaps cut."""
    offset, end = 0, len(datagram)
    while offset + _RECORD.size <= end:
        content, version, epoch, _, _, length = _RECORD.unpack_from(datagram, offset)
        if content not in (CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE) or not is_dtls(version):
            return
        offset += _RECORD.size
        if content == HANDSHAKE and epoch == 0:
            yield version, datagram[offset : offset + length]
        offset += length


def _fragments(record: bytes) -> Iterator[Fragment]:
    """Yield the parts of messages in a record, up to one that contradicts itself."""
    offset, end = 0, len(record)
    while offset + _FRAGMENT.size <= end:
        kind, high, low, number, far, at, long, size = _FRAGMENT.unpack_from(record, offset)
        length, place, size = high << 16 | low, far << 16 | at, long << 16 | size
        if place + size > length:
            return
        offset += _FRAGMENT.size
        yield Fragment(kind, length, number, place, record[offset : offset + size])
        offset += size
