"""Metrics and probes: what they say, and that no request takes them down."""

from __future__ import annotations

import errno
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from tests.examples import examples
from veilwatch.errors import VeilwatchError
from veilwatch.sensor import status_server
from veilwatch.sensor.config import CaptureSection, MetricsSection, ModelSection, SensorConfig
from veilwatch.sensor.settings import metrics_token
from veilwatch.sensor.status_server import StatusServer

STATUS: dict[str, Any] = {
    "healthy": True,
    "ready": False,
    "states": {"ingest-0": "running", "judge": "running", "deliver": "running"},
    "children": {
        "ingest-0": {
            "packets": 7,
            "refused": {'A"\n\\': 2, "\udcff": 1},
            "live_flows": 3,
            "cpu_s": 1.5,
        },
        "judge": {
            "flows": 5,
            "score": [1, 2],
            "memory": 1,
            "emulated_model": True,
            "fate": {"told": 4},
        },
        "deliver": {
            "sinks": [
                {"name": "jsonl+file:///x", "pending": 1, "set_aside": 0, "lag_s": 2.5}
                | {"delivered": 9, "dropped": 0}
            ]
        },
    },
}

MOST_BYTES = 1 << 20


@pytest.fixture(scope="module")
def server() -> Iterator[StatusServer]:
    made = StatusServer("127.0.0.1:0", lambda: STATUS)
    yield made
    made.close()


def ask(server: StatusServer, request: bytes, *, close: bool = True) -> bytes:
    """Send bytes and return all that comes back."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        answer = b""
        try:
            connection.sendall(request)
            if close:
                connection.shutdown(socket.SHUT_WR)
            while more := connection.recv(65_536):
                answer += more
                assert len(answer) <= MOST_BYTES
        except OSError as error:
            # Hung up on amid our bytes, and noticed by whichever call came next.
            if error.errno not in (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN):
                raise
    return answer


def get(server: StatusServer, path: str) -> tuple[int, bytes]:
    head, _, body = ask(server, f"GET {path} HTTP/1.0\r\n\r\n".encode()).partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def test_probes_tell_live_from_ready(server: StatusServer) -> None:
    code, body = get(server, "/healthz")
    assert code == 200
    assert json.loads(body) == {"healthy": True, "processes": STATUS["states"]}
    assert get(server, "/readyz")[0] == 503
    assert get(server, "/")[0] == 404


def test_metrics_are_what_prometheus_reads(server: StatusServer) -> None:
    code, body = get(server, "/metrics")
    assert code == 200
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }
    assert samples["veilwatch_packets_total", "ingest-0"] == 7
    assert samples["veilwatch_packets_refused_total", 'A"\n\\', "ingest-0"] == 2
    assert samples["veilwatch_memory_level", "judge"] == 1
    assert samples["veilwatch_model_emulated", "judge"] == 1
    assert (samples["veilwatch_healthy",], samples["veilwatch_ready",]) == (1, 0)
    assert samples["veilwatch_sink_lag_seconds", "jsonl+file:///x"] == 2.5


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT"])
def test_nothing_can_be_changed(server: StatusServer, method: str) -> None:
    answer = ask(server, f"{method} /metrics HTTP/1.1\r\nContent-Length: 2\r\n\r\n{{}}".encode())
    assert answer.split()[1] == b"501"


PIECES = (
    *(b"GET ", b"/metrics", b" HTTP/1.1", b" HTTP/9.9", b"\r\n", b"\n", b": ", b"\0", b"../" * 50),
    *(b"Content-Length: 99999999999", b"Transfer-Encoding: chunked", b"Expect: 100-continue"),
    *(b"Connection: keep-alive", b"A" * 70_000, b"X: y\r\n" * 150, b"\xff\xfe", b"/readyz"),
    b"/healthz?x=\x1b[31m",
)
PIECE = st.one_of(st.sampled_from(PIECES), st.binary(max_size=40))
HTTP_LIKE = st.lists(PIECE, max_size=12).map(b"".join)


@examples(200)
@given(st.one_of(HTTP_LIKE, st.binary(max_size=300)))
def test_any_bytes_have_a_bounded_answer_and_the_server_lives(
    server: StatusServer, request: bytes
) -> None:
    ask(server, request)
    assert get(server, "/healthz")[0] == 200


def connected(server: StatusServer, peer: str) -> socket.socket:
    """Connect from an address; on Linux all of 127/8 is ours."""
    return socket.create_connection(("127.0.0.1", server.port), 20, source_address=(peer, 0))


def test_who_sends_slowly_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_server, "LONGEST_S", 2.0)
    server = StatusServer("127.0.0.1:0", lambda: STATUS)
    began = time.monotonic()
    slow = connected(server, "127.0.0.1")
    try:
        slow.sendall(b"GET /met")
        with pytest.raises(OSError, match=r"reset|[Bb]roken"):
            while time.monotonic() - began < 4.5:  # within the limit of a single read
                time.sleep(0.2)
                slow.sendall(b"r")
    finally:
        slow.close()
        server.close()


@pytest.mark.parametrize("local", [True, False])
def test_half_sent_requests_of_any_number_starve_nobody(
    monkeypatch: pytest.MonkeyPatch, local: bool
) -> None:
    """Forty and more that send half a request and wait: probes are answered all the same."""
    if not local:  # strangers are played by addresses of ours: only the last one is the machine's
        monkeypatch.setattr(status_server, "_is_local", lambda peer: peer == "127.0.0.1")
    server = StatusServer("127.0.0.1:0", lambda: STATUS)
    crowd = []
    try:
        for number in range(60):
            crowd.append(connected(server, "127.0.0.1" if local else f"127.0.0.{2 + number % 7}"))
            crowd[-1].sendall(b"GET /healthz HTTP/1.1\r\nX: ")
        began = time.monotonic()
        for _ in range(10):
            assert get(server, "/healthz")[0] == 200
        assert (
            time.monotonic() - began < status_server.TIMEOUT_S
        )  # not by waiting for the crowd's end
    finally:
        for connection in crowd:
            connection.close()
        server.close()


def test_one_address_keeps_no_other_from_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_server, "_is_local", lambda peer: False)
    server = StatusServer("127.0.0.1:0", lambda: STATUS)
    crowd = []
    try:
        patient = connected(server, "127.0.0.9")  # has begun first and is not done yet
        patient.sendall(b"GET /healthz HT")
        for _ in range(50):
            crowd.append(connected(server, "127.0.0.2"))
            crowd[-1].sendall(b"GET /")
        time.sleep(0.3)
        patient.sendall(b"TP/1.0\r\n\r\n")
        assert patient.recv(100).startswith(b"HTTP/1.0 200")
        patient.close()
    finally:
        for connection in crowd:
            connection.close()
        server.close()


def test_a_request_is_bounded(server: StatusServer) -> None:
    fields = b"".join(b"X-%d: %s\r\n" % (n, b"y" * 1000) for n in range(90))
    said = ask(server, b"GET /healthz HTTP/1.0\r\n" + fields + b"\r\n")
    assert len(said) < 2000


def test_a_port_that_is_taken_is_one_line(server: StatusServer) -> None:
    with pytest.raises(VeilwatchError, match="cannot listen"):
        StatusServer(f"127.0.0.1:{server.port}", lambda: STATUS)


def test_metrics_behind_a_token() -> None:
    server = StatusServer("127.0.0.1:0", lambda: STATUS, token="0123456789abcdef")
    try:

        def code(path: str, header: str = "") -> bytes:
            request = f"GET {path} HTTP/1.0\r\n{header}\r\n".encode("latin-1")
            return ask(server, request).split()[1]

        assert code("/metrics", "Authorization: Bearer 0123456789abcdef\r\n") == b"200"
        for scheme in ("bearer", "BEARER", "bEaReR ", "Bearer   "):
            assert code("/metrics", f"Authorization: {scheme} 0123456789abcdef\r\n") == b"200"
        for wrong in (
            "",
            "Authorization: Basic 0123456789abcdef\r\n",
            "Authorization: Bearer 0123456789ABCDEF\r\n",
            "Authorization: Bearer 0123456789abcdef x\r\n",
            "Authorization: Bearer 0123456789abcde\r\n",
            "Authorization: Bearer\r\n",
            "Authorization: 0123456789abcdef\r\n",
            "Authorization: Bearer \xe9\xff\r\n",
        ):
            assert code("/metrics", wrong) == b"401"
        assert (code("/healthz"), code("/readyz")) == (b"200", b"503")
    finally:
        server.close()


def test_tokens_are_checked(tmp_path: Path) -> None:
    file = tmp_path / "token"
    config = SensorConfig(
        capture=CaptureSection(interfaces=["e"]),
        model=ModelSection(path=tmp_path),
        metrics=MetricsSection(listen="0.0.0.0:9479", token_file=file),
    )
    with pytest.raises(VeilwatchError, match="cannot read the token"):
        metrics_token(config)
    for wrong in ("short\n", "0123456789abcde\u00e9f\n", "0123456789\n0123456789\n"):
        file.write_text(wrong)
        with pytest.raises(VeilwatchError, match="not a token"):
            metrics_token(config)
    file.write_text("0123456789abcdef\n")
    assert metrics_token(config) == "0123456789abcdef"
