"""One HTTP request with an end: bounded in time and size, whatever the peer does.

A connection serves one request. Alerts are few, and a connection that a firewall has silently
dropped, or a peer has half closed, then costs nothing.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final

from veilwatch import __version__
from veilwatch.errors import VeilwatchError
from veilwatch.sinks.address import CREDENTIALS, Address, secret_file
from veilwatch.sinks.base import ANSWER_TIMEOUT_S, CONNECT_TIMEOUT_S

MAX_ANSWER_BYTES: Final = 16 << 20
"""Longest answer read. Elasticsearch writes about 200 bytes for an event of a bulk; a peer that
sends more than this is no such peer."""

MAX_WAIT_S: Final = 3600.0
"""Longest time for which `Retry-After` is believed."""

PARAMETERS: Final[Mapping[str, str]] = CREDENTIALS | {
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


def tls_context(address: Address) -> ssl.SSLContext:
    """Return how to talk TLS with a peer: its certificate is always checked.

    Raises
    ------
    VeilwatchError
        If a file that `ca` or `cert` names cannot be read.
    """
    try:
        context = ssl.create_default_context(cafile=address.parameters.get("ca"))
        if "cert" in address.parameters:
            context.load_cert_chain(address.parameters["cert"])
    except (OSError, ssl.SSLError) as error:
        raise VeilwatchError(
            f"cannot use the certificates: {error.strerror or error}", where=address.shown
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


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
        started = time.monotonic()
        connection = self._connection()
        try:
            connection.connect()
            assert connection.sock is not None
            left = CONNECT_TIMEOUT_S + ANSWER_TIMEOUT_S - (time.monotonic() - started)
            connection.sock.settimeout(max(left, 1.0))
            # A timeout counts for one read; a peer that sends a byte a second needs an end too.
            end = threading.Timer(max(left, 1.0), _cut, [connection.sock])
            end.daemon = True
            end.start()
            try:
                connection.request(method, path, body or None, {**self._headers, **(headers or {})})
                answer = connection.getresponse()
                data = answer.read(MAX_ANSWER_BYTES + 1)
                if answer.length:  # read(n) of a body that ends early tells nobody
                    raise http.client.IncompleteRead(data, answer.length)
            finally:
                end.cancel()
        except http.client.HTTPException as error:
            raise ConnectionError(f"broken HTTP answer ({type(error).__name__})") from error
        except ssl.SSLError:  # among them one that is also a ValueError
            raise
        except ValueError as error:
            raise ConnectionError("broken HTTP answer") from error
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

    def _connection(self) -> http.client.HTTPConnection:
        host = self._address.host
        if self._tls is None:
            return http.client.HTTPConnection(host, self._port, timeout=CONNECT_TIMEOUT_S)
        return http.client.HTTPSConnection(
            host, self._port, timeout=CONNECT_TIMEOUT_S, context=self._tls
        )


def _cut(channel: socket.socket) -> None:
    try:
        channel.shutdown(socket.SHUT_RDWR)
    except OSError:  # it is closed already
        return


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
