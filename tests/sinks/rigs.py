"""One rig for each kind of sink: a peer that is well, down, slow or refusing, and what it got."""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.sinks import receivers as r

WELL, DOWN, SLOW, REFUSING = "well", "down", "slow", "refusing"


@dataclass
class Rig:
    """A sink's URL and the ids of events that its peer has, in order of arrival."""

    url: str
    ids: Callable[[], list[str]]


def _eve_id(record: dict[str, Any]) -> str:
    return str(record["alert"]["metadata"]["event_id"][0])


def _lines(folder: Path) -> list[bytes]:
    data = b"".join(path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file())
    assert not data or data.endswith(b"\n")
    return data.split(b"\n")[:-1]


def _file(scheme: str, read: Callable[[Path], list[str]]) -> Any:
    @contextmanager
    def rig(tmp_path: Path, mode: str) -> Iterator[Rig]:
        folder = tmp_path / "out"
        if mode == SLOW:
            pytest.skip("a file is not slow")
        if mode == DOWN:
            yield Rig(f"{scheme}://{tmp_path}/no/such/folder", list)
            return
        if mode == REFUSING:
            folder.write_text("a file in the folder's place")
            yield Rig(f"{scheme}://{folder}", list)
            return
        folder.mkdir()
        yield Rig(f"{scheme}://{folder}", lambda: read(folder))

    return rig


def _eve_ids(folder: Path) -> list[str]:
    return [_eve_id(r.strict_json(line)) for line in _lines(folder)]


def _esm_ids(folder: Path) -> list[str]:
    return [_eve_id(r.esm_record(line)) for line in _lines(folder)]


def _jsonl_ids(folder: Path) -> list[str]:
    return [r.strict_json(line)["event_id"] for line in _lines(folder)]


def _stix_ids(folder: Path) -> list[str]:
    found = []
    for path in folder.iterdir():
        bundle = r.strict_json(path.read_bytes())
        assert bundle["type"] == "bundle"
        found.append(path.stem.removeprefix("incident-"))
    return found


@contextmanager
def _unix(tmp_path: Path, mode: str) -> Iterator[Rig]:
    path = tmp_path / "eve.socket"
    url = f"secbuzzer+unix://{path}"
    if mode == DOWN:
        yield Rig(url, list)
    elif mode == REFUSING:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
            server.bind(str(path))
            yield Rig(url, list)
    else:
        with r.EsmSocketReceiver(path, reading=mode == WELL) as receiver:
            yield Rig(url, lambda: [_eve_id(record) for record in receiver.records])


def _http(scheme: str, make: Callable[[], r.HttpReceiver], ids: Callable[[Any], list[str]]) -> Any:
    @contextmanager
    def rig(tmp_path: Path, mode: str) -> Iterator[Rig]:
        if mode == DOWN:
            yield Rig(f"{scheme}://127.0.0.1:{r.closed_port()}", list)
            return
        with make() as server:
            if mode != WELL:
                reply = r.Reply(503, headers={"Retry-After": "7"})
                server.answer = lambda _: r.Reply(delay_s=4) if mode == SLOW else reply
            yield Rig(f"{scheme}://127.0.0.1:{server.port}", lambda: ids(server))

    return rig


def _document_ids(server: r.Elasticsearch) -> list[str]:
    return [name for _, name in server.documents]


def _posted_ids(server: r.HttpReceiver) -> list[str]:
    found = []
    for request in server.requests:
        event_id = r.strict_json(request.body)["event_id"]
        assert request.headers["idempotency-key"] == event_id
        found.append(event_id)
    return found


def _reset_everything(server: socket.socket, stop: threading.Event) -> None:
    server.settimeout(0.05)
    while not stop.is_set():
        try:
            channel, _ = server.accept()
        except TimeoutError:
            continue
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        channel.close()


@contextmanager
def resetting() -> Iterator[int]:
    """Give a port whose listener resets every connection."""
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_reset_everything, args=(server, stop), daemon=True)
        thread.start()
        yield server.getsockname()[1]
        stop.set()
        thread.join(5)


def _syslog(kind: str, body: str) -> Any:
    @contextmanager
    def rig(tmp_path: Path, mode: str) -> Iterator[Rig]:
        if kind == "udp" and mode in (SLOW, REFUSING):
            pytest.skip("datagrams are not answered")
        with ExitStack() as stack:
            query, context = f"?body={body}", None
            if kind == "tls":
                cert, key = r.certificate(tmp_path)
                context = r.server_context(cert, key)
                query += f"&ca={cert}"
            if mode == DOWN:
                yield Rig(f"syslog+{kind}://localhost:{r.closed_port()}{query}", list)
                return
            if mode == REFUSING:
                port = stack.enter_context(resetting())
                yield Rig(f"syslog+{kind}://localhost:{port}{query}", list)
                return
            server = stack.enter_context(r.Syslog(kind, context, reading=mode == WELL))
            yield Rig(
                f"syslog+{kind}://localhost:{server.port}{query}",
                lambda: [_syslog_id(message, body) for message in server.messages],
            )

    return rig


def _syslog_id(message: bytes, body: str) -> str:
    assert len(message) <= 8192
    match = r.RFC5424.fullmatch(message)
    assert match, message[:200]
    if body == "json":
        return _eve_id(r.strict_json(match["body"]))
    text = match["body"].decode()
    assert text.isprintable() and text.startswith("CEF:0|Veilwatch|Veilwatch|")
    found = re.search(r"\|externalId=(\w+) ", text)
    assert found
    return found[1]


@contextmanager
def kafka_cluster() -> Iterator[str]:
    """Start librdkafka's mock cluster and give its address."""
    library = pytest.importorskip("confluent_kafka")
    host = library.Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "", "log_level": 0})
    broker = next(iter(host.list_topics(timeout=10).brokers.values()))
    yield f"{broker.host}:{broker.port}"
    del host


def kafka_records(place: str, topic: str, count: int) -> list[Any]:
    """Read records until there are `count` and no more come."""
    library = pytest.importorskip("confluent_kafka")
    consumer = library.Consumer(
        {"bootstrap.servers": place, "group.id": "test", "auto.offset.reset": "earliest",
         "log_level": 0, "enable.auto.commit": False}
    )  # fmt: skip
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    consumer.assign([library.TopicPartition(topic, number, 0) for number in partitions])
    found: list[Any] = []
    while True:
        message = consumer.poll(5 if len(found) < count else 0.5)
        if message is None:
            break
        if not message.error():
            found.append(message)
    consumer.close()
    return found


@contextmanager
def _kafka(tmp_path: Path, mode: str) -> Iterator[Rig]:
    pytest.importorskip("confluent_kafka")
    if mode == DOWN:
        yield Rig(f"kafka://127.0.0.1:{r.closed_port()}/alerts", list)
    elif mode == SLOW:
        with socket.create_server(("127.0.0.1", 0)) as server:
            yield Rig(f"kafka://127.0.0.1:{server.getsockname()[1]}/alerts", list)
    elif mode == REFUSING:
        with resetting() as port:
            yield Rig(f"kafka://127.0.0.1:{port}/alerts", list)
    else:
        with kafka_cluster() as place:

            def ids() -> list[str]:
                records = kafka_records(place, "alerts", 1)
                for record in records:
                    assert json.loads(record.value())["event_id"] == record.key().decode()
                return [record.key().decode() for record in records]

            yield Rig(f"kafka://{place}/alerts", ids)


RIGS: dict[str, Any] = {
    "secbuzzer+unix": _unix,
    "secbuzzer+file": _file("secbuzzer+file", _esm_ids),
    "secbuzzer+http": _http("secbuzzer+http", r.Elasticsearch, _document_ids),
    "eve+file": _file("eve+file", _eve_ids),
    "jsonl+file": _file("jsonl+file", _jsonl_ids),
    "syslog+udp": _syslog("udp", "json"),
    "syslog+tcp": _syslog("tcp", "cef"),
    "syslog+tls": _syslog("tls", "json"),
    "elastic+http": _http("elastic+http", r.Elasticsearch, _document_ids),
    "kafka": _kafka,
    "webhook+http": _http(
        "webhook+http", lambda: r.HttpReceiver(lambda _: r.Reply(204, b"")), _posted_ids
    ),
    "stix+file": _file("stix+file", _stix_ids),
}
