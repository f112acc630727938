"""What the judge cannot write is tried again, and what can never be written holds up nothing."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.store.samples import make_event, make_incident
from veilwatch.errors import StoreError
from veilwatch.schema.events import Event
from veilwatch.sensor import judge
from veilwatch.sensor.judge import Bench
from veilwatch.sensor.store_proxy import StoreProxy
from veilwatch.sinks.spool import Spool
from veilwatch.store import Store


class FaultyStore(Store):
    """Fails for events with a port, with an exception that is none of ours."""

    bad_port = 3
    away = False

    def record(self, new_events: Any = (), changed_incidents: Any = (), **words: Any) -> list[str]:
        if self.away:
            raise StoreError("away")
        if any(event.alert.src_port == self.bad_port for event in new_events):
            raise TypeError("not serialisable")
        return super().record(new_events, changed_incidents, **words)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """The part of the judge that writes."""
    monkeypatch.setattr(judge, "STORE_PAUSE_S", 0.0)
    monkeypatch.setattr(FaultyStore, "away", False)
    made = Bench.__new__(Bench)
    made._unspooled, made._unstored = deque(), deque()
    made._sinks, made._tries = ["x"], 0
    made._faults, made._notes, made._said = Counter(), deque(maxlen=3), ("", 0.0)
    made._store_from_s, made._saved_s, made._state_every_s = 0.0, time.monotonic(), 1e9
    made._store = StoreProxy(lambda: FaultyStore(str(tmp_path / "store.db")))
    with Spool(tmp_path / "spool.db") as made._spool:
        yield made
    made._store.close()


def kept(tmp_path: Path) -> set[str]:
    with Store(str(tmp_path / "store.db")) as store:
        return {item.event.event_id for item in store.events()}


def write(bench: Bench, batches: list[list[Event]], times: int) -> None:
    bench._unspooled.extend((events, [make_incident(0)]) for events in batches)
    for _ in range(times):
        bench._write()


def test_one_event_that_cannot_be_stored_holds_up_no_other(bench: Bench, tmp_path: Path) -> None:
    batches = [[make_event(n) for n in range(start, start + 5)] for start in (0, 10)]
    write(bench, batches, 12)
    assert not bench._unstored and not bench._unspooled
    expected = {event.event_id for events in batches for event in events}
    lost = make_event(3).event_id
    assert kept(tmp_path) == expected - {lost}
    assert bench._faults["events_lost"] == 1
    assert any(lost in note and "TypeError" in note for note in bench._notes)
    assert bench._spool.counts("x").pending == 10  # sinks get it all the same


def test_a_store_that_is_away_costs_nothing(bench: Bench, tmp_path: Path) -> None:
    FaultyStore.away = True
    write(bench, [[make_event(n) for n in range(10, 15)]], 10)
    assert bench._backlog == 5 and bench._faults["events_lost"] == 0
    FaultyStore.away = False
    bench._write()
    assert bench._backlog == 0 and len(kept(tmp_path)) == 5


def test_one_event_that_cannot_be_spooled_holds_up_no_other(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = Spool.append

    def broken(self: Spool, events: Any, sinks: Any) -> int:
        if any(event.alert.src_port == 12 for event in events):
            raise OverflowError("int too large")
        return append(self, events, sinks)

    monkeypatch.setattr(Spool, "append", broken)
    write(bench, [[make_event(n) for n in range(10, 15)]], 12)
    assert bench._spool.counts("x").pending == 4
    assert len(kept(tmp_path)) == 4 and bench._faults["events_lost"] == 1
