"""SecBuzzer ESM by its Unix datagram socket (DetectionEdge V2.4), where Suricata's events go.

Fluent Bit reads it: one JSON object a datagram, below 32,000 bytes, timestamps with a zone
without a colon; an event with a top-level `time` would lose its own. The index is
`suricata-%Y-%m`.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from veilwatch.errors import VeilwatchError
from veilwatch.schema.events import Event
from veilwatch.sinks.address import Address
from veilwatch.sinks.base import DeliveryLog, EncodedEvent, Sink
from veilwatch.sinks.eve import MAX_LINE_BYTES, TAIPEI, event_text

FULL_WAIT_S: Final = 2.0
"""How long a batch may wait for a reader that has fallen behind: the kernel queues about 10
datagrams and Fluent Bit empties them every few milliseconds unless it is stuck."""

RETRY_S: Final = 0.01
"""Pause before a full queue is tried again."""

MAX_SOCKET_PATH: Final = 107
"""Longest path of a Unix socket in bytes: what `sun_path` of the kernel holds."""

_FULL: Final = frozenset({errno.EAGAIN, errno.ENOBUFS})
_WORDS: Final = {
    errno.ENOENT: "the socket does not exist: is Fluent Bit running?",
    errno.ECONNREFUSED: "nobody reads the socket: is Fluent Bit running?",
    errno.EACCES: "the socket may not be written to: run as its owner, or let its mode allow it",
    errno.EPROTOTYPE: "the socket is not one for datagrams",
}


class EsmSocket(Sink):
    """`secbuzzer+unix:///path/eve.socket`."""

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        if address.host or not address.path.startswith("/"):
            raise VeilwatchError(
                "a socket's URL has three slashes and an absolute path",
                where=address.shown,
                hint="secbuzzer+unix:///opt/cyfoundry/logs/suricata/eve.socket",
            )
        self.path = Path(address.path)
        if len(bytes(self.path)) > MAX_SOCKET_PATH:
            raise VeilwatchError(
                f"a socket's path has at most {MAX_SOCKET_PATH} bytes", where=address.shown
            )

    def encode(self, event: Event) -> bytes:
        """Return one JSON object without a line's end."""
        return event_text(event, zone=TAIPEI, limit=MAX_LINE_BYTES)

    def deliver(self, encoded: Sequence[EncodedEvent], log: DeliveryLog) -> None:
        """Send a datagram for each; what the reader has no room for is left."""
        until = time.monotonic() + FULL_WAIT_S
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.setblocking(False)
            try:
                # Connected anew for each batch: a reader that was restarted has another socket.
                channel.connect(str(self.path))
                for item in encoded:
                    try:
                        _send(channel, item.body, until)
                    except OSError as error:
                        if error.errno != errno.EMSGSIZE:
                            raise
                        log.refused(item.event.event_id, "longer than the system sends")
                    else:
                        log.delivered(item.event.event_id)
            except OSError as error:
                words = _WORDS.get(error.errno or 0)
                raise OSError(error.errno, words) if words else error from error


def _send(channel: socket.socket, body: bytes, until: float) -> None:
    while True:
        try:
            channel.send(body)
            return
        except OSError as error:
            if error.errno not in _FULL:
                raise
        if time.monotonic() >= until:
            raise OSError(errno.EAGAIN, f"the reader left the queue full for {FULL_WAIT_S:g} s")
        time.sleep(RETRY_S)
