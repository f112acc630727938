"""TLS as a probe sees it: hellos and certificates as programs write them, and ciphertext.

Only the two ends can tell ciphertext, key shares and signatures from random bytes, so they are
drawn; everything that a probe can read or measure (message order, record sizes, extensions,
certificates) is as RFC 5246 and RFC 8446 have it. No cryptography but the certificates' is
computed, and the same seed gives the same bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

from veilwatch.corpus.lab.certificates import certify
from veilwatch.corpus.lab.clients import CLIENTS, Offer, Program, client_hello
from veilwatch.corpus.lab.der import certificate_status
from veilwatch.corpus.lab.draw import Draw
from veilwatch.corpus.lab.profile import CertificateKind

_HANDSHAKE: Final = 22
_CHANGE: Final = b"\x14\x03\x03\x00\x01\x01"
_ECDSA_SUITES: Final = (0xC02B, 0xC02C, 0xCCA9, 0xC023, 0xC024, 0xC009, 0xC00A)
_RSA_SUITES: Final = (0xC02F, 0xC030, 0xCCA8, 0xC027, 0xC028, 0xC013, 0xC014, 0x009C, 0x002F)
_CBC_MACS: Final = {
    **dict.fromkeys((0xC009, 0xC00A, 0xC013, 0xC014, 0x002F), 20),
    **dict.fromkeys((0xC023, 0xC027), 32),
    **dict.fromkeys((0xC024, 0xC028), 48),
}
_WITHOUT_NONCE: Final = (0xCCA8, 0xCCA9)  # the nonce of ChaCha20 is not sent
_SIGNATURE_BYTES: Final = [70, 71, 71, 72]  # of ECDSA on P-256 in DER, as often as they occur


class Flight(NamedTuple):
    """Bytes that one side sends in one go."""

    uplink: bool
    data: bytes


@dataclass(frozen=True, slots=True)
class TlsServer:
    """The TLS side of one server.

    Attributes
    ----------
    name
        What clients call it.
    version
        Highest that it speaks, 0x0303 or 0x0304.
    chain
        Certificates that it shows, DER.
    ecdsa
        Whether its key is an elliptic one.
    suites, suites13
        What it prefers, best first.
    alpn
        Protocols that it chooses from.
    tickets, ticket_bytes
        How many it gives out after a handshake of TLS 1.3, and how long they are; 0 bytes none.
    stapled
        Bytes of the OCSP answer that it shows; 0 none.
    split
        Whether each message of TLS 1.3 has a record of its own.
    """

    name: str
    version: int
    chain: tuple[bytes, ...]
    ecdsa: bool
    suites: tuple[int, ...]
    suites13: tuple[int, ...]
    alpn: tuple[str, ...]
    tickets: int
    ticket_bytes: int
    stapled: int
    split: bool


def certify_server(
    name: str,
    *,
    certificate: CertificateKind,
    version: str,
    alpn: tuple[str, ...],
    day: datetime,
    draw: Draw,
) -> TlsServer:
    """Return the TLS side of a server, with a certificate of its own."""
    chain, ecdsa = certify(certificate, name, day, draw)
    suites = _ECDSA_SUITES if ecdsa else _RSA_SUITES
    first = draw.randrange(3)  # AES-128, AES-256 or ChaCha20 before the others
    return TlsServer(
        name=name,
        version=0x0304 if version == "1.3" else 0x0303,
        chain=chain,
        ecdsa=ecdsa,
        suites=(suites[first], *suites[:first], *suites[first + 1 :]),
        suites13=draw.one([(0x1301, 0x1302), (0x1302, 0x1301), (0x1302, 0x1303, 0x1301)]),
        alpn=alpn,
        tickets=draw.one([1, 2, 2]),
        ticket_bytes=draw.one([0, 160, 176, 192, 208, 226]),
        stapled=draw.one([0, 0, 471, 503, 1500]),
        split=draw.chance(0.6),
    )


def record_lengths(data: bytes) -> list[int]:
    """Return the lengths of the TLS records in `data`, without their 5-byte headers."""
    lengths = []
    offset = 0
    while offset + 5 <= len(data):
        lengths.append(int.from_bytes(data[offset + 3 : offset + 5], "big"))
        offset += 5 + lengths[-1]
    return lengths


def _record(kind: int, body: bytes) -> bytes:
    return struct.pack("!BHH", kind, 0x0303, len(body)) + body


def _message(kind: int, body: bytes) -> bytes:
    return bytes([kind]) + len(body).to_bytes(3, "big") + body


class Session(NamedTuple):
    """What a later connection to the same server may resume."""

    ticket: bytes


class Connection:
    """One TLS connection, from ClientHello to close_notify.

    Parameters
    ----------
    server
        The server that answers.
    program
        What writes the client's side.
    draw
        Where random values and ciphertext come from.
    alpn
        Protocols that the client offers.
    sni
        Whether the client names the server.
    session
        Session to resume, None for a full handshake.
    """

    def __init__(
        self,
        server: TlsServer,
        program: Program,
        draw: Draw,
        *,
        alpn: tuple[str, ...] = (),
        sni: bool = True,
        session: Session | None = None,
    ) -> None:
        self._server = server
        self._client = CLIENTS[program]
        self._draw = draw
        self.resumed = session is not None
        self.session: Session | None = session
        self._modern = min(server.version, self._client.newest) == 0x0304
        ours = server.suites13 if self._modern else server.suites
        self._suite = next(suite for suite in ours if suite in self._client.ciphers)
        self._protocol = next((p for p in alpn if p in server.alpn), "")
        offer = Offer(server.name if sni else "", alpn, session.ticket if session else b"")
        self._hello = client_hello(program, offer, draw)
        self._sni = sni
        # without a second hello, TLS 1.3 takes the first group that a key share was sent for
        groups = self._client.shares if self._modern else (draw.one([0x001D, 0x0017]), 0x0017)
        self._group = next(g for g in groups if g > 0 and g in self._client.groups)

    def _sealed(self, kind: int, size: int) -> bytes:
        """Return a record of `size` bytes of plaintext."""
        if self._modern:
            return _record(23, self._draw.octets(size + 17))
        if mac := _CBC_MACS.get(self._suite):
            return _record(kind, self._draw.octets(16 + (size + mac) // 16 * 16 + 16))
        extra = 16 if self._suite in _WITHOUT_NONCE else 24
        return _record(kind, self._draw.octets(size + extra))

    def _server_hello(self, session_id: bytes) -> bytes:
        extensions = b""
        if self._modern:
            size = 1120 if self._group == 0x11EC else 32 if self._group == 0x001D else 65
            extensions += struct.pack("!4H", 51, 4 + size, self._group, size)
            extensions += self._draw.octets(size)
            extensions += struct.pack("!HHH", 43, 2, 0x0304)
            if self.resumed:
                extensions += struct.pack("!HHH", 41, 2, 0)
        else:
            extensions += b"\xff\x01\0\1\0"
            if self._sni:
                extensions += b"\0\0\0\0"
            if self._suite not in (0x009C, 0x002F) and 11 in self._client.extensions:
                extensions += b"\0\x0b\0\2\1\0"
            if self._tickets:
                extensions += b"\0\x23\0\0"
            if self._protocol:
                name = self._protocol.encode()
                extensions += struct.pack("!HHHB", 16, 3 + len(name), 1 + len(name), len(name))
                extensions += name
            if 23 in self._client.extensions:
                extensions += b"\0\x17\0\0"
        body = b"\x03\x03" + self._draw.octets(32) + bytes([len(session_id)]) + session_id
        body += struct.pack("!HBH", self._suite, 0, len(extensions)) + extensions
        return _message(2, body)

    @property
    def _tickets(self) -> bool:
        return bool(self._server.ticket_bytes) and 35 in self._client.extensions

    def _chain_bytes(self, per: int) -> int:
        return 3 + sum(3 + len(certificate) + per for certificate in self._server.chain)

    def _signature(self) -> int:
        return self._draw.one(_SIGNATURE_BYTES) if self._server.ecdsa else 256

    def handshake(self) -> list[Flight]:
        """Shake hands and return what each side sent, in order."""
        session_id = self._hello[44 : 44 + self._hello[43]]
        flights = [Flight(True, self._hello)]
        flights += self._handshake13(session_id) if self._modern else self._handshake12(session_id)
        if self._server.ticket_bytes:
            self.session = Session(self._draw.octets(self._server.ticket_bytes))
        return flights

    def _handshake13(self, session_id: bytes) -> list[Flight]:
        digest = 48 if self._suite == 0x1302 else 32
        answer = _record(_HANDSHAKE, self._server_hello(session_id)) + _CHANGE
        messages = [6 + (5 + len(self._protocol) + 2 if self._protocol else 0)]
        if not self.resumed:
            staple = self._server.stapled and self._server.stapled + 8
            messages += [4 + 1 + self._chain_bytes(2) + staple, 4 + 4 + self._signature()]
        messages.append(4 + digest)
        sizes = messages if self._server.split else [sum(messages)]
        answer += b"".join(
            self._sealed(_HANDSHAKE, part) for size in sizes for part in _chunks(size, 16_384)
        )
        client = _CHANGE + self._sealed(_HANDSHAKE, 4 + digest)
        found = [Flight(False, answer), Flight(True, client)]
        if self._server.ticket_bytes:
            size = 4 + 13 + self._server.ticket_bytes + 8
            tickets = b"".join(self._sealed(_HANDSHAKE, size) for _ in range(self._server.tickets))
            found.append(Flight(False, tickets))
        return found

    def _handshake12(self, session_id: bytes) -> list[Flight]:
        finished = self._sealed(_HANDSHAKE, 16)
        ticket = b""
        if self._tickets:
            body = struct.pack("!IH", 7200, self._server.ticket_bytes)
            ticket = _record(
                _HANDSHAKE, _message(4, body + self._draw.octets(self._server.ticket_bytes))
            )
        if self.resumed:
            hello = _record(_HANDSHAKE, self._server_hello(session_id))
            return [
                Flight(False, hello + ticket + _CHANGE + finished),
                Flight(True, _CHANGE + self._sealed(_HANDSHAKE, 16)),
            ]
        fresh = b"" if self._tickets else self._draw.octets(32)
        parts = [self._server_hello(fresh)]
        entries = b"".join(len(der).to_bytes(3, "big") + der for der in self._server.chain)
        parts.append(_message(11, len(entries).to_bytes(3, "big") + entries))
        if self._server.stapled and 5 in self._client.extensions:
            staple = certificate_status(self._server.stapled, self._draw)
            parts.append(_message(22, b"\1" + len(staple).to_bytes(3, "big") + staple))
        ephemeral = self._suite not in (0x009C, 0x002F)
        point = 32 if self._group == 0x001D else 65
        if ephemeral:
            signed = self._signature()
            parts.append(
                _message(
                    12,
                    struct.pack("!BHB", 3, self._group, point)
                    + self._draw.octets(point)
                    + struct.pack("!HH", 0x0403 if self._server.ecdsa else 0x0804, signed)
                    + self._draw.octets(signed),
                )
            )
        parts.append(_message(14, b""))
        answer = b"".join(_record(_HANDSHAKE, part) for part in parts)
        if ephemeral:
            exchange = bytes([point]) + self._draw.octets(point)
        else:
            exchange = b"\1\0" + self._draw.octets(256)
        client = _record(_HANDSHAKE, _message(16, exchange)) + _CHANGE + finished
        last = ticket + _CHANGE + self._sealed(_HANDSHAKE, 16)
        return [Flight(False, answer), Flight(True, client), Flight(False, last)]

    def send(self, size: int, record: int = 16_384) -> bytes:
        """Encrypt `size` bytes in records of at most `record` and return the records."""
        return b"".join(self._sealed(23, chunk) for chunk in _chunks(size, record))

    def close(self) -> bytes:
        """Return the close_notify alert of one side."""
        return self._sealed(21, 2)


def _chunks(size: int, limit: int) -> Iterator[int]:
    while size > 0:
        yield min(size, limit)
        size -= limit
