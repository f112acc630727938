"""ClientHellos as common programs write them: suites, extensions, their order and their bodies.

What a program offers is public (RFC 8446, RFC 8701, the sources of the libraries, lists of JA3 and
JA4); versions change it, and each entry here stands for one of its time. Random values, key shares
and tickets are drawn, as nobody but the two ends can tell them from real ones.
"""

from __future__ import annotations

import struct
from typing import Final, Literal, NamedTuple

from veilwatch.corpus.lab.draw import Draw

Program = Literal[
    "chrome", "chrome-pq", "firefox", "safari", "okhttp", "schannel7", "schannel10", "schannel11",
    "go", "openssl3", "openssl12", "java", "mbedtls",
]  # fmt: skip

SHARE_BYTES: Final = {0x001D: 32, 0x0017: 65, 0x0018: 97, 0x11EC: 1216}
"""Bytes of a client's key share by group; 0x11EC is X25519MLKEM768."""

SNI: Final = 0
ALPN: Final = 16
PADDING: Final = 21
TICKET: Final = 35
PRE_SHARED_KEY: Final = 41
VERSIONS: Final = 43
KEY_SHARE: Final = 51
_GREASE: Final = -1  # stands for a reserved value, drawn for each hello

_ECH: Final = 0xFE0D
_RENEGOTIATION: Final = 0xFF01
_PADDED_LENGTHS: Final = range(256, 512)  # which some servers stumble over (RFC 7685)


class Client(NamedTuple):
    """What one program writes into a ClientHello."""

    newest: int
    ciphers: tuple[int, ...]
    extensions: tuple[int, ...]
    groups: tuple[int, ...]
    signatures: tuple[int, ...]
    shares: tuple[int, ...] = ()
    shuffled: bool = False  # extensions in an order drawn for each hello
    compatible: bool = True  # a session id of 32 bytes in TLS 1.3 (RFC 8446, D.4)


_AEAD12: Final = (0xC02B, 0xC02F, 0xC02C, 0xC030, 0xCCA9, 0xCCA8)
_CBC: Final = (0xC013, 0xC014, 0x009C, 0x009D, 0x002F, 0x0035)
_BORING: Final = (0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601)
_WINDOWS: Final = (
    *(0xC02C, 0xC02B, 0xC030, 0xC02F, 0xC024, 0xC023, 0xC028, 0xC027, 0xC00A, 0xC009),
    *(0xC014, 0xC013, 0x009D, 0x009C, 0x003D, 0x003C, 0x0035, 0x002F),
)
_WINDOWS_SIGNATURES: Final = (
    *(0x0804, 0x0805, 0x0806, 0x0401, 0x0501, 0x0201, 0x0403, 0x0503, 0x0203, 0x0202, 0x0601),
    0x0603,
)
_OPENSSL: Final = (
    *(0xC02C, 0xC030, 0x009F, 0xCCA9, 0xCCA8, 0xCCAA, 0xC02B, 0xC02F, 0x009E, 0xC024, 0xC028),
    *(0x006B, 0xC023, 0xC027, 0x0067, 0xC00A, 0xC014, 0x0039, 0xC009, 0xC013, 0x0033, 0x009D),
    *(0x009C, 0x003D, 0x003C, 0x0035, 0x002F, 0x00FF),
)
_OPENSSL_SIGNATURES: Final = (
    *(0x0403, 0x0503, 0x0603, 0x0807, 0x0808, 0x0809, 0x080A, 0x080B, 0x0804, 0x0805, 0x0806),
    *(0x0401, 0x0501, 0x0601, 0x0303, 0x0301, 0x0302, 0x0402, 0x0502, 0x0602),
)
_CHROME_EXTENSIONS: Final = (
    *(_GREASE, 0, 23, 0xFF01, 10, 11, 35, 16, 5, 13, 18, 51, 45, 43, 27, 17513, 0xFE0D, _GREASE),
)

CLIENTS: Final[dict[Program, Client]] = {
    "chrome": Client(
        0x0304,
        (_GREASE, 0x1301, 0x1302, 0x1303, *_AEAD12, *_CBC),
        (*_CHROME_EXTENSIONS[:15], _GREASE, PADDING),
        (_GREASE, 0x001D, 0x0017, 0x0018),
        _BORING,
        (_GREASE, 0x001D),
    ),
    "chrome-pq": Client(
        0x0304,
        (_GREASE, 0x1301, 0x1302, 0x1303, *_AEAD12, *_CBC),
        _CHROME_EXTENSIONS,
        (_GREASE, 0x11EC, 0x001D, 0x0017, 0x0018),
        _BORING,
        (_GREASE, 0x11EC, 0x001D),
        shuffled=True,
    ),
    "firefox": Client(
        0x0304,
        (
            *(0x1301, 0x1303, 0x1302, 0xC02B, 0xC02F, 0xCCA9, 0xCCA8, 0xC02C, 0xC030, 0xC00A),
            *(0xC009, *_CBC),
        ),
        (0, 23, 0xFF01, 10, 11, 35, 16, 5, 34, 51, 43, 13, 45, 28, PADDING),
        (0x001D, 0x0017, 0x0018, 0x0019, 0x0100, 0x0101),
        (0x0403, 0x0503, 0x0603, 0x0804, 0x0805, 0x0806, 0x0401, 0x0501, 0x0601, 0x0203, 0x0201),
        (0x001D, 0x0017),
    ),
    "safari": Client(
        0x0304,
        (
            *(_GREASE, 0x1301, 0x1302, 0x1303, 0xC02C, 0xC02B, 0xCCA9, 0xC030, 0xC02F, 0xCCA8),
            *(0xC00A, 0xC009, 0xC014, 0xC013, 0x009D, 0x009C, 0x0035, 0x002F, 0xC008, 0xC012),
            0x000A,
        ),
        (_GREASE, 0, 23, 0xFF01, 10, 11, 16, 5, 13, 18, 51, 45, 43, 27, _GREASE, PADDING),
        (_GREASE, 0x001D, 0x0017, 0x0018, 0x0019),
        (0x0403, 0x0804, 0x0401, 0x0503, 0x0203, 0x0805, 0x0805, 0x0501, 0x0806, 0x0601, 0x0201),
        (_GREASE, 0x001D),
    ),
    "okhttp": Client(
        0x0304,
        (0x1301, 0x1302, 0x1303, *_AEAD12, 0xC009, 0xC00A, *_CBC),
        (0, 23, 0xFF01, 10, 11, 35, 16, 5, 13, 51, 45, 43, PADDING),
        (0x001D, 0x0017, 0x0018),
        (*_BORING, 0x0201),
        (0x001D,),
    ),
    "schannel7": Client(
        0x0303,
        (
            *(0x003C, 0x002F, 0x003D, 0x0035, 0x0005, 0x000A, 0xC027, 0xC013, 0xC014, 0xC02B),
            *(0xC023, 0xC02C, 0xC024, 0xC009, 0xC00A, 0x0040, 0x0032, 0x006A, 0x0038, 0x0013),
            0x0004,
        ),
        (0xFF01, 0, 5, 10, 11, 13),
        (0x0017, 0x0018),
        (0x0401, 0x0501, 0x0201, 0x0403, 0x0503, 0x0203, 0x0202),
    ),
    "schannel10": Client(
        0x0303,
        (*_WINDOWS, 0x000A),
        (0, 5, 10, 11, 13, 35, 16, 23, 0xFF01),
        (0x001D, 0x0017, 0x0018),
        _WINDOWS_SIGNATURES,
    ),
    "schannel11": Client(
        0x0304,
        (0x1302, 0x1301, *_WINDOWS),
        (0, 5, 43, 10, 11, 13, 51, 45, 16, 23, 35, 0xFF01),
        (0x001D, 0x0017, 0x0018),
        _WINDOWS_SIGNATURES,
        (0x001D,),
    ),
    "go": Client(
        0x0304,
        (
            *(0xC02B, 0xC02F, 0xC02C, 0xC030, 0xCCA9, 0xCCA8, 0xC009, 0xC013, 0xC00A, 0xC014),
            *(0x009C, 0x009D, 0x002F, 0x0035, 0xC012, 0x000A, 0x1301, 0x1302, 0x1303),
        ),
        (0, 5, 10, 11, 13, 0xFF01, 16, 18, 43, 51),
        (0x001D, 0x0017, 0x0018, 0x0019),
        (0x0804, 0x0403, 0x0807, 0x0805, 0x0806, 0x0401, 0x0501, 0x0601, 0x0503, 0x0603, 0x0201),
        (0x001D,),
    ),
    "openssl3": Client(
        0x0304,
        (0x1302, 0x1303, 0x1301, *_OPENSSL),
        (0, 11, 10, 35, 16, 22, 23, 13, 43, 45, 51),
        (0x001D, 0x0017, 0x001E, 0x0019, 0x0018, 0x0100, 0x0101, 0x0102, 0x0103, 0x0104),
        _OPENSSL_SIGNATURES,
        (0x001D,),
    ),
    "openssl12": Client(
        0x0303,
        _OPENSSL,
        (0, 11, 10, 35, 16, 22, 23, 13),
        (0x001D, 0x0017, 0x001E, 0x0019, 0x0018),
        _OPENSSL_SIGNATURES,
    ),
    "java": Client(
        0x0304,
        (
            *(0x1302, 0x1301, 0x1303, 0xC02C, 0xC02B, 0xCCA9, 0xC030, 0xCCA8, 0xC02F, 0x009F),
            *(0xCCAA, 0x00A3, 0x009E, 0x00A2, 0xC024, 0xC028, 0xC023, 0xC027, 0x006B, 0x006A),
            *(0x0067, 0x0040, 0xC00A, 0xC014, 0xC009, 0xC013, 0x009D, 0x009C, 0x003D, 0x0035),
            *(0x002F, 0x00FF),
        ),
        (0, 5, 10, 11, 17, 23, 35, 13, 43, 45, 50, 51),
        (0x001D, 0x0017, 0x0018, 0x0019, 0x001E, 0x0100, 0x0101),
        (0x0403, 0x0503, 0x0603, 0x0807, 0x0804, 0x0805, 0x0806, 0x0401, 0x0501, 0x0601, 0x0203),
        (0x001D, 0x0017),
    ),
    "mbedtls": Client(
        0x0303,
        (
            *(0xC02C, 0xC030, 0xC0AD, 0xC024, 0xC028, 0xC00A, 0xC014, 0xC02B, 0xC02F, 0xC0AC),
            *(0xC023, 0xC027, 0xC009, 0xC013, 0x009D, 0xC09D, 0x003D, 0x0035, 0x009C, 0x002F),
            0x00FF,
        ),
        (0, 13, 10, 11, 22, 23),
        (0x0019, 0x0018, 0x0017, 0x001D),
        (0x0603, 0x0601, 0x0503, 0x0501, 0x0403, 0x0401, 0x0303, 0x0301),
    ),
}


def _listed(values: list[int]) -> bytes:
    """Return 16-bit values after their length."""
    return struct.pack(f"!{len(values) + 1}H", 2 * len(values), *values)


def _sized(data: bytes) -> bytes:
    return struct.pack("!H", len(data)) + data


class Offer(NamedTuple):
    """What one connection asks for, whichever program writes it."""

    name: str  # of the server; "" none is sent
    alpn: tuple[str, ...]
    ticket: bytes  # of the session to resume; b"" a full handshake


def client_hello(program: Program, offer: Offer, draw: Draw) -> bytes:
    """Return the first record of a connection."""
    client = CLIENTS[program]
    greases = [0x0A0A + 0x1010 * number for number in draw.sample(range(16), 5)]
    modern = client.newest == 0x0304

    def real(values: tuple[int, ...], grease: int) -> list[int]:
        return [grease if value == _GREASE else value for value in values]

    order = list(client.extensions)
    if client.shuffled:
        inner = order[1:-1]
        draw.shuffle(inner)
        order[1:-1] = inner
    bodies: list[tuple[int, bytes]] = []
    reserved = iter(greases[2:4])
    for kind in order:
        if kind == _GREASE:
            first = not bodies
            bodies.append((next(reserved), b"" if first else b"\0"))
            continue
        body = _body(kind, client, offer, greases[4], draw)
        if body is not None:
            bodies.append((kind, body))
    resuming = bool(offer.ticket) and modern
    identity = _sized(_sized(offer.ticket) + draw.octets(4)) + b"\0\x21\x20" + draw.octets(32)
    session = draw.octets(32) if (modern and client.compatible) or offer.ticket else b""
    ciphers = _listed(real(client.ciphers, greases[0]))
    head = b"\x03\x03" + draw.octets(32) + bytes([len(session)]) + session + ciphers + b"\1\0"
    text = b"".join(struct.pack("!H", kind) + _sized(body) for kind, body in bodies)
    whole = 4 + len(head) + 2 + len(text) + (4 + len(identity) if resuming else 0)
    if PADDING in client.extensions and whole in _PADDED_LENGTHS:
        text += struct.pack("!H", PADDING) + _sized(bytes(max(512 - whole - 4, 1)))
    if resuming:
        text += struct.pack("!H", PRE_SHARED_KEY) + _sized(identity)
    message = head + _sized(text)
    return b"\x16\x03\x01" + _sized(b"\x01" + len(message).to_bytes(3, "big") + message)


def _body(kind: int, client: Client, offer: Offer, grease: int, draw: Draw) -> bytes | None:
    """Return an extension's body; None if it is not sent."""
    name = offer.name.encode()
    groups = [grease if group == _GREASE else group for group in client.groups]
    older = [0x0304, 0x0303]
    fixed: dict[int, bytes | None] = {
        SNI: _sized(b"\0" + _sized(name)) if name else None,
        5: b"\1\0\0\0\0",
        10: _listed(groups),
        11: b"\1\0" if 22 not in client.extensions else b"\3\0\1\2",
        13: _listed(list(client.signatures)),
        ALPN: _sized(b"".join(bytes([len(p)]) + p.encode() for p in offer.alpn))
        if offer.alpn
        else None,
        17: b"\0\7\2\0\4\0\0\0\0",
        PADDING: None,
        27: b"\2\0\2",
        28: b"\x40\1",
        34: _listed([0x0403, 0x0503, 0x0603, 0x0203]),
        TICKET: offer.ticket if client.newest < 0x0304 else b"",
        VERSIONS: bytes([2 * len(older) + 2 * (_GREASE in client.groups)])
        + (struct.pack("!H", grease) if _GREASE in client.groups else b"")
        + struct.pack("!2H", *older),
        45: b"\1\1",
        50: _listed(list(client.signatures)),
        17513: b"\0\3\2h2",
        _RENEGOTIATION: b"\0",
    }
    if kind == KEY_SHARE:
        return _sized(
            b"".join(
                struct.pack("!H", grease) + b"\0\1\0"
                if group == _GREASE
                else struct.pack("!H", group) + _sized(draw.octets(SHARE_BYTES[group]))
                for group in client.shares
            )
        )
    if kind == _ECH:
        return (
            b"\0\0\1\0\1"
            + draw.octets(1)
            + _sized(draw.octets(32))
            + _sized(draw.octets(draw.one([144, 176, 208, 240])))
        )
    return fixed.get(kind, b"")
