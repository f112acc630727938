"""Real TLS: client and server of OpenSSL talk through memory, nothing reaches a network.

What a TLS connection shows (message order, record sizes, extensions, certificates) is what
OpenSSL writes. Sizes repeat by seed; random values, keys and ciphertext do not, as OpenSSL
draws them itself. The one length that OpenSSL leaves to chance, that of an ECDSA signature, is
fixed by starting a handshake again until it has its most frequent value.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Final, NamedTuple

from veilwatch.corpus.lab.certificates import ECDSA_BYTES, load_certificate
from veilwatch.corpus.lab.draw import Draw
from veilwatch.corpus.lab.profile import CertificateKind, Stack

_MAX_ATTEMPTS: Final = 200  # half of all ECDSA signatures have the wanted length

_CERTIFICATE_VERIFY: Final = 25  # TLS 1.3: bytes of the record beside the signature
_SERVER_HELLO_DONE: Final = 4  # TLS 1.2: bytes of the record
_SERVER_KEY_EXCHANGE: Final = {44, 77}  # the same with X25519, with P-256


class Flight(NamedTuple):
    """Bytes that one side sends in one go."""

    uplink: bool
    data: bytes


class _Build(NamedTuple):
    """How one implementation of TLS is configured."""

    newest: ssl.TLSVersion
    ciphers: str
    curve: str  # '' the library's own list of groups
    tickets: bool


_BUILDS: Final[dict[Stack, _Build]] = {
    "wide": _Build(ssl.TLSVersion.TLSv1_3, "DEFAULT", "", True),
    "mobile": _Build(ssl.TLSVersion.TLSv1_3, "ECDHE+AESGCM:ECDHE+CHACHA20", "", True),
    "nist": _Build(
        ssl.TLSVersion.TLSv1_3, "ECDHE+AESGCM:DHE+AESGCM:ECDHE+AES:RSA+AES", "prime256v1", True
    ),
    "wide12": _Build(ssl.TLSVersion.TLSv1_2, "DEFAULT", "", True),
    "cbc12": _Build(ssl.TLSVersion.TLSv1_2, "ECDHE+AES:DHE+AES:RSA+AES", "prime256v1", True),
    "embedded12": _Build(
        ssl.TLSVersion.TLSv1_2, "ECDHE+AES128:ECDHE+CHACHA20", "prime256v1", False
    ),
}


@cache
def _client_context(stack: Stack, alpn: tuple[str, ...]) -> ssl.SSLContext:
    build = _BUILDS[stack]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # no party is real: there is nobody to authenticate
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = build.newest
    context.set_ciphers(build.ciphers)
    if build.curve:
        context.set_ecdh_curve(build.curve)
    if not build.tickets:
        context.options |= ssl.OP_NO_TICKET
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


@dataclass(frozen=True, slots=True)
class TlsServer:
    """The TLS side of one server."""

    name: str
    context: ssl.SSLContext
    ecdsa: bool


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
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_3 if version == "1.3" else ssl.TLSVersion.TLSv1_2
    context.set_ciphers(draw.one(["DEFAULT", "ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AES", "ECDHE+AES"]))
    context.num_tickets = draw.one([1, 2, 2])
    if alpn:
        context.set_alpn_protocols(list(alpn))
    ecdsa = load_certificate(context, certificate, name, day, draw)
    return TlsServer(name, context, ecdsa)


def record_lengths(data: bytes) -> list[int]:
    """Return the lengths of the TLS records in `data`, without their 5-byte headers."""
    lengths = []
    offset = 0
    while offset + 5 <= len(data):
        lengths.append(int.from_bytes(data[offset + 3 : offset + 5], "big"))
        offset += 5 + lengths[-1]
    return lengths


def _has_odd_signature(first_flight: bytes) -> bool:
    """Return whether a server's first flight holds an ECDSA signature of an unwanted length.

    The signature is in the record before the last: CertificateVerify in TLS 1.3, after
    ServerHello, ChangeCipherSpec, EncryptedExtensions and Certificate; ServerKeyExchange in
    TLS 1.2, before ServerHelloDone. A resumed handshake has no signature.
    """
    lengths = record_lengths(first_flight)
    if len(lengths) == 6:
        return lengths[-2] != ECDSA_BYTES + _CERTIFICATE_VERIFY
    signed = len(lengths) == 4 and lengths[-1] == _SERVER_HELLO_DONE
    return signed and lengths[-2] - ECDSA_BYTES not in _SERVER_KEY_EXCHANGE


class Connection:
    """One TLS connection, from ClientHello to close_notify.

    Parameters
    ----------
    server
        The server that answers.
    stack
        Configuration of the client.
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
        stack: Stack,
        *,
        alpn: tuple[str, ...] = (),
        sni: bool = True,
        session: ssl.SSLSession | None = None,
    ) -> None:
        self._server = server
        self._client_context = _client_context(stack, alpn)
        self._sni = server.name if sni else None
        self._session = session

    def _begin(self) -> None:
        to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
        from_client, from_server = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._inputs = (to_client, to_server)
        self._outputs = (from_client, from_server)
        self._ends = (
            self._client_context.wrap_bio(
                to_client, from_client, server_hostname=self._sni, session=self._session
            ),
            self._server.context.wrap_bio(to_server, from_server, server_side=True),
        )

    def _step(self, side: int) -> bytes:
        with suppress(ssl.SSLWantReadError):
            self._ends[side].do_handshake()
        data = self._outputs[side].read()
        self._inputs[1 - side].write(data)
        return data

    def handshake(self) -> list[Flight]:
        """Shake hands and return what each side sent, in order."""
        for _ in range(_MAX_ATTEMPTS):
            self._begin()
            hello, answer = self._step(0), self._step(1)
            if not (self._server.ecdsa and _has_odd_signature(answer)):
                break
        flights = [Flight(True, hello), Flight(False, answer)]
        for turn in range(4):
            data = self._step(turn & 1)
            if data:
                flights.append(Flight(turn & 1 == 0, data))
        with suppress(ssl.SSLWantReadError):
            self._ends[0].read(1)  # takes in the tickets of TLS 1.3
        return flights

    @property
    def session(self) -> ssl.SSLSession | None:
        """What a later connection to the same server may resume."""
        return self._ends[0].session

    @property
    def resumed(self) -> bool:
        """Whether this connection resumed an earlier one."""
        return bool(self._ends[0].session_reused)

    def send(self, uplink: bool, size: int, record: int = 16_384) -> bytes:
        """Encrypt `size` bytes in records of at most `record` and return the records."""
        side = 0 if uplink else 1
        end, output = self._ends[side], self._outputs[side]
        for chunk in _chunks(size, record):
            end.write(bytes(chunk))
        return output.read()

    def close(self, uplink: bool) -> bytes:
        """Return the close_notify alert of one side."""
        side = 0 if uplink else 1
        with suppress(ssl.SSLError):  # the peer's alert never comes
            self._ends[side].unwrap()
        return self._outputs[side].read()


def _chunks(size: int, limit: int) -> Iterator[int]:
    while size > 0:
        yield min(size, limit)
        size -= limit
