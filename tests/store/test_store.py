"""The store gives back what it was given, once, on SQLite and on PostgreSQL."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.detection.alerting.samples import SECOND, START_NS
from tests.report.factory import HOSTILE_NAMES
from tests.store.samples import make_event, make_incident
from veilwatch.errors import StoreError
from veilwatch.schema.counters import CountedMinute, CounterStep
from veilwatch.schema.scores import Reason
from veilwatch.schema.verdicts import Verdict, VerdictKind
from veilwatch.store import EventFilter, Store

MINUTE = 60 * SECOND


def ids(store: Store, **wanted: Any) -> list[str]:
    return [s.event.event_id for s in store.events(EventFilter(**wanted))]


def test_events_come_back_whole_and_once(store: Store) -> None:
    events = [make_event(n, incident=make_incident(n)) for n in range(5)]
    assert sorted(store.record(events)) == sorted(e.event_id for e in events)
    assert store.record([*events, events[0], make_event(9)]) == [make_event(9).event_id]
    assert [s.event for s in store.events()] == [make_event(9), *reversed(events)]
    assert [s.event for s in store.events(newest_first=False)][:5] == events
    assert store.event(events[2].event_id[:12]).event == events[2]


def test_what_was_stored_first_stays(store: Store) -> None:
    store.record([make_event(0)])
    later = replace(make_event(0), made_ns=1)
    assert store.record([later]) == []
    assert store.event(later.event_id).event == make_event(0)


def test_many_are_read_in_pages(store: Store) -> None:
    events = [make_event(n // 3, src_port=n) for n in range(1501)]
    store.record(events)
    out = [s.event.event_id for s in store.events()]
    assert len(out) == len(set(out)) == 1501
    assert len(list(store.events(EventFilter(limit=1001)))) == 1001
    assert list(store.events(EventFilter(limit=0))) == []


def test_filters(store: Store) -> None:
    one = make_event(0, host="10.0.0.1", severity=1, family="Conti")
    two = make_event(1, host="10.0.0.2", severity=2, subscriber="abc", family="100%_wild")
    three = make_event(2, host="10.0.0.3", severity=3, incident=make_incident(1))
    store.record([one, two, three])
    name = {one.event_id: 1, two.event_id: 2, three.event_id: 3}

    def found(**wanted: Any) -> list[int]:
        return sorted(name[i] for i in ids(store, **wanted))

    assert found() == [1, 2, 3]
    assert found(since_ns=START_NS + SECOND) == [2, 3]
    assert found(until_ns=START_NS + SECOND) == [1]
    assert found(host="10.0.0.1") == [1] and found(host="abc") == [2]
    assert found(family="conti") == [1] and found(family="100%_WILD") == [2]
    assert found(family="%") == []
    assert found(severity=2) == [1, 2]
    assert found(kinds=("host",)) == []
    assert found(incident_id=make_incident(1).incident_id) == [3]
    assert found(host="' OR 1=1 --") == [] and found(host="\x00\ud800") == []
    store.judge(Verdict(one.event_id, VerdictKind.BENIGN, "ana", 5))
    assert found(verdict="benign") == [1] and found(verdict="none") == [2, 3]


def test_the_latest_verdict_counts_and_all_stay(store: Store) -> None:
    event = make_event(0)
    store.record([event])
    for kind, who, at in (
        ("true_positive", "ana", 10),
        ("benign", "bo", 20),
        ("unknown", "ana", 5),
    ):
        store.judge(Verdict(event.event_id[:8], VerdictKind(kind), who, at, note=f"{who} says"))
    said = store.event(event.event_id).verdicts
    # The clock was set back before the last one; it is still the last.
    assert [(v.who, str(v.kind), v.at_ns) for v in said] == [
        ("ana", "unknown", 21),
        ("bo", "benign", 20),
        ("ana", "true_positive", 10),
    ]
    assert ids(store, verdict="unknown") == [event.event_id]
    assert ids(store, verdict="benign") == []


@pytest.mark.parametrize("who", ["", "  ", "x" * 101])
def test_a_verdict_needs_a_name(store: Store, who: str) -> None:
    store.record([make_event(0)])
    with pytest.raises(StoreError, match="name"):
        store.judge(Verdict(make_event(0).event_id, VerdictKind.BENIGN, who, 1))
    with pytest.raises(StoreError, match="name"):
        store.close_incident("aaaa", who=who)


def test_ids_by_their_beginning(store: Store) -> None:
    events = [replace(make_event(n), event_id=f"abcd{n}" + "0" * 27) for n in range(2)]
    store.record(events)
    assert store.event("abcd1").event == events[1]
    for given, told in (
        ("abcd", "several ids begin"),
        ("beef", "no event has an id"),
        ("abc", "is no id"),
        ("%%%%", "is no id"),
        ("", "is no id"),
    ):
        with pytest.raises(StoreError, match=told):
            store.event(given)


@pytest.mark.parametrize("name", [*HOSTILE_NAMES, "nul\x00byte", "lone \ud800 surrogate", "'; --"])
def test_hostile_text_is_kept_or_cleaned(store: Store, name: str) -> None:
    reason = Reason("tls_sni", math.inf, 1.0, name)
    event = make_event(0, family=name, application=name, subscriber=name, reasons=(reason,))
    incident = make_incident(0, host=name)
    store.record([event], [incident], state={name: {"text": name}})
    found = store.event(event.event_id).event
    assert found.alert.application == name and found.alert.reasons[0].text == name
    assert store.incidents()[0].incident.host == name
    assert store.load_state(name) == {"text": name}
    assert ids(store, family=name) == [event.event_id]
    store.judge(Verdict(event.event_id, VerdictKind.UNKNOWN, "ana", 1, note=name[:2000]))


def test_incidents_are_replaced_and_filtered(store: Store) -> None:
    store.record([], [make_incident(n, host="10.0.0.1") for n in range(3)])
    grown = make_incident(
        1, host="10.0.0.1", alerts=7, status="closed", last_ns=START_NS + 99 * SECOND
    )
    store.record([], [grown])
    assert store.incidents()[0].incident == grown
    assert len(store.incidents()) == 3
    assert [i.incident for i in store.incidents(status="closed")] == [grown]
    assert len(store.incidents(host="10.0.0.1")) == 3 and not store.incidents(host="10.0.0.9")
    assert len(store.incidents(limit=1)) == 1
    assert [i.incident for i in store.incidents(since_ns=START_NS + 3 * SECOND)] == [grown]
    assert store.incident(grown.incident_id[:6]).incident == grown


def test_an_incident_closed_by_a_person_opens_with_more_evidence_only(store: Store) -> None:
    incident = make_incident(0, alerts=3)
    store.record([], [incident])
    closed = store.close_incident(incident.incident_id[:8], who="ana", note="reimaged")
    assert (closed.incident.status, closed.closed_by, closed.closed_note) == (
        *("closed", "ana", "reimaged"),
    )
    store.record([], [incident, make_incident(1)])
    assert store.incident(incident.incident_id) == closed
    asked = [incident.incident_id, make_incident(1).incident_id, "x"]
    assert store.closed_by_people(asked) == {incident.incident_id: "ana"}
    store.record([], [replace(incident, alerts=4)])
    assert store.closed_by_people([]) == {}
    again = store.incident(incident.incident_id)
    assert (again.incident.status, again.closed_by) == ("open", "")


def test_counters_by_minute(store: Store) -> None:
    for run, at_ns, values in (
        ("a", 0, {"packets": 5, "drops": 0}),
        ("a", MINUTE - 1, {"packets": 7}),  # the same minute, counted again
        ("b", MINUTE - 1, {"packets": 2}),  # restarted within it
        ("b", MINUTE, {"packets": 1}),
    ):
        store.count(values, minute_ns=at_ns, sensor="s1", run=run)
    store.count({}, minute_ns=0, sensor="s1", run="a")
    assert store.counters() == [
        (0, "s1", "drops", 0.0),
        (0, "s1", "packets", 9.0),
        (MINUTE, "s1", "packets", 1.0),
    ]
    assert store.counters(since_ns=MINUTE) == store.counters()[2:]
    assert store.counters(until_ns=MINUTE, names=["packets"]) == store.counters()[1:2]


def test_counters_by_steps_of_time(store: Store) -> None:
    hour = 60 * MINUTE
    for minute, run, value in ((0, "a", 5.0), (59, "a", 7.0), (59, "b", 1.0), (61, "b", 2.0)):
        store.count({"packets": value}, minute_ns=minute * MINUTE, sensor="s", run=run)
    store.count({"packets": 4.0, "x": 1.0}, minute_ns=0, sensor="t", run="c")
    found = store.counter_steps(since_ns=0, until_ns=2 * hour, step_ns=hour)
    assert found == [
        CounterStep(0, "s", "packets", 13.0, 7.0, 2, 3),
        CounterStep(0, "t", "packets", 4.0, 4.0, 1, 1),
        CounterStep(0, "t", "x", 1.0, 1.0, 1, 1),
        CounterStep(hour, "s", "packets", 2.0, 2.0, 1, 1),
    ]
    assert store.counter_steps(since_ns=hour, until_ns=2 * hour, step_ns=hour) == found[3:]
    assert store.counter_steps(since_ns=0, until_ns=1, step_ns=MINUTE)[0].total == 5.0
    minutes = store.counted_minutes(since_ns=0, until_ns=hour)
    assert minutes == [
        CountedMinute(0, "s", "a"),
        CountedMinute(0, "t", "c"),
        CountedMinute(59 * MINUTE, "s", "a"),
        CountedMinute(59 * MINUTE, "s", "b"),
    ]


def test_state_goes_with_the_events_or_not_at_all(store: Store) -> None:
    assert store.load_state("desk") is None
    store.record([make_event(0)], state={"desk": {"n": 1}})
    with pytest.raises(ValueError, match="not JSON"):
        store.record([make_event(1)], state={"desk": {"n": math.nan}})
    assert store.load_state("desk") == {"n": 1}
    assert ids(store) == [make_event(0).event_id]
    store.save_state({"desk": [2]})
    assert store.load_state("desk") == [2]


def test_a_second_run_finds_everything(url: str) -> None:
    with Store(url) as store:
        store.record([make_event(0)], [make_incident(0)], state={"x": 1})
    with Store(url, create=False) as store:
        assert len(list(store.events())) == len(store.incidents()) == store.load_state("x") == 1


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("mysql://u:secret@h/d", "no store is known by mysql://u:***@h/d"),
        ("sqlite://", "no store is known"),
        ("sqlite:///:memory:", "no store is known"),
        ("postgresql://host", "no store is known"),
        ("://", "cannot be read"),
        ("postgresql://u:secret@h:port/d", "cannot be read"),
        ("postgresql://u:secret@127.0.0.1:1/d", "refused"),
    ],
)
def test_a_wrong_url_is_named_without_its_password(url: str, told: str) -> None:
    if "127.0.0.1" in url:
        pytest.importorskip("psycopg")
    with pytest.raises(StoreError) as caught:
        Store(url)
    assert told in str(caught.value)
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_store_that_is_not_there_is_not_made_by_a_question(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such store"):
        Store(str(tmp_path / "a" / "x.db"), create=False)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "empty.db").touch()
    with pytest.raises(StoreError, match="holds no tables"):
        Store(str(tmp_path / "empty.db"), create=False)


@pytest.mark.parametrize(
    "content", [b"not a database" * 500, b"SQLite format 3\0" + b"\xff" * 9000]
)
def test_another_file_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.db"
    path.write_bytes(content)
    with pytest.raises(StoreError):
        Store(str(path))
    assert path.read_bytes() == content


def test_a_damaged_document_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with Store(str(path)) as store:
        store.record([make_event(0)])
        with store._database.writing() as connection:
            connection.exec_driver_sql("UPDATE vw_events SET document = '{\"kind\":1}'")
        with pytest.raises(StoreError, match="damaged"):
            list(store.events())


def test_only_the_owner_reads_it(tmp_path: Path) -> None:
    with Store(str(tmp_path / "state" / "x.db")) as store:
        store.record([make_event(0)])
        modes = {p.name: p.stat().st_mode & 0o777 for p in (tmp_path / "state").iterdir()}
    assert modes["x.db"] == modes["x.db-wal"] == 0o600
    assert (tmp_path / "state").stat().st_mode & 0o077 == 0
