"""What alerting cannot write is tried again, and what can never be written holds up nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.store.samples import make_event, make_incident
from veilwatch.detection.alerting.backlog import EventBacklog
from veilwatch.detection.alerting.faults import FaultLog
from veilwatch.detection.alerting.guard import StoreGuard
from veilwatch.errors import StoreError
from veilwatch.schema.events import Event
from veilwatch.sensor.clock import SteadyClock
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


class Rig:
    """A backlog before a spool and a store behind its proxy, with what it noted."""

    def __init__(self, folder: Path, spool: Spool) -> None:
        self.notes: list[str] = []
        self.spool = spool
        self.store = StoreProxy(lambda: FaultyStore(str(folder / "store.db")))
        clock = SteadyClock()
        self.faults = FaultLog(clock, self.notes.append)
        self.backlog = EventBacklog(
            self.store,
            spool,
            ["x"],
            guard=StoreGuard(clock, self.faults, pause_s=0.0),
            clock=clock,
            faults=self.faults,
            state=dict,
        )

    @property
    def lost(self) -> int:
        return self.faults.counts["events_lost"]

    def write(self, batches: list[list[Event]], times: int) -> None:
        for events in batches:
            self.backlog.add(events, [make_incident(0)])
        for _ in range(times):
            self.backlog.write()


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    monkeypatch.setattr(FaultyStore, "away", False)
    with Spool(tmp_path / "spool.db") as spool:
        made = Rig(tmp_path, spool)
        yield made
        made.store.close()


def kept(tmp_path: Path) -> set[str]:
    with Store(str(tmp_path / "store.db")) as store:
        return {item.event.event_id for item in store.events()}


def test_one_event_that_cannot_be_stored_holds_up_no_other(rig: Rig, tmp_path: Path) -> None:
    batches = [[make_event(n) for n in range(start, start + 5)] for start in (0, 10)]
    rig.write(batches, 12)
    assert len(rig.backlog) == 0
    expected = {event.event_id for events in batches for event in events}
    lost = make_event(3).event_id
    assert kept(tmp_path) == expected - {lost}
    assert rig.lost == 1
    assert any(lost in note and "TypeError" in note for note in rig.notes)
    assert rig.spool.counts("x").pending == 10  # sinks get it all the same


def test_a_store_that_is_away_costs_nothing(rig: Rig, tmp_path: Path) -> None:
    FaultyStore.away = True
    rig.write([[make_event(n) for n in range(10, 15)]], 10)
    assert len(rig.backlog) == 5 and rig.lost == 0
    FaultyStore.away = False
    rig.backlog.write()
    assert len(rig.backlog) == 0 and len(kept(tmp_path)) == 5


def test_one_event_that_cannot_be_spooled_holds_up_no_other(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = Spool.append

    def broken(self: Spool, events: Any, sinks: Any) -> int:
        if any(event.alert.src_port == 12 for event in events):
            raise OverflowError("int too large")
        return append(self, events, sinks)

    monkeypatch.setattr(Spool, "append", broken)
    rig.write([[make_event(n) for n in range(10, 15)]], 12)
    assert rig.spool.counts("x").pending == 4
    assert len(kept(tmp_path)) == 4 and rig.lost == 1
