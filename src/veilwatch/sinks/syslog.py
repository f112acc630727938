"""Syslog by RFC 5424: datagrams (RFC 5426), or octet-counted frames on TCP (6587) and TLS (5425).

Syslog has no receipts. On TCP and TLS the sender closes its side after a batch and waits for the
receiver to close the other, which it does when it has read everything; a receiver that never
closes is told by `confirm=no`. A datagram that was sent counts as delivered unless the system
answers that nobody listens.
"""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

from veilwatch.errors import VeilwatchError
from veilwatch.schema.events import Event, EventKind
from veilwatch.schema.text import one_line
from veilwatch.sinks.address import Address
from veilwatch.sinks.base import (
    ANSWER_TIMEOUT_S,
    CONNECT_TIMEOUT_S,
    DeliveryLog,
    EncodedEvent,
    Sink,
)
from veilwatch.sinks.cef import cef
from veilwatch.sinks.channel import opened, tls_context
from veilwatch.sinks.eve import event_text, utc_timestamp

MAX_MESSAGE_BYTES: Final = 8192
"""Longest message: what rsyslog takes unless told otherwise. It cuts longer ones in two."""

MAX_HEADER_BYTES: Final = 192
"""Room for the header before the body."""

REFUSAL_WAIT_S: Final = 0.05
"""How long a refusal of a datagram is waited for: one from the same network comes sooner."""

FACILITIES: Final = {
    "user": 1,
    "daemon": 3,
    "auth": 4,
    "authpriv": 10,
    "audit": 13,
    **{f"local{k}": 16 + k for k in range(8)},
}
"""Facilities by name."""

DEFAULT_PORTS: Final = {"syslog+udp": 514, "syslog+tcp": 601, "syslog+tls": 6514}

_SEVERITY: Final = {1: 2, 2: 4, 3: 5}  # critical, warning, notice
_INFORMATIONAL: Final = 6
_COMMON: Final[Mapping[str, str]] = {
    "body": "json (EVE) or cef",
    "facility": "such as local4",
}


class SyslogUdp(Sink):
    """`syslog+udp://host:514`."""

    PARAMETERS: ClassVar[Mapping[str, str]] = _COMMON

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        if not address.host:
            raise VeilwatchError("the URL names no host", where=address.shown)
        if address.path.strip("/"):
            raise VeilwatchError("syslog has no path", where=address.shown)
        self._body = address.choice("body", ("json", "cef"), "json")
        self._facility = FACILITIES[address.choice("facility", FACILITIES, "local4")]
        self._place = (address.host, address.port or DEFAULT_PORTS[address.scheme])
        self._name = socket.gethostname()

    def encode(self, event: Event) -> bytes:
        """Return the whole message."""
        severity = _SEVERITY[event.alert.severity]
        if event.kind is EventKind.TEST:
            severity = _INFORMATIONAL
        time = utc_timestamp(event.made_ns)
        host = _printable(event.sensor or self._name)
        head = f"<{self._facility * 8 + severity}>1 {time} {host} veilwatch - {event.kind} - "
        if self._body == "cef":
            body = cef(event)
        else:
            body = event_text(event, limit=MAX_MESSAGE_BYTES - MAX_HEADER_BYTES)
        message = head.encode() + body
        if len(message) > MAX_MESSAGE_BYTES:
            raise ValueError(f"longer than {MAX_MESSAGE_BYTES} bytes")
        return message

    def deliver(self, encoded: Sequence[EncodedEvent], log: DeliveryLog) -> None:
        """Send a datagram for each."""
        family, kind, number, _, place = socket.getaddrinfo(*self._place, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, number) as channel:
            channel.settimeout(CONNECT_TIMEOUT_S)
            channel.connect(place)
            for item in encoded:
                channel.send(item.body)
            if select.select([channel], [], [], REFUSAL_WAIT_S)[0]:
                channel.recv(1)  # raises what the system was told: nobody listens
        for item in encoded:
            log.delivered(item.event.event_id)


class SyslogTcp(SyslogUdp):
    """`syslog+tcp://host:601` and `syslog+tls://host:6514`."""

    PARAMETERS: ClassVar[Mapping[str, str]] = {
        **_COMMON,
        "confirm": "close: a batch counts when the receiver closes; no: when it was sent",
        "ca": "file with the certificates that the receiver's must lead to",
        "cert": "file with the certificate and key to show to the receiver",
    }
    UNSURE: ClassVar[bool] = True

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        self._confirm = address.choice("confirm", ("close", "no"), "close") == "close"
        self._tls = tls_context(address) if address.scheme == "syslog+tls" else None

    def deliver(self, encoded: Sequence[EncodedEvent], log: DeliveryLog) -> None:
        """Send a frame for each and wait until the receiver has read them."""
        frames = b"".join(b"%d %b" % (len(item.body), item.body) for item in encoded)
        with opened(*self._place, self._tls, ANSWER_TIMEOUT_S) as channel:
            channel.sendall(frames)
            if self._confirm:
                _closed_by_peer(channel)
        for item in encoded:
            log.delivered(item.event.event_id)


def _closed_by_peer(channel: socket.socket) -> None:
    """Close our side, then wait for the receiver's end of the connection."""
    if isinstance(channel, ssl.SSLSocket):
        try:
            channel = channel.unwrap()
        except ssl.SSLEOFError:  # the receiver closes without a word: it has read the end
            return
    channel.shutdown(socket.SHUT_WR)
    while channel.recv(4096):
        pass


def _printable(name: str) -> str:
    ascii_only = one_line(name).encode("ascii", "replace").decode().replace(" ", "_")
    return ascii_only[:64] or "-"
