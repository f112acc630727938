"""What a store forgets, and in which order.

By age: counters, events, closed incidents and passing state that are older than the limit. Age is
counted from when something was recorded, never from the time of packets: captures of years ago are
alerted on today, and a packet's stamp may say anything. By size, until the contents are small
enough:

1. counters older than a day, the oldest first;
2. events that nobody judged, the oldest first;
3. closed incidents, the oldest first;
4. events with a verdict, the oldest first, their verdicts with them.

Open incidents and their events are never deleted, nor is the sensor's state. What they take
beyond the limit is reported.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Table, and_, delete, exists, select, text

from veilwatch.errors import VeilwatchError
from veilwatch.schema.units import DAY_NS, MINUTE_NS
from veilwatch.store.database import Database
from veilwatch.store.tables import counters, events, incidents, metadata, state, verdicts

STEP: Final = 1000
"""Rows deleted in one transaction: writers wait for tenths of a second and no longer."""

LOW_WATER: Final = 0.9
"""Share of the limit that is left: without it every new event would begin the work again."""


@dataclass(frozen=True, slots=True)
class Retention:
    """How long and how much is kept.

    Attributes
    ----------
    days
        Age limit; None for none.
    max_bytes
        Size limit; None for none.
    state_days
        Age limits of state, by what its names begin with.

    Raises
    ------
    VeilwatchError
        If a limit is not above 0.
    """

    days: float | None = None
    max_bytes: int | None = None
    state_days: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        limits = (self.days, self.max_bytes, *self.state_days.values())
        if any(limit is not None and limit <= 0 for limit in limits):
            raise VeilwatchError("limits of what a store keeps must be above 0")


@dataclass(slots=True)
class RetentionReport:
    """What was deleted, and what is left.

    Attributes
    ----------
    events, incidents, counters
        Rows deleted.
    bytes_used
        What the contents take now.
    over_bytes
        How much of that lies above the limit and may not be deleted.
    """

    events: int = 0
    incidents: int = 0
    counters: int = 0
    bytes_used: int = 0
    over_bytes: int = 0


def retain(database: Database, policy: Retention, now_ns: int) -> RetentionReport:
    """Delete what the policy does not keep; see `Store.retain`."""
    report = RetentionReport()
    if policy.days is not None:
        limit_ns = max(0, now_ns - int(policy.days * DAY_NS))
        steps: tuple[Callable[[], int], ...] = (
            lambda: _counters(database, report, before_ns=limit_ns),
            lambda: _events(database, report, events.c.made_ns < limit_ns),
            lambda: _incidents(database, report, incidents.c.recorded_ns < limit_ns),
        )
        for step in steps:
            while step():
                pass
    for prefix, days in policy.state_days.items():
        _state(database, prefix, now_ns - int(days * DAY_NS))
    report.bytes_used = bytes_used(database)
    if policy.max_bytes is not None and report.bytes_used > policy.max_bytes:
        _shrink(database, report, int(policy.max_bytes * LOW_WATER), now_ns)
        report.over_bytes = max(0, report.bytes_used - policy.max_bytes)
    if report.events or report.incidents or report.counters:
        _give_back(database)
    return report


def bytes_used(database: Database) -> int:
    """Return what the contents take; see `Store.bytes_used`."""
    if database.is_sqlite:
        with database.reading() as connection:
            pages, free, size = (
                int(connection.exec_driver_sql(f"PRAGMA {name}").scalar() or 0)
                for name in ("page_count", "freelist_count", "page_size")
            )
        return (pages - free) * size
    # A table in PostgreSQL keeps its size when rows are deleted: the rows themselves are added up.
    with database.reading() as connection:
        sizes = (
            # The names are those of our own tables.
            connection.execute(text(f"SELECT sum(pg_column_size(t.*)) FROM {name} t"))  # noqa: S608
            for name in metadata.tables
        )
        return sum(int(found.scalar() or 0) for found in sizes)


def _shrink(database: Database, report: RetentionReport, target: int, now_ns: int) -> None:
    judged = exists().where(verdicts.c.event_id == events.c.event_id)
    steps: tuple[Callable[[], int], ...] = (
        lambda: _counters(database, report, before_ns=now_ns - DAY_NS),
        lambda: _events(database, report, ~judged),
        lambda: _incidents(database, report, None),
        lambda: _events(database, report, judged),
    )
    for step in steps:
        while report.bytes_used > target and step():
            report.bytes_used = bytes_used(database)


def _counters(database: Database, report: RetentionReport, *, before_ns: int) -> int:
    with database.writing() as connection:
        # Whole minutes, the oldest first.
        oldest = (
            select(counters.c.minute)
            .where(counters.c.minute < before_ns // MINUTE_NS)
            .distinct()
            .order_by(counters.c.minute)
            .limit(STEP // 10)
        )
        minutes = list(connection.execute(oldest).scalars())
        if minutes:
            gone = connection.execute(delete(counters).where(counters.c.minute.in_(minutes)))
            report.counters += gone.rowcount
    return len(minutes)


def _events(database: Database, report: RetentionReport, which: ColumnElement[bool]) -> int:
    """Delete the oldest events of a kind, but none of an open incident."""
    of_open = exists().where(
        and_(incidents.c.incident_id == events.c.incident_id, incidents.c.status == "open")
    )
    with database.writing() as connection:
        ids = _oldest(connection, events, "event_id", events.c.made_ns, and_(which, ~of_open))
        if ids:
            connection.execute(delete(verdicts).where(verdicts.c.event_id.in_(ids)))
            connection.execute(delete(events).where(events.c.event_id.in_(ids)))
    report.events += len(ids)
    return len(ids)


def _incidents(
    database: Database, report: RetentionReport, which: ColumnElement[bool] | None
) -> int:
    closed = incidents.c.status == "closed"
    with database.writing() as connection:
        ids = _oldest(
            connection,
            *(incidents, "incident_id", incidents.c.recorded_ns),
            closed if which is None else and_(closed, which),
        )
        if ids:
            connection.execute(delete(incidents).where(incidents.c.incident_id.in_(ids)))
    report.incidents += len(ids)
    return len(ids)


def _state(database: Database, prefix: str, before_ns: int) -> None:
    with database.writing() as connection:
        connection.execute(
            delete(state).where(
                state.c.name.startswith(prefix, autoescape=True), state.c.saved_ns < before_ns
            )
        )


def _oldest(
    connection: Connection, table: Table, key: str, by: Any, which: ColumnElement[bool]
) -> list[str]:
    asked = select(table.c[key]).where(which).order_by(by, table.c[key]).limit(STEP)
    return list(connection.execute(asked).scalars())


def _give_back(database: Database) -> None:
    """Hand free pages of SQLite back to the file system; PostgreSQL sees to it itself."""
    if not database.is_sqlite:
        return
    with database.bare() as connection:
        connection.executescript("PRAGMA incremental_vacuum")  # one step frees only one page
        with suppress(sqlite3.OperationalError):  # somebody reads; the next checkpoint does it
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
