"""The alert pipeline by itself: a clock, a store and a spool that the test holds in its hand."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import pytest

from tests.detection.alerting.frames import live_scores, scored_flows, scored_hosts
from tests.detection.alerting.samples import SECOND, START_NS
from veilwatch.detection.alerting import backlog
from veilwatch.detection.alerting.allow import AllowList, parse_allow
from veilwatch.detection.alerting.gate import GATE_STATE, Policy
from veilwatch.detection.alerting.guard import STORE_PAUSE_S
from veilwatch.detection.alerting.limits import Limits
from veilwatch.detection.alerting.pipeline import SAVE_S, AlertPipeline
from veilwatch.errors import OutputError, StoreError, UnexpectedStoreError
from veilwatch.schema.events import Event, Incident

A, B = "10.0.0.1", "10.0.0.2"


def allowing(host: str) -> AllowList:
    return parse_allow(f'[[allow]]\nreason = "known"\nuntil = 2099-01-01\nhost = ["{host}"]\n')


class Clock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now_ns(self) -> int:
        return START_NS + int(self.seconds * SECOND)

    def wall_ns(self) -> int:
        return self.now_ns() + 7

    def monotonic_s(self) -> float:
        return self.seconds


class Store:
    """Keeps in memory what a store would; raises what it is told to."""

    def __init__(self) -> None:
        self.events: dict[str, Event] = {}
        self.incidents: dict[str, Incident] = {}
        self.state: dict[str, str] = {}
        self.closed: dict[str, str] = {}
        self.saves = 0
        self.calls = 0
        self.fault: Exception | None = None

    def record(
        self,
        new_events: Iterable[Event],
        changed_incidents: Iterable[Incident],
        *,
        state: Mapping[str, Any] | None,
    ) -> None:
        self._call()
        self.events |= {event.event_id: event for event in new_events}
        self.incidents |= {one.incident_id: one for one in changed_incidents}
        if state:
            self._keep(state)

    def save_state(self, values: Mapping[str, Any]) -> None:
        self._call()
        self.saves += 1
        self._keep(values)

    def load_state(self, name: str) -> Any:
        return json.loads(self.state[name]) if name in self.state else None

    def closed_by_people(self, incident_ids: Iterable[str]) -> dict[str, str]:
        self._call()
        return {name: self.closed[name] for name in incident_ids if name in self.closed}

    def _call(self) -> None:
        self.calls += 1
        if self.fault is not None:
            raise self.fault

    def _keep(self, values: Mapping[str, Any]) -> None:
        self.state |= {name: json.dumps(value) for name, value in values.items()}


class Spool:
    """The same for a spool."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.sinks: set[str] = set()
        self.fault: Exception | None = None

    def append(self, events: Sequence[Event], sinks: Collection[str]) -> None:
        if self.fault is not None:
            raise self.fault
        self.events += events
        self.sinks |= set(sinks)


class Rig:
    """A pipeline and all that it was given."""

    def __init__(self, policy: Policy | None = None, store: Store | None = None) -> None:
        self.clock, self.spool = Clock(), Spool()
        self.store = store or Store()
        self.notes: list[str] = []
        self.reported: list[Event] = []
        self.pipeline = AlertPipeline(
            "ward-3",
            policy or Policy(),
            inputs=["eth1"],
            emulated=False,
            sinks=["one", "two"],
            store=self.store,
            spool=self.spool,
            clock=self.clock,
            note=self.notes.append,
            reported=self.reported.extend,
        )

    def alert(self, *flows: tuple[int, str, float], hosts: Sequence[str] = ()) -> None:
        scores = live_scores(scored_flows(*flows), scored_hosts(*((h, "", 0.9) for h in hosts)))
        self.pipeline.take(scores)

    def pass_time(self, seconds: float) -> None:
        self.clock.seconds += seconds
        self.pipeline.tick()

    @property
    def kinds(self) -> list[str]:
        return [event.kind.value for event in self.spool.events]


def test_an_alert_goes_to_spool_and_store_with_its_incident() -> None:
    rig = Rig()
    rig.alert((1, A, 0.9), (2, B, 0.2))
    assert rig.kinds == ["flow", "incident"]
    assert rig.spool.sinks == {"one", "two"}
    assert list(rig.store.events) == [event.event_id for event in rig.spool.events]
    assert rig.reported == rig.spool.events
    (incident,) = rig.store.incidents.values()
    assert (incident.host, incident.status) == (A, "open")
    (event, _) = rig.spool.events
    assert (event.made_ns, event.sensor) == (rig.clock.wall_ns(), "ward-3")
    said = rig.pipeline.status()
    assert said["alerts"] == {"flow": 1} and said["fate"] == {"told": 1}
    assert (said["incidents"], said["backlog"], said["faults"]) == (1, 0, {})


def test_dispositions_add_up_to_the_alerts() -> None:
    rig = Rig(Policy(allow=allowing(B), limits=Limits(host_burst=2, host_per_hour=0.001)))
    rig.alert((1, A, 0.9), (2, B, 0.9))
    rig.alert((1, A, 0.9))
    rig.alert((3, A, 0.9), (4, A, 0.9))
    said = rig.pipeline.status()
    assert said["fate"] == {"told": 2, "allowed": 1, "repeat": 1, "limited": 1}
    assert sum(said["fate"].values()) == sum(said["alerts"].values())


def test_a_store_that_is_away_keeps_nothing_from_the_sinks() -> None:
    rig = Rig()
    rig.store.fault = StoreError("away")
    rig.alert((1, A, 0.9))
    assert len(rig.spool.events) == 2 and not rig.store.events
    assert rig.pipeline.status()["backlog"] == 2
    calls = rig.store.calls
    rig.pass_time(STORE_PAUSE_S / 2)
    assert rig.store.calls == calls  # it is left alone for a while
    rig.store.fault = None
    rig.pass_time(STORE_PAUSE_S)
    assert len(rig.store.events) == 2 and rig.pipeline.status()["backlog"] == 0
    assert rig.pipeline.status()["faults"] == {"store": 1}
    assert len(rig.spool.events) == 2  # once each


def test_what_is_not_spooled_is_not_stored() -> None:
    rig = Rig()
    rig.spool.fault = OutputError("the disk is full")
    rig.alert((1, A, 0.9))
    rig.alert((2, B, 0.9))
    assert not rig.store.events and rig.pipeline.status()["backlog"] == 4
    rig.spool.fault = None
    rig.pass_time(1)
    assert len(rig.spool.events) == len(rig.store.events) == 4
    assert [event.alert.host for event in rig.spool.events] == [A, A, B, B]


def test_the_same_fault_is_counted_each_time_and_noted_once_a_minute() -> None:
    rig = Rig()
    rig.spool.fault = OutputError("the disk is full")
    rig.alert((1, A, 0.9))
    for _ in range(50):
        rig.pass_time(1)
    assert rig.notes == ["the disk is full"]
    assert rig.pipeline.status()["faults"]["store"] == 51
    for _ in range(20):
        rig.pass_time(1)
    assert rig.notes == ["the disk is full"] * 2
    rig.spool.fault = OutputError("something else")
    rig.pass_time(1)
    assert rig.notes[2:] == ["something else"]


def test_the_backlog_is_bounded_and_what_is_lost_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backlog, "MAX_BACKLOG", 5)
    rig = Rig()
    rig.spool.fault = OutputError("the disk is full")
    for number in range(1, 6):
        rig.alert((number, f"10.0.2.{number}", 0.9))
    assert rig.pipeline.status()["backlog"] == 4
    assert rig.pipeline.status()["faults"]["events_lost"] == 6
    rig.spool.fault = None
    rig.pass_time(1)
    assert {event.alert.host for event in rig.spool.events} == {"10.0.2.4", "10.0.2.5"}


def test_an_unexpected_fault_ends_nothing_and_is_named() -> None:
    rig = Rig()
    rig.store.fault = UnexpectedStoreError("the store failed unexpectedly: KeyError")
    rig.alert((1, A, 0.9))
    for _ in range(60):
        rig.pass_time(STORE_PAUSE_S)
    assert rig.pipeline.status()["backlog"] == 0  # given up, one by one
    assert rig.pipeline.status()["faults"]["events_lost"] == 2
    assert any("given up" in note for note in rig.notes)
    rig.store.fault = None
    rig.clock.seconds += STORE_PAUSE_S
    rig.alert((2, B, 0.9))
    assert len(rig.store.events) == 2


def test_the_state_survives_and_a_repeat_is_not_reported_again() -> None:
    rig = Rig()
    rig.alert((1, A, 0.9))
    rig.pipeline.close()
    after = Rig(store=rig.store)
    assert after.pipeline.status()["incidents"] == 1
    after.alert((1, A, 0.9))
    assert after.kinds == [] and after.pipeline.status()["fate"] == {"repeat": 1}


def test_a_damaged_state_is_noted_and_begun_without() -> None:
    store = Store()
    store.state[GATE_STATE] = json.dumps({"format": 2, "told": 1})
    rig = Rig(store=store)
    assert "open incidents were not taken over" in rig.notes[0]
    rig.alert((1, A, 0.9))
    assert rig.kinds == ["flow", "incident"]


def test_state_that_no_event_saved_is_saved_after_a_while_but_not_before_its_events() -> None:
    rig = Rig()
    rig.pass_time(SAVE_S)
    assert rig.store.saves == 1
    rig.pass_time(SAVE_S / 2)
    assert rig.store.saves == 1
    rig.spool.fault = OutputError("the disk is full")
    rig.alert((1, A, 0.9))
    rig.pass_time(SAVE_S)
    assert rig.store.saves == 1  # ahead of its events it would keep them from being reported
    rig.spool.fault = None
    rig.pass_time(1)
    assert len(rig.store.events) == 2


def test_what_people_closed_in_the_store_is_closed() -> None:
    rig = Rig()
    rig.alert((1, A, 0.9), hosts=[A])
    (incident,) = rig.store.incidents.values()
    rig.store.closed[incident.incident_id] = "ada"
    rig.pass_time(SAVE_S)
    assert rig.store.incidents[incident.incident_id].status == "closed"
    assert rig.pipeline.status()["incidents"] == 0
    last = rig.spool.events[-1]
    assert last.kind.value == "incident" and last.incident is not None


def test_the_end_reports_what_was_held_back_and_asks_the_store_at_once() -> None:
    rig = Rig(Policy(limits=Limits(host_burst=1, host_per_hour=0.001)))
    rig.alert((1, A, 0.9))
    rig.alert((2, A, 0.9), (3, A, 0.9))
    rig.store.fault = StoreError("away")
    rig.alert((4, B, 0.9))
    rig.store.fault = None
    rig.pipeline.close()  # within the pause after the fault
    summary = rig.spool.events[-1]
    assert summary.kind.value == "summary"
    assert summary.event_id in rig.store.events and rig.pipeline.status()["backlog"] == 0
    assert rig.store.saves == 1


def test_another_policy_takes_effect_and_forgets_nothing() -> None:
    rig = Rig()
    rig.alert((1, A, 0.9))
    rig.pipeline.replace_policy(Policy(allow=allowing(A)))
    rig.alert((2, A, 0.9))
    assert rig.pipeline.status()["fate"] == {"told": 1, "allowed": 1}
    rig.pipeline.replace_policy(Policy())
    rig.alert((1, A, 0.9))
    assert rig.pipeline.status()["fate"]["repeat"] == 1
