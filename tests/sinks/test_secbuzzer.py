"""SecBuzzer ESM: what its three routes demand, and what `esm check` finds."""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.sinks import receivers as r
from tests.sinks.events import HOSTILE, make, many
from veilwatch.errors import VeilwatchError
from veilwatch.export.clean import clean
from veilwatch.schema.events import EventKind
from veilwatch.sinks import check, esm_elastic, esm_socket, eve
from veilwatch.sinks.base import open_sink
from veilwatch.sinks.eve_types import Event as EveEvent
from veilwatch.sinks.lines import LineSink

# Fluent Bit's Lua script of ESM takes `@timestamp` from this.
LUA = re.compile(r"(\d+-\d+-\d+)T(\d+:\d+:\d+).(\d+)([+|-]\d\d)(\d\d)")


def received(receiver: r.EsmSocketReceiver, count: int) -> list[dict[str, Any]]:
    until = time.monotonic() + 5
    while len(receiver.records) < count and time.monotonic() < until:
        time.sleep(0.01)
    return receiver.records


@pytest.mark.parametrize("kind", EventKind)
@pytest.mark.parametrize("name", ["", *HOSTILE])
def test_every_event_obeys_the_rules_of_the_socket(kind: EventKind, name: str) -> None:
    sink = open_sink("secbuzzer+unix:///x")
    event = make(5, kind, HOSTILE.get(name, ""))
    body = sink.encode(clean(event))
    record = r.esm_record(body)
    assert b"\n" not in body
    EveEvent.model_validate(record)
    match = LUA.fullmatch(record["timestamp"])
    assert match and match[4] + match[5] == "+0800"
    assert record["alert"]["signature_id"] in range(41_730_000, 41_730_100)
    assert record["alert"]["metadata"]["event_id"] == [event.event_id]


def test_a_name_of_dtm_does_not_move_an_alert_to_another_index(tmp_path: Path) -> None:
    event = replace(make(1, name="DTM"), interface="DTM", sensor="DTM")
    with r.EsmSocketReceiver(tmp_path / "s") as receiver:
        with open_sink(f"secbuzzer+unix://{tmp_path}/s") as sink:
            assert sink.send([event]).delivered
        assert received(receiver, 1)[0]["alert"]["signature"].startswith("VEILWATCH")


def test_what_may_have_arrived_before_is_marked(tmp_path: Path) -> None:
    events = [make(1), replace(make(2), again=True)]
    with r.EsmSocketReceiver(tmp_path / "s") as receiver:
        with open_sink(f"secbuzzer+unix://{tmp_path}/s") as sink:
            sink.send(events)
        first, second = (record["alert"]["metadata"] for record in received(receiver, 2))
    assert "resend" not in first and second["resend"] == ["possible"]
    with open_sink(f"secbuzzer+file://{tmp_path}") as file:
        file.send(events)
    lines = next(tmp_path.glob("eve-veilwatch-*.json")).read_bytes().splitlines()
    assert [r.esm_record(line)["alert"]["metadata"].get("resend") for line in lines] == [
        None,
        ["possible"],
    ]


def test_a_flow_id_beyond_what_readers_keep_is_refused() -> None:
    event = make(1)
    event = replace(event, alert=replace(event.alert, flow_id=2**53))
    receipt = open_sink("secbuzzer+unix:///x").send([event])
    assert "flow_id" in receipt.refused[0].reason


def test_a_queue_that_empties_in_time_loses_nothing(tmp_path: Path) -> None:
    events = many(60)
    with r.EsmSocketReceiver(tmp_path / "s", reading=False) as receiver:
        timer = threading.Timer(0.3, setattr, (receiver, "reading", True))
        timer.start()
        with open_sink(f"secbuzzer+unix://{tmp_path}/s") as sink:
            receipt = sink.send(events)
        assert len(receipt.delivered) == 60
        assert len(received(receiver, 60)) == 60


def test_a_full_queue_gives_up_in_time_and_is_sure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(esm_socket, "FULL_WAIT_S", 0.2)
    with r.EsmSocketReceiver(tmp_path / "s", reading=False):
        receipt = open_sink(f"secbuzzer+unix://{tmp_path}/s").send(many(60))
    assert receipt.delivered and receipt.again
    assert "full" in receipt.again[0].reason and not receipt.again[0].unsure


def test_the_reader_may_restart_between_batches(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with open_sink(f"secbuzzer+unix://{path}") as sink:
        for _ in range(2):
            with r.EsmSocketReceiver(path) as receiver:
                assert len(sink.send(many(3)).delivered) == 3
                assert len(received(receiver, 3)) == 3
            assert "nobody reads" in sink.send(many(1)).again[0].reason
            path.unlink()
        assert "does not exist" in sink.send(many(1)).again[0].reason


def test_files_are_daily_in_the_zone_of_esm_and_ours_alone_are_deleted(tmp_path: Path) -> None:
    sink = open_sink(f"secbuzzer+file://{tmp_path}?keep-days=3")
    assert isinstance(sink, LineSink)
    late = datetime(2026, 6, 1, 17, tzinfo=UTC)  # 01:00 of the next day in Taipei
    assert sink.file(late).name == "eve-veilwatch-2026-06-02.json"
    today = datetime.now(UTC) + timedelta(hours=8)
    kept = [f"eve-veilwatch-{today - timedelta(days=k):%Y-%m-%d}.json" for k in (1, 2, 3)]
    old = [f"eve-veilwatch-{today - timedelta(days=k):%Y-%m-%d}.json" for k in (4, 5, 400)]
    others = ["eve-2020-01-01.json", "eve.json", "eve-veilwatch-2020-01-01.json.bak"]
    for name in (*kept, *old, *others):
        (tmp_path / name).write_text("{}\n")
    assert sink.send(many(1)).delivered
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {*kept, *others, sink.file().name}


FIELDS = {
    *("flow_id", "log_time", "timestamp", "@timestamp", "ingest_timestamp", "event_type"),
    *("src_ip", "src_port", "dest_ip", "dest_port", "proto", "in_iface", "module", "log_type"),
    *("reference", "dump_status", "ticket", "pred_info", "user_data1", "alert"),
}


@pytest.mark.parametrize("kind", EventKind)
def test_the_document_of_elasticsearch_has_every_field(kind: EventKind) -> None:
    event = make(2, kind)
    document: dict[str, Any] = {**esm_elastic.document(event)}
    assert set(document) == FIELDS
    assert set(document["alert"]) == {
        *("category", "severity", "signature", "action", "signature_id", "gid")
    }
    assert document["flow_id"] == str(event.alert.flow_id)
    assert document["proto"] == document["proto"].lower()
    for name in ("log_time", "timestamp", "@timestamp"):
        assert re.fullmatch(r"[\d-]{10}T[\d:]{8}\.\d{6}\+08:00", document[name])
    assert re.fullmatch(r"[\d-]{10}T[\d:]{8}\.\d{6}Z", document["ingest_timestamp"])
    assert esm_elastic.index_of(event) == "eta-malware-" + document["@timestamp"][:7]
    assert esm_elastic.document(replace(event, again=True)) == document


def test_a_month_ends_in_the_zone_of_esm() -> None:
    event = make(1)
    ns = int(datetime(2026, 6, 30, 16, 30, tzinfo=UTC).timestamp()) * 10**9
    assert event.incident is not None
    moved = replace(event, incident=replace(event.incident, last_ns=ns))
    assert esm_elastic.index_of(moved) == "eta-malware-2026-07"


# ── what the check finds ──────────────────────────────────────────────────────────────────────


def test_check_of_the_socket(tmp_path: Path) -> None:
    path = tmp_path / "eve.socket"
    url = f"secbuzzer+unix://{path}"
    missing = check.check_esm(url).wrong
    assert missing and "No such file" in missing.what and "DetectionEdge" in missing.hint
    path.write_text("")
    wrong = check.check_esm(url).wrong
    assert wrong and "no socket" in wrong.what
    path.unlink()
    with r.EsmSocketReceiver(path) as receiver:
        result = check.check_esm(url, "edge-1")
        assert result.wrong is None
        record = received(receiver, 1)[0]
        path.chmod(0o666)
        assert any("ESM makes it 0644" in f.what for f in check.check_esm(url).findings)
    assert record["alert"]["metadata"]["event_id"] == [result.event_id]
    assert record["alert"]["signature_id"] == result.signature_id == 41_730_009
    match = LUA.fullmatch(record["timestamp"])
    assert match
    assert result.timestamp == f"{match[1]}T{match[2]}.{match[3]}{match[4]}:{match[5]}"
    assert re.fullmatch(r"suricata-\d{4}-\d\d", result.index)
    dead = check.check_esm(url).wrong
    assert dead and "nobody reads" in dead.what


def test_check_of_a_socket_of_another_kind(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(tmp_path / "s"))
        wrong = check.check_esm(f"secbuzzer+unix://{tmp_path}/s").wrong
    assert wrong and "not one for datagrams" in wrong.what


def test_check_says_who_may_not_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with r.EsmSocketReceiver(tmp_path / "s"):
        wrong = check.check_esm(f"secbuzzer+unix://{tmp_path}/s").wrong
    assert wrong and "mode 0644" in wrong.what and "may not write" in wrong.what
    wrong = check.check_esm(f"secbuzzer+file://{tmp_path}").wrong
    assert wrong and "may not write" in wrong.what


def test_check_of_the_folder(tmp_path: Path) -> None:
    wrong = check.check_esm(f"secbuzzer+file://{tmp_path}/none").wrong
    assert wrong and "no folder" in wrong.what
    result = check.check_esm(f"secbuzzer+file://{tmp_path}")
    assert result.wrong is None and "is it the right folder" in result.findings[0].what
    assert "the line is in" in result.findings[-1].what
    umask = os.umask(0o077)
    try:
        next(tmp_path.glob("eve*.json")).unlink()
        wrong = check.check_esm(f"secbuzzer+file://{tmp_path}").wrong
    finally:
        os.umask(umask)
    assert wrong and "umask" in wrong.hint


def test_check_of_elasticsearch() -> None:
    with r.Elasticsearch() as server:
        result = check.check_esm(f"secbuzzer+http://127.0.0.1:{server.port}")
        assert result.wrong is None
        told = [finding.what for finding in result.findings]
        assert told == [
            *("Elasticsearch 7.6.2", "the clocks agree", "the test event was taken"),
            "the test event was read back",
        ]
        assert list(server.documents) == [(result.index, result.event_id)]


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (r.Reply(401), "answers 401"),
        (r.Reply(200, b"<html>"), "no Elasticsearch"),
        (r.Reply(200, cut=True, body=b"x" * 99), "no answer"),
        (r.Reply(body=b'{"version":{"number":"7.1.1"}}',
                 headers={"Date": "Mon, 01 Jun 2020 00:00:00 GMT"}), "s ahead of ESM's"),
        (r.Reply(body=b'{"version":{"number":"7.1.1"}}',
                 headers={"Date": "Mon, 01 Jun 2099 00:00:00 GMT"}), "s behind ESM's"),
    ],
)  # fmt: skip
def test_check_of_an_elasticsearch_that_is_not_well(reply: r.Reply, told: str) -> None:
    with r.Elasticsearch() as server:
        server.queue = [reply]
        wrong = check.check_esm(f"secbuzzer+http://127.0.0.1:{server.port}").wrong
    assert wrong and told in wrong.what


def test_check_tells_of_a_conflict_of_the_mapping(monkeypatch: pytest.MonkeyPatch) -> None:
    with r.Elasticsearch() as server:
        ready = r.Reply(body=b'{"version":{"number":"8.1.0"}}')
        conflict = {"error": {"type": "mapper_parsing_exception", "reason": "src_ip"}}
        event = make(1)
        monkeypatch.setattr(check, "event_of_test", lambda *_: event)
        item = {"create": {"_id": event.event_id, "status": 400, **conflict}}
        server.queue = [ready, r.Reply(body=json.dumps({"items": [item]}).encode())]
        result = check.check_esm(f"secbuzzer+http://127.0.0.1:{server.port}")
    assert result.findings[0].what == "Elasticsearch 8.1.0; ESM brings 7.x"
    assert result.wrong and "mapper_parsing_exception: src_ip" in result.wrong.what


def test_check_is_for_esm_only(tmp_path: Path) -> None:
    with pytest.raises(VeilwatchError, match="not a route"):
        check.check_esm(f"eve+file://{tmp_path}")


def test_signatures_lie_in_the_range_that_is_ours() -> None:
    numbers = [number for number, _ in eve.SIGNATURES.values()]
    assert len(set(numbers)) == len(numbers)
    assert all(41_730_000 <= number < 41_730_100 for number in numbers)
    assert {kind for kind, _ in eve.SIGNATURES} == {kind.value for kind in EventKind}
    assert not any(text.startswith("DTM") for _, text in eve.SIGNATURES.values())
