"""One HTTP request with an end: bounded in time and size, whatever the peer does.

A connection serves one request. Alerts are few, and a connection that a firewall has silently
dropped, or a peer has half closed, then costs nothing.
"""

from __future__ import annotations

import http.client
import time
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final

from veilwatch import __version__
from veilwatch.errors import VeilwatchError
from veilwatch.sinks.address import CREDENTIALS, URL_FILE, Address, secret_file
from veilwatch.sinks.base import ANSWER_TIMEOUT_S
from veilwatch.sinks.channel import opened, tls_context

MAX_ANSWER_BYTES: Final = 16 << 20
"""Longest answer read. Elasticsearch writes about 200 bytes for an event of a bulk; a peer that
sends more than this is no such peer."""

MAX_WAIT_S: Final = 3600.0
"""Longest time for which `Retry-After` is believed."""

PARAMETERS: Final[Mapping[str, str]] = CREDENTIALS | {
    URL_FILE: "file with the whole URL, where its path is a secret; others may not read it",
    "ca": "file with the certificates that the peer's must lead to",
    "cert": "file with the certificate and key to show to the peer",
}
"""Parameters of every sink that speaks HTTP."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a peer answered.

    Attributes
    ----------
    status
        HTTP status.
    body
        Whole.
    wait_s
        Seconds asked for by `Retry-After`, 0 none.
    date
        The `Date` header, '' none.
    """

    status: int
    body: bytes
    wait_s: float = 0.0
    date: str = ""


class Client:
    """Sends requests to one peer.

    Parameters
    ----------
    address
        Its scheme ends in http or https.
    default_port
        Where the URL names none.
    """

    def __init__(self, address: Address, default_port: int) -> None:
        if not address.host:
            raise VeilwatchError("the URL names no host", where=address.shown)
        self._address = address
        self._port = address.port or default_port
        secure = address.scheme.endswith("https")
        self._tls = tls_context(address) if secure else None
        self._headers = {
            "User-Agent": f"veilwatch/{__version__}",
            "Content-Type": "application/json",
            "Connection": "close",
        }
        key = secret_file(address, "api-key-file")
        if key:
            self._headers["Authorization"] = f"ApiKey {key}"
        elif address.user:
            login = b64encode(f"{address.user}:{address.password}".encode()).decode()
            self._headers["Authorization"] = f"Basic {login}"

    def request(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send one request and return the whole answer.

        Raises
        ------
        OSError
            If the peer is down, silent for too long, or speaks something else.
        """
        connection = http.client.HTTPConnection(self._address.host, self._port)
        try:
            with opened(self._address.host, self._port, self._tls, ANSWER_TIMEOUT_S) as channel:
                connection.sock = channel
                connection.request(method, path, body or None, {**self._headers, **(headers or {})})
                answer = connection.getresponse()
                data = answer.read(MAX_ANSWER_BYTES + 1)
                if answer.length:  # read(n) of a body that ends early tells nobody
                    raise http.client.IncompleteRead(data, answer.length)
        except (http.client.HTTPException, ValueError) as error:
            if isinstance(error, OSError):  # some are both
                raise
            raise ConnectionError(f"broken HTTP answer ({type(error).__name__})") from error
        finally:
            connection.close()
        if len(data) > MAX_ANSWER_BYTES:
            raise ConnectionError(f"an answer of more than {MAX_ANSWER_BYTES} bytes")
        return Answer(
            answer.status,
            data,
            _seconds(answer.getheader("Retry-After", "")),
            answer.getheader("Date", ""),
        )


def _seconds(text: str) -> float:
    """Return what `Retry-After` asks for: seconds, or a date."""
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), MAX_WAIT_S)
    if not text:
        return 0.0
    try:
        return min(max(parsedate_to_datetime(text).timestamp() - time.time(), 0.0), MAX_WAIT_S)
    except (ValueError, OverflowError):
        return 0.0
