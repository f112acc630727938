"""The delivering process: each sink for itself, what is too old, and what it says of all that."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.sensor.stubs import StubHeart, make_config, stand_in
from tests.store.samples import make_event
from veilwatch.errors import VeilwatchError
from veilwatch.sensor import deliver as module
from veilwatch.sensor.config import SensorConfig
from veilwatch.sensor.deliver import MAX_NOTE, NOTES, _lag_s, _Notes, deliver
from veilwatch.sinks.delivery import Delivery
from veilwatch.sinks.spool import Spool
from veilwatch.store import Store

PATIENCE = 400
"""Looks after which a test gives up, each of `LOOK_S`."""

LONG_DAYS = "[store]\nretention_days = 36500\n"


class Heart(StubHeart):
    """Stops the process once something is said; what has happened by then is the test's."""

    def __init__(self, done: Callable[[dict[str, Any]], bool]) -> None:
        super().__init__(beats=PATIENCE)
        self._done = done

    def beat(self, status: Callable[[], dict[str, Any]] = dict) -> None:
        super().beat(status)
        self.stopping = self.stopping or (bool(self.said) and self._done(self.said))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "drop_privileges", lambda user: "")
    monkeypatch.setattr(module, "LOOK_S", 0.05)
    monkeypatch.setattr(module, "COUNTS_S", 0.0)


def config_for(folder: Path, *urls: str, text: str = LONG_DAYS) -> SensorConfig:
    return make_config(folder, f"[sinks]\nurls = {json.dumps(urls)}\n{text}")


def fill(config: SensorConfig, events: int, *sinks: str) -> None:
    with Spool(config.sensor.state / "spool.db") as spool:
        spool.append([make_event(n) for n in range(events)], sinks)


def run(config: SensorConfig, done: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    heart = Heart(done)
    deliver(stand_in(heart), config, "run")
    assert done(heart.said), heart.said
    return heart.said


def delivered(count: int, sink: int = 0) -> Callable[[dict[str, Any]], bool]:
    return lambda said: said["sinks"][sink]["delivered"] == count


def test_what_is_spooled_reaches_the_sink(tmp_path: Path) -> None:
    url = f"jsonl+file://{tmp_path}/out.jsonl"
    config = config_for(tmp_path, url)
    fill(config, 3, url)
    said = run(config, delivered(3))
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    assert [json.loads(line)["event_id"] for line in lines] == [
        make_event(n).event_id for n in range(3)
    ]
    assert (said["pending_events"], said["store_faults"], said["notes"]) == (0, 0, [])
    assert said["sinks"][0]["name"] == url and said["sinks"][0]["lag_s"] == 0


def test_a_sink_that_is_down_holds_up_no_other_and_says_why(tmp_path: Path) -> None:
    file, down = f"jsonl+file://{tmp_path}/out.jsonl", "webhook+http://127.0.0.1:9/alerts"
    config = config_for(tmp_path, down, file)
    fill(config, 2, down, file)
    said = run(config, lambda said: delivered(2, 1)(said) and bool(said["sinks"][0]["trouble"]))
    first = said["sinks"][0]
    assert (first["pending"], first["delivered"], first["dropped"]) == (2, 0, 0)
    assert first["lag_s"] > 0 and "refused" in first["trouble"].lower()
    assert said["pending_events"] == 2


def test_a_sink_that_is_configured_no_more_is_not_waited_for(tmp_path: Path) -> None:
    url = f"jsonl+file://{tmp_path}/out.jsonl"
    config = config_for(tmp_path, url)
    fill(config, 2, url, "jsonl+file:///gone.jsonl")
    run(config, delivered(2))
    with Spool(config.sensor.state / "spool.db") as spool:
        assert spool.sinks() == [url]


def test_what_is_too_old_is_deleted_from_spool_and_store(tmp_path: Path) -> None:
    config = config_for(tmp_path, text="[store]\nretention_days = 1\n")
    fill(config, 2, "anybody")
    with Store(config.store_url) as store:
        store.record([make_event(n) for n in range(2)])
    run(config, lambda said: True)
    with Spool(config.sensor.state / "spool.db") as spool, Store(config.store_url) as store:
        assert spool.size() == (0, 0) and list(store.events()) == []


def test_the_last_minute_is_stored_at_the_end(tmp_path: Path) -> None:
    config = config_for(tmp_path)
    status = {"up_s": 5.0, "children": {"ingest-0": {"pid": 1, "packets": 7}}}
    (config.sensor.state / "status.json").write_text(json.dumps(status))
    run(config, lambda said: True)
    with Store(config.store_url) as store:
        assert [value for _, _, _, value in store.counters(names=["packets"])] == [7]


def test_a_thread_of_a_sink_that_has_ended_ends_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Delivery, "run", lambda self, stop, report: None)
    url = f"jsonl+file://{tmp_path}/out.jsonl"
    with pytest.raises(VeilwatchError, match=r"a thread has ended: sink jsonl\+file"):
        deliver(stand_in(Heart(lambda said: False)), config_for(tmp_path, url), "run")


def test_an_unexpected_fault_of_a_sink_is_noted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(self: Any, now_ns: int | None = None) -> Any:
        raise KeyError("no such thing")

    monkeypatch.setattr(Delivery, "run_once", failing)
    url = f"jsonl+file://{tmp_path}/out.jsonl"
    config = config_for(tmp_path, url)
    said = run(config, lambda said: bool(said["notes"]))
    (note,) = said["notes"]
    assert "unexpected KeyError" in note and url in note


def test_notes_are_the_latest_few_each_once_and_bounded() -> None:
    notes = _Notes()
    for text in ("a", "b", "b", "c", "d", "x" * 9999):
        notes.add(text)
    kept = [note.partition(" ")[2] for note in notes.all()]
    assert kept[:2] == ["c", "d"] and len(kept) == NOTES
    assert len(json.dumps(kept[2])) - 2 <= MAX_NOTE


@pytest.mark.parametrize(
    ("oldest_ns", "now_ns", "lag_s"),
    [(0, 10**10, 0.0), (10**9, 3 * 10**9, 2.0), (3 * 10**9, 10**9, 0.0)],
)
def test_the_lag_of_a_sink(oldest_ns: int, now_ns: int, lag_s: float) -> None:
    assert _lag_s(oldest_ns, now_ns) == lag_s
