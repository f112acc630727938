"""From the first datagrams of a QUIC flow to the hellos of client and server."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from veilwatch.traffic.handshake.quic import (
    HANDSHAKE,
    INITIAL,
    RETRY,
    VERSION_NEGOTIATION,
    LongPacket,
    initial_version,
    long_packets,
)
from veilwatch.traffic.handshake.quic_frames import CryptoStream
from veilwatch.traffic.handshake.quic_initial import InitialKeys, salts
from veilwatch.traffic.handshake.tls import (
    CLIENT_HELLO,
    SERVER_HELLO,
    Message,
    bare_messages,
    is_retry_request,
)

MAX_INITIALS: Final = 32
"""Initial packets of one side that keys are tried on: one in each datagram that is kept, and some
that are coalesced. Reading ends with the hello, so that only what is no hello takes so many."""

MAX_KEYS: Final = 4
"""Pairs of version and connection id that keys of one side are derived from: of the client's first
Initial, after a Retry, after a Version Negotiation, and in the version that the server chose."""


@dataclass(slots=True)
class QuicHandshake:
    """What a QUIC flow says in clear and under public keys.

    Attributes
    ----------
    version
        Of the client's first Initial, 0 if none was seen.
    server_version
        Of the server's first Initial, 0 if none was seen.
    dcid
        Destination connection id of the client's first Initial.
    scid
        Source connection id of the server's first Initial or Handshake packet, else of its Retry.
    token_bytes
        Length of the token in the client's first Initial.
    retry
        Whether the server sent a Retry.
    versions
        What a Version Negotiation offered.
    client, server
        Handshake messages in Initial packets of both sides, the last one perhaps cut.
    """

    version: int = 0
    server_version: int = 0
    dcid: bytes = b""
    scid: bytes = b""
    token_bytes: int = 0
    retry: bool = False
    versions: tuple[int, ...] = ()
    client: list[Message] = field(default_factory=list)
    server: list[Message] = field(default_factory=list)

    @property
    def opened(self) -> bool:
        """Whether the client's Initial packets were opened and gave a whole ClientHello."""
        return bool(self.client) and self.client[0].whole


def read_quic(first: list[bytes], second: list[bytes]) -> QuicHandshake | None:
    """Read the first datagrams of the two directions of a flow, None if they are not QUIC.

    Which one is the client is told by whose packets the client's keys open, else by who sent the
    first Initial.
    """
    sides = _packets(first), _packets(second)
    client, flight = 0, _client_flight(sides[0])
    if not flight:
        flight = _client_flight(sides[1])
        client = 1 if flight or not _sent(sides[0], INITIAL) else 0
    ours, theirs = sides[client], sides[1 - client]
    initials = _sent(ours, INITIAL)
    found = QuicHandshake(client=flight)
    if initials:
        found.version = initials[0].version
        found.dcid = initials[0].dcid
        found.token_bytes = initials[0].token_bytes
    else:
        found.version = _old_version(first) or _old_version(second)
    retries, answers = _sent(theirs, RETRY), _sent(theirs, INITIAL)
    if not found.version and not retries:
        return None
    found.retry = bool(retries)
    chosen = [*answers, *_sent(theirs, HANDSHAKE), *retries]
    found.scid = chosen[0].scid if chosen else b""
    negotiations = _sent(theirs, VERSION_NEGOTIATION)
    found.versions = negotiations[0].versions if negotiations else ()
    if answers:
        found.server_version = answers[0].version
        ids = [packet.scid for packet in retries] + [packet.dcid for packet in initials]
        found.server = _server_flight(answers, ids)
    return found


def _packets(datagrams: list[bytes]) -> list[LongPacket]:
    return [packet for datagram in datagrams for packet in long_packets(datagram)]


def _sent(packets: list[LongPacket], kind: int) -> list[LongPacket]:
    return [packet for packet in packets if packet.kind == kind]


def _old_version(datagrams: list[bytes]) -> int:
    """Return the version of the first Initial whose header only says that, 0 if none."""
    return next((version for d in datagrams if (version := initial_version(d))), 0)


def _client_flight(packets: list[LongPacket]) -> list[Message]:
    """Open a client's Initial packets until its ClientHello is whole."""
    side = _Side()
    flight: list[Message] = []
    for packet in _sent(packets, INITIAL)[:MAX_INITIALS]:
        messages = side.take(packet, [packet.dcid])
        if not messages or messages[0].kind != CLIENT_HELLO:
            continue
        if not flight or len(messages[0].body) > len(flight[0].body):
            flight = messages
        if flight[0].whole:
            break
    return flight


def _server_flight(packets: list[LongPacket], ids: list[bytes]) -> list[Message]:
    """Open a server's Initial packets until its ServerHello is whole.

    Their version may be another one than the client's (RFC 9368, section 2.3); the connection
    id that the keys come from is one of the client's all the same.
    """
    side = _Side(server=True)
    flight: list[Message] = []
    for packet in packets[:MAX_INITIALS]:
        flight = side.take(packet, ids) or flight
        if any(m.kind == SERVER_HELLO and m.whole and not is_retry_request(m) for m in flight):
            break
    return flight


class _Attempt:
    """Keys that may be a side's, and the stream of the packets that they have opened."""

    __slots__ = ("_keys", "_stream", "fits")

    def __init__(self, keys: InitialKeys) -> None:
        self._keys = keys
        self._stream = CryptoStream()
        self.fits = False

    def take(self, packet: LongPacket) -> list[Message] | None:
        """Open a packet and return the stream's messages up to now, None if it does not open."""
        frames = self._keys.open(packet)
        if frames is None:
            return None
        self.fits = True
        self._stream.add(frames)
        return bare_messages(self._stream.whole())


class _Side:
    """The Initial packets of one side, under each of the keys that may fit."""

    def __init__(self, *, server: bool = False) -> None:
        self._server = server
        self._attempts: dict[tuple[int, bytes], list[_Attempt]] = {}

    def take(self, packet: LongPacket, ids: list[bytes]) -> list[Message]:
        """Open a packet with keys from one of `ids` and return the messages up to now.

        Keys that opened an earlier packet come first: the connection id of later packets is
        another one, but the keys change only where a Retry or another version began the
        handshake anew. Empty if no key fits.
        """
        if not packet.whole:
            return []
        fitting = [each for some in self._attempts.values() for each in some if each.fits]
        for attempt in fitting:
            messages = attempt.take(packet)
            if messages is not None:
                return messages
        for dcid in ids:
            for attempt in self._derived(packet.version, dcid):
                messages = None if attempt in fitting else attempt.take(packet)
                if messages is not None:
                    return messages
        return []

    def _derived(self, version: int, dcid: bytes) -> list[_Attempt]:
        """Return the attempts with keys of a version and connection id, within the bound."""
        attempts = self._attempts.get((version, dcid))
        if attempts is None:
            if len(self._attempts) == MAX_KEYS:
                return []
            attempts = [
                _Attempt(InitialKeys(version, salt, dcid, server=self._server))
                for salt in salts(version)
            ]
            self._attempts[version, dcid] = attempts
        return attempts
