"""What a minute added, process by process, beside a plain account."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from veilwatch.errors import StoreError
from veilwatch.sensor import counter_recorder
from veilwatch.sensor.counter_recorder import CounterRecorder
from veilwatch.store import Store

MINUTE = 60 * 10**9


class Clock:
    """Time as the test wants it."""

    def __init__(self) -> None:
        self.now_s = 1_800_000_000.0

    def time_ns(self) -> int:
        return int(self.now_s * 1e9)

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(counter_recorder, "time", found)
    return found


def document(
    pid: int | None, packets: int, *, restarts: int = 0, up_s: float = 0.0
) -> dict[str, Any]:
    dropped = {"early": packets // 10}
    said = {"pid": pid, "packets": packets, "dropped": dropped, "cpu_s": 2.0, "rss": 1e6,
            "live_flows": packets % 7, "restarts": restarts}  # fmt: skip
    if pid is None:
        del said["cpu_s"], said["rss"]
    judge = {"pid": 9, "fate": {"told": 3}, "score": [packets, 0], "delay_max_s": 1.5}
    return {"up_s": up_s, "children": {"ingest-0": said, "judge": judge}}


def test_counts_of_processes_that_come_and_go(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "status.json"
    with Store(str(tmp_path / "store.db")) as store:
        recorder = CounterRecorder(store, path, "ward", "run")
        for minute in (
            [document(1, 100, up_s=10), document(1, 250, up_s=30)],
            [document(1, 300, up_s=60), document(2, 40, restarts=1, up_s=80)],
            [document(2, 90, restarts=1, up_s=90), document(None, 95, restarts=1, up_s=91)],
        ):
            for said in minute:
                path.write_text(json.dumps(said))
                recorder.tick()
                clock.now_s += 20
            clock.now_s += 20
        recorder.tick(final=True)
        found: dict[str, list[float]] = {}
        for _, sensor, name, value in store.counters():
            assert sensor == "ward"
            found.setdefault(name, []).append(value)
    assert found["packets"] == [250, 50 + 40, 50 + 5]
    assert found["dropped/early"] == [25, 5 + 4, 5]
    assert found["restarts/ingest-0"] == [1]
    assert found["up_s"] == [30, 50, 11]
    assert found["fate/told"] == [3]
    assert found["cpu_s/ingest-0"] == [2, 2]  # the second process used 2 s as well
    assert found["gauge/live_flows"][:2] == [250 % 7, 40 % 7]
    assert found["delay_max_s"][0] == 1.5


def test_a_status_that_is_no_status(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "status.json"
    with Store(str(tmp_path / "store.db")) as store:
        recorder = CounterRecorder(store, path, "ward", "run")
        for text in ("", "[]", "{", '{"children": {}}'):
            path.write_text(text)
            recorder.tick()
            clock.now_s += 61
        path.unlink()
        recorder.tick(final=True)
        assert {name for _, _, name, value in store.counters() if value} <= {"gauge/cores"}


def test_minutes_wait_for_a_store_that_is_away(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "status.json"
    with Store(str(tmp_path / "store.db")) as store:
        recorder = CounterRecorder(store, path, "ward", "run")

        def away(*_: object, **__: object) -> None:
            raise StoreError("away")

        with monkeypatch.context() as patch:
            patch.setattr(store, "count", away)
            for packets in (100, 250, 300):
                path.write_text(json.dumps(document(1, packets)))
                recorder.tick()
                clock.now_s += 60
        path.write_text(json.dumps(document(1, 390)))
        recorder.tick()
        recorder.tick(final=True)
        found = [value for _, _, name, value in store.counters(names=["packets"])]
    assert found == [100, 150, 50, 90]


def test_minutes_that_come_twice_add_up(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "status.json"
    with Store(str(tmp_path / "store.db")) as store:
        recorder = CounterRecorder(store, path, "ward", "run")
        # Set forward by decades, and back by an hour and more.
        for packets, step in ((100, 60), (250, 2e9), (300, -2e9 - 3600), (390, 60), (400, 3540)):
            path.write_text(json.dumps(document(1, packets)))
            recorder.tick()
            clock.now_s += step
        recorder.tick(final=True)
        found = [value for _, _, name, value in store.counters(names=["packets"])]
    assert sum(found) == 400
