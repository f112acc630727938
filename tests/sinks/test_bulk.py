"""Elasticsearch's bulk: every answer that it may give, and every way not to give one."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

import pytest

from tests.sinks import receivers as r
from tests.sinks.events import make, many
from veilwatch.sinks import bulk, http
from veilwatch.sinks.base import Receipt, open_sink
from veilwatch.sinks.esm_elastic import EsmElastic


def send(server: r.HttpReceiver, count: int = 8, scheme: str = "secbuzzer+http") -> Receipt:
    with open_sink(f"{scheme}://user:pass@127.0.0.1:{server.port}") as sink:
        return sink.send(many(count))


def test_half_a_bulk_fails_item_by_item() -> None:
    events = many(8)
    with r.Elasticsearch() as server:
        server.item_faults = {
            events[1].event_id: (429, "es_rejected_execution_exception"),
            events[2].event_id: (400, "mapper_parsing_exception"),
            events[3].event_id: (503, "unavailable_shards_exception"),
            events[4].event_id: (403, "cluster_block_exception"),
        }
        receipt = send(server)
        assert [t.event_id for t in receipt.refused] == [events[2].event_id]
        assert "mapper_parsing_exception" in receipt.refused[0].reason
        assert [t.event_id for t in receipt.again] == [events[k].event_id for k in (1, 3, 4)]
        assert not any(failure.unsure for failure in receipt.again)
        assert len(receipt.delivered) == 4
        server.item_faults = {}
        assert len(send(server).delivered) == 8
        assert server.writes == 8


@pytest.mark.parametrize("status", [429, 503, 502, 504, 500, 401, 403, 404, 301])
def test_a_bulk_that_is_put_off(status: int) -> None:
    with r.Elasticsearch() as server:
        server.queue = [r.Reply(status, headers={"Retry-After": "9"})]
        receipt = send(server)
        assert len(receipt.again) == 8 and receipt.wait_s == 9
        assert str(status) in receipt.again[0].reason and "pass" not in receipt.again[0].reason


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [("120", 120, 120), ("99999999", 3600, 3600), ("soon", 0, 0), ("-5", 0, 0),
     ("Mon, 01 Jun 2099 00:00:00 GMT", 3600, 3600), ("Mon, 01 Jun 2020 00:00:00 GMT", 0, 0)],
)  # fmt: skip
def test_retry_after_is_believed_within_reason(header: str, least: float, most: float) -> None:
    with r.Elasticsearch() as server:
        server.queue = [r.Reply(429, headers={"Retry-After": header})]
        assert least <= send(server).wait_s <= most


def test_too_large_a_bulk_is_halved_down_to_the_event_that_is() -> None:
    body = EsmElastic.encode
    events = many(8)
    with (
        r.Elasticsearch(limit=4_000) as server,
        open_sink(f"secbuzzer+http://127.0.0.1:{server.port}") as sink,
    ):
        assert isinstance(sink, EsmElastic)
        assert all(len(body(sink, event)) < 4_000 for event in events)
        receipt = sink.send(events)
        assert len(receipt.delivered) == 8 and len(server.requests) > 4
        server.limit = 100
        assert [t.reason for t in sink.send(events[:2]).refused] == ["refused with 413"] * 2


def test_a_bulk_is_cut_at_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "MAX_BULK_BYTES", 6_000)
    with r.Elasticsearch() as server:
        assert len(send(server, 20).delivered) == 20
        assert len(server.requests) > 3
        assert all(len(request.body) <= 6_000 for request in server.requests)


@pytest.mark.parametrize(
    "reply",
    [
        r.Reply(cut=True, body=b'{"items":[' + b" " * 500 + b"]}"),
        r.Reply(body=b"<html>a proxy's page</html>"),
        r.Reply(body=b'{"items":7}'),
        r.Reply(body=b"[" * 100_000),
        r.Reply(body=b'{"items":[7,{"create":7},{"create":{}}]}'),
        r.Reply(status=0),
        r.Reply(headers={"X": "y" * 100_000}),
    ],
    ids=["cut", "html", "number", "deep", "strange", "status", "header"],
)
def test_an_answer_that_is_none_leaves_all_unsure(reply: r.Reply) -> None:
    with r.Elasticsearch() as server:
        server.queue = [reply]
        receipt = send(server)
        assert len(receipt.again) == 8
        assert all(failure.unsure for failure in receipt.again)


def test_an_answer_for_others_counts_for_nobody() -> None:
    item = {"create": {"_id": "someone else's", "status": 201}}
    with r.Elasticsearch() as server:
        server.queue = [r.Reply(body=json.dumps({"items": [item]}).encode())]
        assert len(send(server).again) == 8


def test_a_peer_that_trickles_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "ANSWER_TIMEOUT_S", 0.5)

    class Trickle(r.Elasticsearch):
        def _one(self, channel: socket.socket) -> None:
            channel.sendall(b"HTTP/1.1 200 OK\r\n")
            for k in range(60):
                channel.sendall(b"X-%d: y\r\n" % k)
                time.sleep(0.1)

    with Trickle() as server:
        started = time.monotonic()
        assert len(send(server).again) == 8
        assert time.monotonic() - started < 4


def test_a_document_is_never_overwritten() -> None:
    with r.Elasticsearch() as server:
        send(server)
        for document in server.documents.values():
            document["ticket"] = 42  # an analyst's work
        assert len(send(server).delivered) == 8
        assert all(document["ticket"] == 42 for document in server.documents.values())


def test_what_is_missing_is_told() -> None:
    events = many(5)
    with (
        r.Elasticsearch() as server,
        open_sink(f"secbuzzer+http://127.0.0.1:{server.port}") as sink,
    ):
        assert isinstance(sink, EsmElastic)
        assert sink.missing([]) == set()
        sink.send(events[:3])
        assert sink.missing(events) == {e.event_id for e in events[3:]}
        gone = {"error": {"type": "index_not_found_exception"}, "_id": events[0].event_id}
        server.queue = [r.Reply(body=json.dumps({"docs": [gone]}).encode())]
        assert sink.missing(events[:1]) == {events[0].event_id}
        server.queue = [r.Reply(503)]
        with pytest.raises(ConnectionError):
            sink.missing(events)
        other = {"error": {"type": "no_shard_available"}, "_id": events[0].event_id}
        server.queue = [r.Reply(body=json.dumps({"docs": [other]}).encode())]
        with pytest.raises(ConnectionError):
            sink.missing(events)


def test_credentials_by_url_file_and_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key").write_text("s3cret\n")
    monkeypatch.setenv("ES_PASSWORD", "s3cret")
    with r.Elasticsearch() as server:
        place = f"127.0.0.1:{server.port}/a"
        for url in (
            f"elastic+http://me:s3cret@{place}",
            f"elastic+http://me@{place}?password-file={tmp_path}/key",
            f"elastic+http://me@{place}?password-env=ES_PASSWORD",
        ):
            with open_sink(url) as sink:
                sink.send([make(1)])
            assert server.requests[-1].headers["authorization"] == "Basic bWU6czNjcmV0"
        with open_sink(f"elastic+http://{place}?api-key-file={tmp_path}/key") as sink:
            sink.send([make(1)])
        assert server.requests[-1].headers["authorization"] == "ApiKey s3cret"


def test_tls_is_always_checked(tmp_path: Path) -> None:
    cert, key = r.certificate(tmp_path)
    with r.HttpReceiver(lambda _: r.Reply(204, b""), r.server_context(cert, key)) as server:
        with open_sink(f"webhook+https://localhost:{server.port}/?ca={cert}") as sink:
            assert sink.send([make(1)]).delivered
        for url in (
            f"webhook+https://localhost:{server.port}/",
            f"webhook+https://127.0.0.1:{server.port}/?ca={cert}",
        ):
            with open_sink(url) as sink:
                assert "certificate" in sink.send([make(1)]).again[0].reason.lower()


def test_a_webhook_signs_refuses_and_waits(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("k")
    replies = [r.Reply(204, b""), r.Reply(422), r.Reply(429, headers={"Retry-After": "3"})]
    with r.HttpReceiver(lambda _: replies.pop(0)) as server:
        url = f"webhook+http://127.0.0.1:{server.port}/hook?secret-file={tmp_path}/key"
        with open_sink(url) as sink:
            receipt = sink.send(many(5))
        assert (len(receipt.delivered), len(receipt.refused), len(receipt.again)) == (1, 1, 3)
        assert receipt.wait_s == 3
        assert server.requests[0].headers["x-veilwatch-signature"].startswith("sha256=")
        assert server.requests[0].path == "/hook"
