"""From spool to peer and through its outages."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.sinks import receivers as r
from tests.sinks.events import many, poison
from veilwatch.errors import OutputError, VeilwatchError
from veilwatch.sinks import delivery as module
from veilwatch.sinks.base import Receipt, open_sink
from veilwatch.sinks.delivery import Delivery, Progress
from veilwatch.sinks.spool import Spool

SECOND = 10**9


def test_an_outage_of_elasticsearch_ends_with_each_event_once(tmp_path: Path) -> None:
    now = time.time_ns()
    with r.Elasticsearch() as server, Spool(tmp_path / "s") as spool:
        place = f"127.0.0.1:{server.port}"
        delivery = Delivery("esm", open_sink(f"secbuzzer+http://{place}"), spool, batch=10)
        events = many(35)
        spool.append(events, ["esm"])
        for fault in (r.Reply(503), r.Reply(429, headers={"Retry-After": "30"}), r.Reply(cut=True)):
            server.queue = [fault]
            progress = delivery.run_once(now)
            assert progress.delivered == 0 and progress.again == 10 and progress.wait_s > 0
            now += 100 * SECOND
        assert progress.reason and progress.wait_s >= 1
        for _ in range(20):
            now += 100 * SECOND
            delivery.run_once(now)
        assert spool.counts("esm").pending == 0 and spool.counts("esm").delivered == 35
        assert {name for _, name in server.documents} == {event.event_id for event in events}
        assert server.writes == 35


def test_retry_after_is_kept(tmp_path: Path) -> None:
    with r.Elasticsearch() as server, Spool(tmp_path / "s") as spool:
        delivery = Delivery("e", open_sink(f"secbuzzer+http://127.0.0.1:{server.port}"), spool)
        spool.append(many(1), ["e"])
        server.queue = [r.Reply(429, headers={"Retry-After": "77"})]
        assert delivery.run_once().wait_s == 77


def test_poison_does_not_stop_the_rest(tmp_path: Path) -> None:
    bad = poison(3)
    object.__setattr__(bad, "flow", many(1)[0].flow)
    with Spool(tmp_path / "s") as spool:
        spool.append([*many(3), bad, *many(3, 5)], ["f"])
        delivery = Delivery("f", open_sink(f"secbuzzer+file://{tmp_path}"), spool)
        assert delivery.run_once() == Progress(7, 6, 0, 1, spool.set_aside("f")[0].reason)
        assert spool.set_aside("f")[0].event_id == bad.event_id


def test_what_elasticsearch_lost_is_found_and_sent_again(tmp_path: Path) -> None:
    with r.Elasticsearch() as server, Spool(tmp_path / "s") as spool:
        delivery = Delivery("e", open_sink(f"secbuzzer+http://127.0.0.1:{server.port}"), spool)
        spool.append(many(20), ["e"])
        delivery.run_once()
        lost = sorted(server.documents)[:7]
        for place in lost:
            del server.documents[place]
        assert delivery.reconcile(0, 2**62) == 7
        assert delivery.run_once().delivered == 7
        assert len(server.documents) == 20 and delivery.reconcile(0, 2**62) == 0


def test_only_sinks_that_can_tell_are_reconciled(tmp_path: Path) -> None:
    with Spool(tmp_path / "s") as spool:
        delivery = Delivery("f", open_sink(f"eve+file://{tmp_path}"), spool)
        with pytest.raises(VeilwatchError, match="cannot tell what arrived"):
            delivery.reconcile(0, 1)


def test_the_loop_delivers_promptly_and_stops(tmp_path: Path) -> None:
    rounds: list[Progress] = []
    stop = threading.Event()
    socket_path = tmp_path / "eve.socket"
    with r.EsmSocketReceiver(socket_path) as receiver, Spool(tmp_path / "s") as spool:
        delivery = Delivery("a", open_sink(f"secbuzzer+unix://{socket_path}"), spool)
        thread = threading.Thread(target=delivery.run, args=(stop, rounds.append))
        thread.start()
        spool.append(many(30), ["a"])
        until = time.monotonic() + 5
        while len(receiver.records) < 30 and time.monotonic() < until:
            time.sleep(0.01)
        stop.set()
        thread.join(5)
        assert not thread.is_alive() and len(receiver.records) == 30
        assert sum(progress.delivered for progress in rounds) == 30


def test_several_sinks_share_a_spool_and_one_that_is_down_holds_up_none(tmp_path: Path) -> None:
    stop = threading.Event()
    folders = {name: tmp_path / name for name in ("a", "b", "c")}
    urls = {name: f"eve+file://{folder}" for name, folder in folders.items()}
    urls["down"] = f"secbuzzer+unix://{tmp_path}/no.socket"
    with Spool(tmp_path / "s") as spool:
        threads = []
        for name, url in urls.items():
            own = Spool(tmp_path / "s")  # as a process of its own would
            delivery = Delivery(name, open_sink(url), own, batch=7)
            threads.append(threading.Thread(target=delivery.run, args=(stop,)))
        for thread in threads:
            thread.start()
        for start in range(0, 100, 10):
            spool.append(many(10, start), list(urls))
        until = time.monotonic() + 20
        while time.monotonic() < until:
            if all(spool.counts(name).delivered == 100 for name in folders):
                break
            time.sleep(0.05)
        stop.set()
        for thread in threads:
            thread.join(10)
        assert spool.counts("down").pending == 100 and spool.counts("down").delivered == 0
    for folder in folders.values():
        lines = [line for path in folder.iterdir() for line in path.read_bytes().splitlines()]
        assert len(lines) == len(set(lines)) == 100


def test_a_spool_that_is_full_does_not_end_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = threading.Event()
    told: list[Progress] = []
    monkeypatch.setattr(module, "backoff_s", lambda *_: 0.01)
    with Spool(tmp_path / "s") as spool:
        delivery = Delivery("a", open_sink(f"eve+file://{tmp_path}/out"), spool)
        spool.append(many(1), ["a"])
        settle = spool.settle
        faults = [OutputError("full"), OutputError("full")]

        def failing(sink: str, receipt: Receipt, now_ns: int) -> None:
            if faults:
                raise faults.pop()
            settle(sink, receipt, now_ns)
            stop.set()

        monkeypatch.setattr(spool, "settle", failing)
        delivery.run(stop, told.append)
        assert [progress.reason for progress in told] == ["full", "full", ""]
        assert spool.counts("a").pending == 0
    text = next((tmp_path / "out").iterdir()).read_text()
    assert text.count('"resend":["possible"]') == 2 and text.count("\n") == 3


def test_what_nobody_foresaw_is_told_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "backoff_s", lambda attempts, chance: 0.01)
    with Spool(tmp_path / "s") as spool:
        spool.append(many(3), ["f"])
        delivery = Delivery("f", open_sink(f"jsonl+file://{tmp_path}"), spool)
        take, faults = spool.take, [KeyError("gone"), MemoryError()]
        told: list[Progress] = []

        def broken(*words: Any) -> Any:
            if faults:
                raise faults.pop()
            return take(*words)

        monkeypatch.setattr(spool, "take", broken)
        stop = threading.Event()
        thread = threading.Thread(target=delivery.run, args=(stop, told.append))
        thread.start()
        deadline = time.monotonic() + 20
        while spool.counts("f").pending and time.monotonic() < deadline:
            time.sleep(0.01)
        assert thread.is_alive()
        stop.set()
        thread.join(10)
        assert spool.counts("f").delivered == 3
        reasons = [progress.reason for progress in told]
        assert reasons[:2] == ["unexpected MemoryError: ", "unexpected KeyError: 'gone'"]
