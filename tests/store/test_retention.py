"""What is forgotten: by age, by size, in the order that is stated, and never what is open."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.detection.alerting.samples import SECOND, START_NS
from tests.examples import examples
from tests.store.samples import make_event, make_incident
from veilwatch.errors import VeilwatchError
from veilwatch.schema.verdicts import Verdict, VerdictKind
from veilwatch.store import Retention, Store

DAY = 86_400
NOW_NS = START_NS + 100 * DAY * SECOND


def test_age(store: Store) -> None:
    old, new = make_event(0), make_event(99 * DAY)
    open_one, closed_one = make_incident(0), make_incident(1, status="closed")
    of_open = make_event(5, incident=open_one)
    store.record([old, new, of_open], [open_one, closed_one], now_ns=START_NS)
    store.judge(Verdict(old.event_id, VerdictKind.BENIGN, "ana", 1))
    store.count({"packets": 1}, minute_ns=START_NS, sensor="s", run="a")
    store.count({"packets": 2}, minute_ns=NOW_NS, sensor="s", run="a")
    store.save_state({"desk": 1})
    report = store.retain(Retention(days=30), now_ns=NOW_NS)
    assert (report.events, report.incidents, report.counters) == (1, 1, 1)
    assert [s.event.event_id for s in store.events()] == [new.event_id, of_open.event_id]
    assert [i.incident for i in store.incidents()] == [open_one]
    assert [value for *_, value in store.counters()] == [2.0]
    assert store.load_state("desk") == 1
    again = store.retain(Retention(days=30), now_ns=NOW_NS)
    assert (again.events, again.incidents, again.counters) == (0, 0, 0)
    # The verdict went with its event.
    store.record([old])
    assert store.event(old.event_id).verdicts == ()


def test_size_in_the_order_that_is_stated(store: Store) -> None:
    open_one = make_incident(0)
    plain = [make_event(n) for n in range(400)]
    judged = [make_event(400 + n) for n in range(50)]
    of_open = [make_event(500 + n, incident=open_one) for n in range(50)]
    store.record([*plain, *judged, *of_open], [open_one, make_incident(1, status="closed")])
    for event in judged:
        store.judge(Verdict(event.event_id, VerdictKind.BENIGN, "ana", 1))
    used = store.bytes_used()
    assert store.retain(Retention(max_bytes=used), now_ns=NOW_NS).events == 0

    store.retain(Retention(max_bytes=used - 1), now_ns=NOW_NS)
    left = {s.event.event_id for s in store.events()}
    assert {e.event_id for e in (*judged, *of_open)} <= left
    assert store.bytes_used() <= used - 1

    report = store.retain(Retention(max_bytes=1), now_ns=NOW_NS)
    assert {s.event.event_id for s in store.events()} == {e.event_id for e in of_open}
    assert [i.incident for i in store.incidents()] == [open_one]
    assert report.over_bytes > 0


def test_the_oldest_go_first(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("veilwatch.store.retention.STEP", 10)
    store.record([make_event(n) for n in range(300)])
    store.retain(Retention(max_bytes=store.bytes_used() // 2), now_ns=NOW_NS)
    left = [s.event for s in store.events(newest_first=False)]
    assert 20 < len(left) < 290
    assert left == [make_event(n) for n in range(300 - len(left), 300)]


def test_space_is_given_back(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with Store(str(path)) as store:
        store.record([make_event(n) for n in range(2000)])
        store.retain(Retention(max_bytes=10**9))
        full = sum(p.stat().st_size for p in tmp_path.iterdir())
        store.retain(Retention(max_bytes=store.bytes_used() // 10))
        assert sum(p.stat().st_size for p in tmp_path.iterdir()) < full / 2


@pytest.mark.parametrize("limits", [{"days": 0}, {"max_bytes": -1}])
def test_limits_are_checked(limits: dict[str, Any]) -> None:
    with pytest.raises(VeilwatchError):
        Retention(**limits)


@examples(25)
@given(
    st.lists(st.tuples(st.integers(0, 100), st.booleans(), st.booleans()), min_size=1, max_size=40),
    st.floats(0.01, 120),
    st.integers(1, 200_000),
)
def test_open_incidents_and_their_events_are_never_deleted(
    tmp_path_factory: pytest.TempPathFactory,
    items: list[tuple[int, bool, bool]],
    days: float,
    max_bytes: int,
) -> None:
    folder = tmp_path_factory.mktemp("store")
    kept_events, kept_incidents = set(), set()
    with Store(str(folder / "x.db")) as store:
        for n, (day, is_open, judged) in enumerate(items):
            incident = make_incident(
                n, last_ns=START_NS + day * DAY * SECOND, status="open" if is_open else "closed"
            )
            event = make_event(day * DAY + n, incident=incident)
            store.record([event], [incident], now_ns=START_NS + day * DAY * SECOND)
            if judged:
                store.judge(Verdict(event.event_id, VerdictKind.UNKNOWN, "ana", 1))
            if is_open:
                kept_events.add(event.event_id)
                kept_incidents.add(incident.incident_id)
        report = store.retain(Retention(days=days, max_bytes=max_bytes), now_ns=NOW_NS)
        assert kept_events <= {s.event.event_id for s in store.events()}
        assert kept_incidents <= {i.incident.incident_id for i in store.incidents()}
        assert report.bytes_used <= max_bytes or report.over_bytes > 0


def test_what_was_recorded_today_is_kept_however_old_its_packets_are(store: Store) -> None:
    recorded_ns = NOW_NS - DAY * SECOND
    packets_ns = START_NS - 9 * 365 * DAY * SECOND
    incident = make_incident(1, status="closed", opened_ns=packets_ns, last_ns=packets_ns)
    event = make_event(0, incident=incident, first_ns=packets_ns, last_ns=packets_ns)
    today = replace(event, made_ns=recorded_ns)
    store.record([today], [incident], now_ns=recorded_ns)
    # And the other way round: packets of the year 2100, recorded long ago.
    far_ns = 4_102_444_800 * SECOND
    far = make_event(2, first_ns=far_ns, last_ns=far_ns)
    far_incident = make_incident(3, status="closed", last_ns=far_ns)
    store.record([far], [far_incident], now_ns=START_NS)
    report = store.retain(Retention(days=30), now_ns=NOW_NS)
    assert (report.events, report.incidents) == (1, 1)
    assert [s.event.event_id for s in store.events()] == [today.event_id]
    assert [i.incident.incident_id for i in store.incidents()] == [incident.incident_id]


def test_the_first_to_go_for_size_were_recorded_first(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("veilwatch.store.retention.STEP", 10)
    old = [replace(make_event(900 + n), made_ns=START_NS + n) for n in range(300)]
    new = [replace(make_event(n), made_ns=START_NS + 10**6 + n) for n in range(300)]
    store.record([*new, *old])
    store.retain(Retention(max_bytes=store.bytes_used() * 2 // 3), now_ns=NOW_NS)
    left = {s.event.event_id for s in store.events()}
    assert {event.event_id for event in new} & left == {event.event_id for event in new}


def test_passing_state_ages_and_other_state_does_not(store: Store) -> None:
    store.save_state({"scores/a/1": {}, "scores_not": {}, "desk": {}})
    store.retain(Retention(state_days={"scores/": 90}))
    assert store.load_state("scores/a/1") == {}
    store.retain(Retention(state_days={"scores/": 90}), now_ns=time.time_ns() + 91 * DAY * SECOND)
    found = [store.load_state(name) for name in ("scores/a/1", "scores_not", "desk")]
    assert found == [None, {}, {}]
