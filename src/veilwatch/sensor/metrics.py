"""Metrics for Prometheus and answers for a supervisor, over HTTP, on loopback by default."""

from __future__ import annotations

import hmac
import ipaddress
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest

from veilwatch.errors import VeilwatchError

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

Status = dict[str, Any]

STATES: Final = {
    "healthy": "Whether all processes run.",
    "ready": "Whether packets can be read and tables be scored.",
}
"""Of the sensor as a whole, 0 or 1."""

COUNTERS: Final = {
    "packets": ("ingest", "packets", "Packets read."),
    "decoded": ("ingest", "packets_decoded", "Packets decoded."),
    "kernel_dropped": ("ingest", "packets_kernel_dropped", "Packets that the kernel dropped."),
    "interruptions": ("ingest", "interface_interruptions", "Times the interface went away."),
    "rows_early": ("ingest", "rows_early", "Reports of live flows."),
    "rows_ended": ("ingest", "rows_ended", "Records of flows that ended."),
    "flows": ("judge", "flows_scored", "Flows scored at their end."),
    "bytes": ("judge", "flow_bytes", "IP bytes of flows that ended."),
    "flows_gtp": ("judge", "flows_in_gtp", "Flows in GTP-U tunnels."),
    "flows_encrypted": ("judge", "flows_encrypted", "Flows with a handshake of TLS, DTLS or QUIC."),
    "archive_lost": ("judge", "archive_flows_lost", "Flows for which the archive had no room."),
}
"""By name in a child's status: kind of child, name of the metric, what it counts."""

TABLES: Final = {
    "dropped": ("ingest", "rows_dropped", "kind", "Rows dropped before they were scored."),
    "refused": ("ingest", "packets_refused", "reason", "Packets refused."),
    "fate": ("judge", "alerts_ruled", "fate", "Alerts by what the policy made of them."),
    "alerts": ("judge", "alerts_raised", "kind", "Alerts before the policy."),
    "faults": ("judge", "faults", "of", "Times something could not be written."),
}
"""The same for tables of counts: with the label of their entries."""

GAUGES: Final = {
    "live_flows": ("ingest", "live_flows", "Flows alive."),
    "waiting_rows": ("ingest", "waiting_rows", "Rows that wait for the scoring process."),
    "hosts": ("judge", "hosts", "Hosts whose evidence is kept."),
    "incidents": ("judge", "open_incidents", "Incidents open."),
    "backlog": ("judge", "backlog_events", "Events that the disk had no room for yet."),
    "memory": ("judge", "memory_level", "0 enough memory, 1 no archive, 2 no early reports."),
    "emulated_model": ("judge", "model_emulated", "1 where the model learned emulated traffic."),
    "score_psi": ("judge", "score_stability_index", "Drift of the scores of this hour."),
    "delay_s": ("judge", "table_delay_seconds", "Age of the last table when it was scored."),
}

SINKS: Final = {
    "pending": ("sink_pending_events", "Events that wait for the sink."),
    "set_aside": ("sink_set_aside_events", "Events that the sink will never take."),
    "lag_s": ("sink_lag_seconds", "Age of the oldest event that waits."),
}


class SensorCollector:
    """Make metrics of what the parent knows of its children.

    Parameters
    ----------
    status
        Returns what is written to the status file.
    """

    def __init__(self, status: Callable[[], Status]) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics as they stand now."""
        status = self._status()
        for name, doc in STATES.items():
            yield GaugeMetricFamily(f"veilwatch_{name}", doc, value=float(bool(status.get(name))))
        children: Mapping[str, Mapping[str, Any]] = status.get("children", {})
        for name, (kind, metric, doc) in COUNTERS.items():
            family = CounterMetricFamily(f"veilwatch_{metric}", doc, labels=["process"])
            for child, said in _of(children, kind):
                family.add_metric([child], float(said.get(name, 0)))
            yield family
        for name, (kind, metric, label, doc) in TABLES.items():
            family = CounterMetricFamily(f"veilwatch_{metric}", doc, labels=["process", label])
            for child, said in _of(children, kind):
                for entry, count in dict(said.get(name, {})).items():
                    family.add_metric([child, _label(entry)], float(count))
            yield family
        for name, (kind, metric, doc) in GAUGES.items():
            gauge = GaugeMetricFamily(f"veilwatch_{metric}", doc, labels=["process"])
            for child, said in _of(children, kind):
                if said.get(name, 0) is not None:  # None: not known yet
                    gauge.add_metric([child], float(said.get(name, 0)))
            yield gauge
        yield from _scores(children)
        yield from _sinks(children)
        yield from _processes(children)


def _of(
    children: Mapping[str, Mapping[str, Any]], kind: str
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    return ((child, said) for child, said in children.items() if child.split("-")[0] == kind)


def _scores(children: Mapping[str, Mapping[str, Any]]) -> Iterator[Metric]:
    family = CounterMetricFamily(
        "veilwatch_flow_scores", "Flows by tenth of their score.", labels=["from", "to"]
    )
    for _, said in _of(children, "judge"):
        for number, count in enumerate(said.get("score", ())):
            family.add_metric([f"{number / 10:.1f}", f"{(number + 1) / 10:.1f}"], float(count))
    yield family


def _sinks(children: Mapping[str, Mapping[str, Any]]) -> Iterator[Metric]:
    for name, (metric, doc) in SINKS.items():
        gauge = GaugeMetricFamily(f"veilwatch_{metric}", doc, labels=["sink"])
        for _, said in _of(children, "deliver"):
            for sink in said.get("sinks", ()):
                gauge.add_metric([_label(sink["name"])], float(sink[name]))
        yield gauge
    for name in ("delivered", "dropped"):
        family = CounterMetricFamily(
            f"veilwatch_sink_{name}_events", f"Events {name}.", labels=["sink"]
        )
        for _, said in _of(children, "deliver"):
            for sink in said.get("sinks", ()):
                family.add_metric([_label(sink["name"])], float(sink[name]))
        yield family


def _label(value: object) -> str:
    """Return a text that UTF-8 can say: one label that it cannot would cost all metrics."""
    return str(value).encode("utf-8", "replace").decode()


def _processes(children: Mapping[str, Mapping[str, Any]]) -> Iterator[Metric]:
    restarts = CounterMetricFamily(
        "veilwatch_process_restarts", "Times it was started again.", labels=["process"]
    )
    cpu = CounterMetricFamily(
        "veilwatch_process_cpu_seconds", "CPU time of its present start.", labels=["process"]
    )
    memory = GaugeMetricFamily(
        "veilwatch_process_resident_bytes", "Resident memory.", labels=["process"]
    )
    for child, said in children.items():
        restarts.add_metric([child], float(said.get("restarts", 0)))
        cpu.add_metric([child], float(said.get("cpu_s", 0.0)))
        memory.add_metric([child], float(said.get("rss", 0)))
    yield from (restarts, cpu, memory)


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
