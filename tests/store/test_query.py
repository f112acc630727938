"""Which events a filter asks for, in the database's own words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine, select
from sqlalchemy.engine import Connection

from tests.detection.alerting.samples import SECOND, START_NS
from tests.store.samples import make_event
from veilwatch.schema.events import Event
from veilwatch.schema.verdicts import Verdict, VerdictKind
from veilwatch.store.query import NO_VERDICT, EventFilter, StoredEvent, clean
from veilwatch.store.rows import event_row
from veilwatch.store.tables import events, metadata, verdicts


@pytest.fixture
def connection() -> Iterator[Connection]:
    """Three empty tables, and nothing of a store around them."""
    engine = create_engine("sqlite://")
    metadata.create_all(engine)
    with engine.connect() as opened:
        yield opened
    engine.dispose()


def insert(connection: Connection, *rows: Event) -> list[str]:
    connection.execute(events.insert(), [event_row(row) for row in rows])
    return [row.event_id for row in rows]


def judge(connection: Connection, event_id: str, kind: str, at_ns: int, who: str = "ana") -> None:
    connection.execute(
        verdicts.insert().values(event_id=event_id, who=who, at_ns=at_ns, kind=kind, note="")
    )


def found(connection: Connection, wanted: EventFilter) -> set[str]:
    return set(connection.execute(select(events.c.event_id).where(wanted.clause())).scalars())


def test_an_empty_filter_asks_for_all(connection: Connection) -> None:
    ids = insert(connection, *(make_event(n) for n in range(3)))
    assert found(connection, EventFilter()) == set(ids)


def test_the_end_of_a_span_is_outside(connection: Connection) -> None:
    ids = insert(connection, *(make_event(n) for n in range(4)))
    span = EventFilter(since_ns=START_NS + SECOND, until_ns=START_NS + 3 * SECOND)
    assert found(connection, span) == {ids[1], ids[2]}


def test_a_host_is_asked_for_by_address_or_pseudonym(connection: Connection) -> None:
    ids = insert(
        connection,
        make_event(0, host="10.0.0.1"),
        make_event(1, host="10.0.0.9", subscriber="s-0123456789abcdef"),
        make_event(2, host="10.0.0.10"),
    )
    assert found(connection, EventFilter(host="10.0.0.1")) == {ids[0]}
    assert found(connection, EventFilter(host="s-0123456789abcdef")) == {ids[1]}


def test_a_severity_asks_for_what_is_as_severe_or_more(connection: Connection) -> None:
    ids = insert(connection, *(make_event(n, severity=n) for n in (1, 2, 3)))
    for severity in (1, 2, 3):
        wanted = EventFilter(severity=severity)
        assert found(connection, wanted) == set(ids[:severity])


@pytest.mark.parametrize("family", ["100%", "a_b", "back\\slash", "Emotet", "%", "_"])
def test_a_family_stands_for_itself_alone_in_either_case(
    connection: Connection, family: str
) -> None:
    others = ["100x", "axb", "backslash", "Emotets", "x"]
    names = [family, *others]
    ids = insert(connection, *(make_event(n, family=name) for n, name in enumerate(names)))
    assert found(connection, EventFilter(family=family.upper())) == {ids[0]}


def test_the_latest_verdict_counts_whoever_said_it(connection: Connection) -> None:
    ids = insert(connection, *(make_event(n) for n in range(3)))
    judge(connection, ids[0], "true_positive", 10)
    judge(connection, ids[0], "benign", 20, who="bo")
    judge(connection, ids[1], "benign", 20)
    judge(connection, ids[1], "true_positive", 30, who="bo")
    assert found(connection, EventFilter(verdict="benign")) == {ids[0]}
    assert found(connection, EventFilter(verdict="true_positive")) == {ids[1]}
    assert found(connection, EventFilter(verdict=NO_VERDICT)) == {ids[2]}


def test_conditions_hold_together(connection: Connection) -> None:
    ids = insert(
        connection, make_event(0, family="a"), make_event(1, family="a"), make_event(2, family="b")
    )
    wanted = EventFilter(family="a", since_ns=START_NS + SECOND, kinds=("flow",))
    assert found(connection, wanted) == {ids[1]}
    assert found(connection, replace(wanted, kinds=("host",))) == set()


@pytest.mark.parametrize("text", ["' OR 1=1 --", '"; DROP TABLE vw_events; --', "\x00", "\ud800"])
def test_text_is_never_part_of_the_question(connection: Connection, text: str) -> None:
    ids = insert(connection, make_event(0))
    for asked in (
        EventFilter(host=text),
        EventFilter(family=text),
        EventFilter(incident_id=text),
        EventFilter(verdict=text),
    ):
        assert found(connection, asked) == set()
    assert found(connection, EventFilter()) == set(ids)


@given(st.text())
def test_cleaned_text_can_be_stored_and_is_cleaned_once(text: str) -> None:
    cleaned = clean(text)
    assert len(cleaned) == len(text) and clean(cleaned) == cleaned
    assert "\x00" not in cleaned
    cleaned.encode("utf-8")


def test_the_first_verdict_of_a_stored_event_counts() -> None:
    event = make_event(0)
    assert StoredEvent(event).verdict is None
    latest = Verdict(event.event_id, VerdictKind.BENIGN, "bo", 20)
    earlier = Verdict(event.event_id, VerdictKind.TRUE_POSITIVE, "ana", 10)
    assert StoredEvent(event, (latest, earlier)).verdict == latest
