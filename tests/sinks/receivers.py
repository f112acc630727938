"""Strict receivers: what stands on the other side of a sink, enforcing its rules."""

from __future__ import annotations

import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

ESM_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+0800")


def strict_json(data: bytes) -> Any:
    """Read JSON as a strict reader does: UTF-8, no NaN, no half surrogates."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    value = json.loads(data.decode("utf-8"), parse_constant=refuse)
    json.dumps(value, ensure_ascii=False).encode("utf-8")  # fails on half a surrogate
    return value


def esm_record(data: bytes) -> dict[str, Any]:
    """Check what ESM's readers demand of one event and return it."""
    assert len(data) < 32_000
    assert b"\n" not in data.rstrip(b"\n")
    record = strict_json(data)
    assert isinstance(record, dict) and "time" not in record
    assert ESM_TIME.fullmatch(record["timestamp"]), record["timestamp"]
    assert 0 <= record["flow_id"] < 2**53
    assert not record["alert"]["signature"].startswith("DTM")
    for values in record["alert"]["metadata"].values():
        assert isinstance(values, list) and all(isinstance(value, str) for value in values)
    return record


class Receiver:
    """A thread that serves until the block ends."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._guarded, daemon=True)
        self.faults: list[BaseException] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join(10)
        if kind is None and self.faults:
            raise self.faults[0]

    def _guarded(self) -> None:
        try:
            self._serve()
        except BaseException as error:
            self.faults.append(error)

    def _serve(self) -> None:
        raise NotImplementedError


class EsmSocketReceiver(Receiver):
    """Fluent Bit's syslog input with a JSON parser: one object a datagram."""

    def __init__(self, path: Path, *, reading: bool = True) -> None:
        super().__init__()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        path.chmod(0o644)
        self._socket.settimeout(0.05)
        self.reading = reading
        self.records: list[dict[str, Any]] = []

    def _serve(self) -> None:
        with self._socket:
            while not self._stop.is_set():
                if not self.reading:
                    time.sleep(0.01)
                    continue
                with suppress(TimeoutError):
                    self.take(esm_record(self._socket.recv(65_536)))

    def take(self, record: dict[str, Any]) -> None:
        """Keep one record."""
        self.records.append(record)


@dataclass
class Request:
    """What came in one HTTP request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Reply:
    """What goes back; `cut` closes the connection in the middle of it."""

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False
    delay_s: float = 0.0


class HttpReceiver(Receiver):
    """An HTTP server that answers as `answer` says."""

    def __init__(
        self,
        answer: Callable[[Request], Reply],
        context: ssl.SSLContext | None = None,
        *,
        port: int = 0,
    ) -> None:
        super().__init__()
        self._socket = socket.create_server(("127.0.0.1", port))
        self._socket.settimeout(0.05)
        self._context = context
        self.port = self._socket.getsockname()[1]
        self.answer = answer
        self.requests: list[Request] = []

    def _serve(self) -> None:
        with self._socket:
            while not self._stop.is_set():
                try:
                    channel, _ = self._socket.accept()
                except TimeoutError:
                    continue
                channel.settimeout(5)
                with suppress(ConnectionError, ssl.SSLError, TimeoutError):
                    if self._context is not None:
                        channel = self._context.wrap_socket(channel, server_side=True)
                    with channel:
                        self._one(channel)

    def _one(self, channel: socket.socket) -> None:
        stream = channel.makefile("rb")
        begin = stream.readline()
        if not begin.endswith(b"\n"):
            return  # the client was killed
        method, path, _ = begin.decode().split()
        headers = {}
        while line := stream.readline().strip():
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        body = stream.read(int(headers.get("content-length", "0")))
        if len(body) < int(headers.get("content-length", "0")):
            return
        request = Request(method, path, headers, body)
        self.requests.append(request)
        reply = self.answer(request)
        if self._stop.wait(reply.delay_s):
            return
        head = {
            "Content-Length": str(len(reply.body)),
            "Content-Type": "application/json",
            "Date": formatdate(usegmt=True),
        } | reply.headers
        lines = [f"HTTP/1.1 {reply.status} told", *(f"{k}: {v}" for k, v in head.items()), "", ""]
        data = "\r\n".join(lines).encode() + reply.body
        channel.sendall(data[: len(data) // 2] if reply.cut else data)


class Elasticsearch(HttpReceiver):
    """The part of Elasticsearch 7.6 that a sink uses: `_bulk`, `_mget`, its version.

    A document that does not fit the mapping is refused with 400 in its item. `limit` is the
    longest body; `faults` are replies given instead of the next answers.
    """

    def __init__(self, *, limit: int = 1 << 20, port: int = 0) -> None:
        super().__init__(self._answer, port=port)
        self.limit = limit
        self.queue: list[Reply] = []
        self.item_faults: dict[str, tuple[int, str]] = {}
        self.documents: dict[tuple[str, str], dict[str, Any]] = {}
        self.writes = 0

    def _answer(self, request: Request) -> Reply:
        if self.queue:
            return self.queue.pop(0)
        if len(request.body) > self.limit:
            return Reply(413, b"<html>too large</html>")
        if request.path.split("?")[0].endswith("/_bulk"):
            return self._bulk(request)
        if request.path.split("?")[0].endswith("/_mget"):
            docs = json.loads(request.body)["docs"]
            return _json({"docs": [self._found(doc) for doc in docs]})
        if request.method == "DELETE":
            _, index, _, name = request.path.split("/")
            self.documents.pop((index, name), None)
            return _json({"result": "deleted"})
        return _json({"version": {"number": "7.6.2"}, "tagline": "You Know, for Search"})

    def store(self, place: tuple[str, str], document: dict[str, Any]) -> None:
        """Keep one document under its index and id."""
        self.writes += 1
        self.documents[place] = document

    def _found(self, doc: dict[str, str]) -> dict[str, Any]:
        place = (doc["_index"], doc["_id"])
        return doc | {"found": place in self.documents}

    def _bulk(self, request: Request) -> Reply:
        assert request.headers["content-type"] == "application/x-ndjson"
        assert request.body.endswith(b"\n")
        lines = request.body.split(b"\n")[:-1]
        items = []
        for head, source in zip(lines[::2], lines[1::2], strict=True):
            (verb, target), *_ = strict_json(head).items()
            place = (target["_index"], target["_id"])
            status, kind = self.item_faults.get(place[1], (0, ""))
            document = strict_json(source)
            if verb == "create" and place in self.documents:
                status, kind = 409, "version_conflict_engine_exception"
            elif not status and not isinstance(document.get("src_port", 0), int):
                status, kind = 400, "mapper_parsing_exception"
            if status:
                result = {"_id": place[1], "status": status,
                          "error": {"type": kind, "reason": f"told {kind}"}}  # fmt: skip
            else:
                self.store(place, document)
                result = {"_id": place[1], "status": 201}
            items.append({verb: result})
        return _json({"took": 1, "errors": True, "items": items})


class Syslog(Receiver):
    """RFC 5424 over UDP, or octet-counted over TCP and TLS; reads everything, then closes."""

    def __init__(
        self, kind: str, context: ssl.SSLContext | None = None, *, reading: bool = True
    ) -> None:
        super().__init__()
        self._udp = kind == "udp"
        self._context = context
        self._reading = reading
        if self._udp:
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._socket.bind(("127.0.0.1", 0))
        else:
            self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(0.05)
        self.port = self._socket.getsockname()[1]
        self.messages: list[bytes] = []

    def _serve(self) -> None:
        with self._socket:
            while not self._stop.is_set():
                try:
                    if self._udp:
                        self.messages.append(self._socket.recv(65_536))
                        continue
                    channel, _ = self._socket.accept()
                except TimeoutError:
                    continue
                channel.settimeout(5)
                if not self._reading:
                    self._stop.wait()
                    channel.close()
                    continue
                with suppress(ssl.SSLError, ConnectionError, TimeoutError):
                    if self._context is not None:
                        channel = self._context.wrap_socket(channel, server_side=True)
                    with channel:
                        self._frames(channel)

    def _frames(self, channel: socket.socket) -> None:
        stream = channel.makefile("rb")
        while True:
            digits = b""
            while (c := stream.read(1)) not in (b" ", b""):
                digits += c
            if not digits:
                return
            self.messages.append(stream.read(int(digits)))


RFC5424 = re.compile(
    rb"<(?P<priority>\d{1,3})>1 (?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,6}Z) "
    rb"(?P<host>[!-~]{1,255}) (?P<app>[!-~]{1,48}) (?P<process>[!-~]{1,128}) "
    rb"(?P<kind>[!-~]{1,32}) - (?P<body>.*)",
    re.S,
)


def closed_port() -> int:
    """Return a port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate for localhost and its key; return both files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert, secret = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    return cert, secret


def server_context(cert: Path, key: Path) -> ssl.SSLContext:
    """Return the server's side of TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context


def _json(document: Any) -> Reply:
    return Reply(body=json.dumps(document).encode())
