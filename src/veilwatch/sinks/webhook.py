"""A POST for each event: for chats, tickets and whatever else takes JSON."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

from veilwatch.errors import VeilwatchError
from veilwatch.schema.events import Event
from veilwatch.sinks.address import Address, secret_file
from veilwatch.sinks.base import BATCH_S, DeliveryLog, EncodedEvent, Sink
from veilwatch.sinks.http import PARAMETERS, Client
from veilwatch.sinks.wire import public_json

_REFUSED: Final = frozenset({400, 413, 415, 422})
_PORTS: Final = {"webhook+http": 80, "webhook+https": 443}


class Webhook(Sink):
    """`webhook+https://host/path`.

    `Idempotency-Key` holds the event's id. With `secret-file`, `X-Veilwatch-Signature` holds the
    HMAC-SHA256 of the body, so that the receiver can tell who sent it.
    """

    PARAMETERS: ClassVar[Mapping[str, str]] = dict(PARAMETERS) | {
        "secret-file": "file with the key that bodies are signed with"
    }
    UNSURE: ClassVar[bool] = True

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        self._client = Client(address, _PORTS[address.scheme])
        self._key = secret_file(address, "secret-file").encode()
        self._path = address.path or "/"
        if not self._path.isascii() or not self._path.isprintable() or " " in self._path:
            raise VeilwatchError("the path has characters that a URL has not", where=address.shown)

    def encode(self, event: Event) -> bytes:
        """Return everything that the event holds."""
        return public_json(event)

    def deliver(self, encoded: Sequence[EncodedEvent], log: DeliveryLog) -> None:
        """Post one after another; a peer that is not well is left alone."""
        until = time.monotonic() + BATCH_S
        for item in encoded:
            if time.monotonic() > until:
                raise TimeoutError
            name = item.event.event_id
            headers = {"Idempotency-Key": _header(name)}
            if self._key:
                digest = hmac.new(self._key, item.body, hashlib.sha256).hexdigest()
                headers["X-Veilwatch-Signature"] = f"sha256={digest}"
            answer = self._client.request("POST", self._path, item.body, headers)
            if 200 <= answer.status < 300:
                log.delivered(name)
            elif answer.status in _REFUSED:
                log.refused(name, f"refused with {answer.status}")
            else:
                log.wait_s = answer.wait_s
                for left in log.unresolved(encoded):
                    log.again(left.event.event_id, f"the peer answered {answer.status}")
                return


def _header(name: str) -> str:
    return "".join(c for c in name if c.isascii() and c.isalnum())[:64]
