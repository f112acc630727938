"""Answers for Prometheus and a supervisor over HTTP, on loopback by default."""

from __future__ import annotations

import hmac
import ipaddress
import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from veilwatch.errors import VeilwatchError
from veilwatch.sensor.metrics import SensorCollector, Status

TIMEOUT_S: Final = 5.0
"""How long one connection may be silent: a reader that hangs must not keep a thread."""

LONGEST_S: Final = 10.0
"""How long one may take as a whole: a reader that sends a byte now and then neither."""

MAX_CONNECTIONS: Final = 16
"""Connections of others than this machine answered at a time. Beyond it the one that has been
silent longest is closed for the new one."""

MAX_OF_PEER: Final = 6
"""The same for one address: one that is broken keeps no other from asking."""

LOCAL_CONNECTIONS: Final = 16
"""Connections from loopback answered at a time, of their own: the supervisor asks from there, and
no stranger may make it take the sensor for dead."""

MAX_REQUEST: Final = 16_384
"""Most bytes read of one connection: a request is a line and some fields, and a body is no part of
what can be asked."""


class StatusServer:
    """Answer `/metrics`, `/healthz` (all processes live) and `/readyz` (traffic is being read).

    Nothing can be changed through it, and nothing of subscribers or hosts is told. Requests may
    hold anything; an answer takes `LONGEST_S` at most.

    Parameters
    ----------
    listen
        Address and port.
    status
        Returns what is written to the status file; called by other threads.
    token
        What a reader of metrics has to show (RFC 6750 section 2.1), '' for nothing.

    Raises
    ------
    VeilwatchError
        If the port cannot be had.
    """

    def __init__(self, listen: str, status: Callable[[], Status], *, token: str = "") -> None:
        host, _, port = listen.rpartition(":")
        registry = CollectorRegistry(auto_describe=False)
        registry.register(SensorCollector(status))
        slots = _Slots()

        class Handler(BaseHTTPRequestHandler):
            timeout = TIMEOUT_S
            server_version = "veilwatch"
            sys_version = ""

            def setup(self) -> None:
                super().setup()
                self.rfile = _Bounded(self.rfile, partial(slots.touch, self.connection))  # type: ignore[assignment]

            def do_GET(self) -> None:
                shown = self.headers.get("Authorization", "")
                if self.path == "/metrics" and not is_allowed(shown, token):
                    code, kind, body = 401, "text/plain; charset=utf-8", b"a token is needed\n"
                else:
                    code, kind, body = answer(self.path, status, registry)
                self.send_response(code)
                if code == 401:
                    self.send_header("WWW-Authenticate", "Bearer")
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing: a probe comes every few seconds."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = MAX_CONNECTIONS + LOCAL_CONNECTIONS

            def process_request(self, request: Any, client_address: Any) -> None:
                slots.enter(request, str(client_address[0]))
                try:
                    super().process_request(request, client_address)
                except RuntimeError:  # no thread can be had
                    slots.leave(request)
                    self.shutdown_request(request)

            def process_request_thread(self, request: Any, client_address: Any) -> None:
                # The time limit of a socket is for each read: this one is for all of them.
                end = threading.Timer(LONGEST_S, _hang_up, (request,))
                end.daemon = True
                try:
                    end.start()
                    super().process_request_thread(request, client_address)
                finally:
                    end.cancel()
                    slots.leave(request)

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Say nothing of a reader that went away."""

        if ":" in host:
            Server.address_family = socket.AF_INET6
        try:
            self._server = Server((host.strip("[]"), int(port)), Handler)
        except OSError as error:
            raise VeilwatchError(
                f"cannot listen: {error.strerror or error}",
                where=f"metrics.listen {listen}",
                hint="choose another address or port",
            ) from error
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="metrics", daemon=True
        )
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the thread that takes connections is there."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Answer no more."""
        if self._thread.is_alive():  # else it waits for a loop that is over
            self._server.shutdown()
        self._server.server_close()


@dataclass(slots=True)
class _Slot:
    """A connection that is being answered."""

    peer: str
    heard_s: float


class _Slots:
    """Which connections are answered; who is beyond a bound closes the one silent for longest."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[socket.socket, _Slot] = {}

    def enter(self, connection: socket.socket, peer: str) -> None:
        """Take in a connection, and hang up on others for it where there are too many."""
        local = _is_local(peer)
        with self._lock:
            self._open[connection] = _Slot(peer, time.monotonic())
            alike = [one for one, slot in self._open.items() if _is_local(slot.peer) == local]
            of_peer = [one for one in alike if self._open[one].peer == peer]
            # Of this machine all have one address: only their number is bounded.
            bounds = [(alike, LOCAL_CONNECTIONS if local else MAX_CONNECTIONS)]
            bounds += [] if local else [(of_peer, MAX_OF_PEER)]
            for group, most in bounds:
                if len([one for one in group if one in self._open]) > most:
                    oldest = min(
                        (one for one in group if one in self._open and one is not connection),
                        key=lambda one: self._open[one].heard_s,
                    )
                    del self._open[oldest]
                    _hang_up(oldest)

    def touch(self, connection: socket.socket) -> None:
        """Note that something came on a connection."""
        with self._lock:
            if connection in self._open:
                self._open[connection].heard_s = time.monotonic()

    def leave(self, connection: socket.socket) -> None:
        """Let go of a connection."""
        with self._lock:
            self._open.pop(connection, None)


class _Bounded:
    """What a reader sends, up to a bound; each read tells that something came."""

    def __init__(self, stream: Any, heard: Callable[[], None]) -> None:
        self._stream, self._heard, self._left = stream, heard, MAX_REQUEST

    def readline(self, limit: int = -1) -> bytes:
        """Return the next line, or what is left within the bound."""
        most = self._left if limit < 0 else min(limit, self._left)
        line: bytes = self._stream.readline(most) if most else b""
        self._left -= len(line)
        self._heard()
        return line

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return bool(self._stream.closed)


def _is_local(peer: str) -> bool:
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def _hang_up(connection: socket.socket) -> None:
    with suppress(OSError):  # it is over already
        connection.shutdown(socket.SHUT_RDWR)


def is_allowed(shown: str, token: str) -> bool:
    """Whether the value of an `Authorization` field holds the token; how long it takes says not.

    The scheme is written in any case and ends with spaces (RFC 9110 section 11.1, RFC 7235 section
    2.1); the token counts as it is.
    """
    if not token:
        return True
    scheme, _, credentials = shown.strip(" \t").partition(" ")
    given = credentials.lstrip(" ").encode("utf-8", "replace")
    same = hmac.compare_digest(given, token.encode())
    return same and scheme.lower() == "bearer"


def answer(
    path: str, status: Callable[[], Status], registry: CollectorRegistry
) -> tuple[int, str, bytes]:
    """Return code, content type and body of the answer to one request."""
    if path == "/metrics":
        return 200, "text/plain; version=0.0.4; charset=utf-8", generate_latest(registry)
    if path in ("/healthz", "/readyz"):
        said = status()
        name = "healthy" if path == "/healthz" else "ready"
        good = bool(said.get(name))
        body = json.dumps({name: good, "processes": said.get("states", {})}) + "\n"
        return 200 if good else 503, "application/json", body.encode()
    return 404, "text/plain; charset=utf-8", b"/metrics, /healthz, /readyz\n"
