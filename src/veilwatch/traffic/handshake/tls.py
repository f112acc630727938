"""TLS in clear: the record layer, ClientHello, ServerHello and the server's certificates.

SSL 3.0 to TLS 1.3 (RFC 6101, 2246, 4346, 5246, 8446) over the contiguous bytes of one
direction, which may end anywhere. The hello in SSL 2.0 framing, by which very old clients (and
some malware of 2017) open a newer version, is not read. DTLS has records of its own (`dtls.py`),
and the same messages but for a cookie in its ClientHello.

Input is bounded by the caller (`schema.flows.HEAD_BYTES`), and each step consumes at least one
byte of it, so no further bound is needed here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct, unpack
from typing import Final, NamedTuple

CHANGE_CIPHER_SPEC: Final = 20
ALERT: Final = 21
HANDSHAKE: Final = 22

CLIENT_HELLO: Final = 1
SERVER_HELLO: Final = 2
CERTIFICATE: Final = 11
SERVER_HELLO_DONE: Final = 14

SERVER_NAME: Final = 0
SUPPORTED_GROUPS: Final = 10
EC_POINT_FORMATS: Final = 11
SIGNATURE_ALGORITHMS: Final = 13
ALPN: Final = 16
SUPPORTED_VERSIONS: Final = 43

MAX_BARE_MESSAGES: Final = 8
"""Handshake messages read of a stream without records: before encryption each side says at most
two, and a stream of empty messages would otherwise be split anew with each packet."""

MAX_RECORD: Final = 16384 + 2048
"""Longest record that any version allows (RFC 5246, section 6.2.3); more is not TLS."""

GREASE: Final = frozenset(0x0A0A + 0x1010 * i for i in range(16))
"""Values that clients send at random to keep servers tolerant (RFC 8701)."""

HELLO_RETRY_RANDOM: Final = bytes.fromhex(
    "cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c"
)
"""Random of a ServerHello that is a HelloRetryRequest (RFC 8446, section 4.1.3)."""

LEAST_DTLS: Final = 0xFE00
"""Versions from here on are of DTLS: 1 minus that of TLS, in both bytes."""

_DRAFTS_WITHOUT_SESSION_ID: Final = range(0x7F00, 0x7F16)
"""TLS 1.3 drafts up to 21: their ServerHello has no session id and no compression."""

_RECORD_HEADER: Final = Struct(">BBBH")
_U16: Final = Struct(">H")
_U16_PAIR: Final = Struct(">HH")


class Message(NamedTuple):
    """One handshake message; `body` is shorter than `length` where the stream was cut."""

    kind: int
    length: int
    body: bytes

    @property
    def whole(self) -> bool:
        """Whether all of its bytes are there."""
        return len(self.body) == self.length


@dataclass(slots=True)
class ClientHello:
    """What a client offers. Lists keep the order and the GREASE of the wire.

    Attributes
    ----------
    length
        Bytes of the message without its 4-byte header.
    whole
        Whether it was read to its end; else `legacy_version`, `ciphers` and each extension's
        content are set only where they were whole, and `extensions` is empty.
    """

    length: int
    whole: bool = False
    legacy_version: int = 0
    session_id_bytes: int = 0
    ciphers: tuple[int, ...] = ()
    extensions: tuple[int, ...] = ()
    groups: tuple[int, ...] = ()
    point_formats: tuple[int, ...] = ()
    signature_algorithms: tuple[int, ...] = ()
    supported_versions: tuple[int, ...] = ()
    server_name: bytes = b""
    alpn: tuple[bytes, ...] = ()

    @property
    def version(self) -> int:
        """Highest version offered, 0 where the message was cut before that was certain."""
        if self.supported_versions:
            offered = without_grease(self.supported_versions)
            if self.legacy_version >= LEAST_DTLS:  # whose numbers count down
                return min((v for v in offered if v >= LEAST_DTLS), default=self.legacy_version)
            return max(offered, default=self.legacy_version)
        return self.legacy_version if self.whole else 0


@dataclass(slots=True)
class ServerHello:
    """What a server chose."""

    length: int
    legacy_version: int
    retry: bool
    cipher: int
    extensions: tuple[int, ...] = ()
    supported_version: int = 0
    alpn: bytes = b""

    @property
    def version(self) -> int:
        """The version that the connection will speak."""
        return self.supported_version or self.legacy_version


class Chain(NamedTuple):
    """Certificates of a Certificate message up to TLS 1.2.

    `certificates` holds the leading ones that are whole (DER), `whole` whether that is all.
    """

    length: int
    certificates: tuple[bytes, ...]
    whole: bool


def without_grease(values: tuple[int, ...]) -> list[int]:
    """Return `values` in order without GREASE."""
    return [value for value in values if value not in GREASE]


def handshake_messages(stream: bytes) -> Iterator[Message]:
    """Yield the handshake messages that `stream` holds in clear, the last one perhaps cut.

    Messages may span records and share them; alerts in between are passed over. Reading ends
    where encryption begins, or where the bytes are no longer TLS.
    """
    pending = b""
    offset, end = 0, len(stream)
    retry = False
    while offset + 5 <= end:
        content, major, minor, length = _RECORD_HEADER.unpack_from(stream, offset)
        if major != 3 or minor > 4 or length > MAX_RECORD:
            break
        offset += 5
        if content == HANDSHAKE:
            pending += stream[offset : offset + length]
            messages, pending = _split(pending, len(pending))
            for message in messages:
                retry = message.kind == SERVER_HELLO and is_retry_request(message)
                yield message
        elif content == CHANGE_CIPHER_SPEC:
            if not retry:  # after a HelloRetryRequest the real ServerHello follows in clear
                break
        elif content != ALERT:
            break
        offset += length
    yield from _cut(pending)


def bare_messages(stream: bytes) -> list[Message]:
    """Return the first handshake messages of a stream without records, the last one perhaps cut.

    So QUIC carries them in its CRYPTO frames (RFC 9001, section 4.1.3).
    """
    messages, rest = _split(stream, MAX_BARE_MESSAGES)
    return messages + _cut(rest)


def is_retry_request(message: Message) -> bool:
    """Tell whether a ServerHello is a HelloRetryRequest."""
    return message.body[2:34] == HELLO_RETRY_RANDOM


def read_client_hello(message: Message, *, cookie: bool = False) -> ClientHello:
    """Read a ClientHello (RFC 8446, section 4.1.2) as far as it is whole and well formed.

    Parameters
    ----------
    cookie
        Whether a cookie stands before the cipher suites, as in DTLS (RFC 6347, section 4.2.1).
    """
    body = message.body
    hello = ClientHello(message.length)
    end = len(body)
    if end < 35:
        return hello
    session = body[34]
    offset = 35 + session
    if cookie and offset < end:
        offset += 1 + body[offset]
    if session > 32 or offset + 2 > end:
        return hello
    hello.legacy_version = _U16.unpack_from(body)[0]
    hello.session_id_bytes = session
    ciphers = body[offset + 2 : offset + 2 + _U16.unpack_from(body, offset)[0]]
    offset += 2 + _U16.unpack_from(body, offset)[0]
    if offset + 1 > end:
        return hello
    hello.ciphers = _u16_list(ciphers)
    offset += 1 + body[offset]  # compression methods
    if offset > end:
        return hello
    if offset == end:  # no extensions: SSL 3.0 and old TLS
        hello.whole = message.whole
        return hello
    extensions, whole = _extensions(body, offset)
    for kind, content in extensions:
        if kind == SERVER_NAME:
            hello.server_name = _server_name(content)
        elif kind == SUPPORTED_GROUPS:
            hello.groups = _u16_list(content[2:])
        elif kind == EC_POINT_FORMATS:
            hello.point_formats = tuple(content[1:])
        elif kind == SIGNATURE_ALGORITHMS:
            hello.signature_algorithms = _u16_list(content[2:])
        elif kind == ALPN:
            hello.alpn = _alpn(content)
        elif kind == SUPPORTED_VERSIONS:
            hello.supported_versions = _u16_list(content[1:])
    hello.whole = whole and message.whole
    if hello.whole:
        hello.extensions = tuple([kind for kind, _ in extensions])
    return hello


def read_server_hello(message: Message) -> ServerHello | None:
    """Read a ServerHello or HelloRetryRequest; None unless whole and well formed."""
    body = message.body
    if not message.whole or len(body) < 36:
        return None
    version = _U16.unpack_from(body)[0]
    if version in _DRAFTS_WITHOUT_SESSION_ID:
        cipher_at, offset = 34, 36
    else:
        cipher_at = 35 + body[34]
        offset = cipher_at + 3
    if offset > len(body):
        return None
    cipher = _U16.unpack_from(body, cipher_at)[0]
    hello = ServerHello(message.length, version, is_retry_request(message), cipher)
    if offset == len(body):
        return hello
    extensions, whole = _extensions(body, offset)
    if not whole:
        return None
    for kind, content in extensions:
        if kind == SUPPORTED_VERSIONS and len(content) == 2:
            hello.supported_version = _U16.unpack(content)[0]
        elif kind == ALPN:
            hello.alpn = next(iter(_alpn(content)), b"")
    hello.extensions = tuple([kind for kind, _ in extensions])
    return hello


def read_chain(message: Message) -> Chain | None:
    """Split a Certificate message up to TLS 1.2 (RFC 5246, section 7.4.2), None if malformed."""
    body = message.body
    if len(body) < 3:
        return None
    length = int.from_bytes(body[:3], "big")
    if length != message.length - 3:
        return None
    certificates: list[bytes] = []
    offset, end = 3, len(body)
    while offset + 3 <= end:
        size = int.from_bytes(body[offset : offset + 3], "big")
        offset += 3
        if offset + size > end:
            return Chain(length, tuple(certificates), False)
        certificates.append(body[offset : offset + size])
        offset += size
    return Chain(length, tuple(certificates), message.whole and offset == end)


def _split(data: bytes, most: int) -> tuple[list[Message], bytes]:
    """Return the whole messages that `data` begins with, at most `most`, and what is behind."""
    messages: list[Message] = []
    start = 0
    while start + 4 <= len(data) and len(messages) < most:
        size = int.from_bytes(data[start + 1 : start + 4], "big")
        stop = start + 4 + size
        if stop > len(data):
            break
        messages.append(Message(data[start], size, data[start + 4 : stop]))
        start = stop
    return messages, data[start:]


def _cut(rest: bytes) -> list[Message]:
    """Return the message of which only the beginning is there, if its length is."""
    if len(rest) < 4:
        return []
    return [Message(rest[0], int.from_bytes(rest[1:4], "big"), rest[4:])]


def _u16_list(raw: bytes) -> tuple[int, ...]:
    count = len(raw) // 2
    return unpack(f">{count}H", raw[: 2 * count])


def _extensions(body: bytes, offset: int) -> tuple[list[tuple[int, bytes]], bool]:
    """Return the whole extensions from `offset` on, and whether these are all."""
    found: list[tuple[int, bytes]] = []
    if offset + 2 > len(body):
        return found, False
    stop = offset + 2 + _U16.unpack_from(body, offset)[0]
    end = min(stop, len(body))
    offset += 2
    while offset + 4 <= end:
        kind, size = _U16_PAIR.unpack_from(body, offset)
        offset += 4
        if offset + size > end:
            return found, False
        found.append((kind, body[offset : offset + size]))
        offset += size
    return found, offset == stop


def _server_name(content: bytes) -> bytes:
    """Return the host_name of a server_name extension (RFC 6066, section 3), b"" if none."""
    if len(content) < 5 or content[2] != 0:
        return b""
    size = _U16.unpack_from(content, 3)[0]
    return content[5 : 5 + size] if 5 + size <= len(content) else b""


def _alpn(content: bytes) -> tuple[bytes, ...]:
    """Return the protocol names of an ALPN extension (RFC 7301, section 3.1)."""
    names = []
    offset, end = 2, len(content)
    while offset < end and offset + 1 + content[offset] <= end:
        names.append(content[offset + 1 : offset + 1 + content[offset]])
        offset += 1 + content[offset]
    return tuple(names)
