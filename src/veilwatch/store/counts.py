"""Counters read back for a report: added up in the database, so that months take little memory."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import distinct, func, select

from veilwatch.schema.counters import CountedMinute, CounterStep
from veilwatch.schema.units import MINUTE_NS
from veilwatch.store.database import Database
from veilwatch.store.query import clean
from veilwatch.store.tables import counters


def counter_values(
    database: Database, *, since_ns: int, until_ns: int | None, names: Iterable[str]
) -> list[tuple[int, str, str, float]]:
    """Return counters minute by minute; see `Store.counters`."""
    minute = counters.c.minute
    asked = (
        select(minute, counters.c.sensor, counters.c.name, func.sum(counters.c.value))
        .where(minute >= since_ns // MINUTE_NS)
        .group_by(minute, counters.c.sensor, counters.c.name)
        .order_by(minute, counters.c.sensor, counters.c.name)
    )
    if until_ns is not None:
        asked = asked.where(minute < -(-until_ns // MINUTE_NS))
    wanted = [clean(name) for name in names]
    if wanted:
        asked = asked.where(counters.c.name.in_(wanted))
    with database.reading() as connection:
        return [
            (int(at) * MINUTE_NS, sensor, name, float(value))
            for at, sensor, name, value in connection.execute(asked)
        ]


def counter_steps(
    database: Database, *, since_ns: int, until_ns: int, step_ns: int
) -> list[CounterStep]:
    """Return counters by steps of time; see `Store.counter_steps`."""
    minutes = max(step_ns // MINUTE_NS, 1)
    minute, value = counters.c.minute, counters.c.value
    step = (minute // minutes).label("step")
    asked = (
        select(
            *(step, counters.c.sensor, counters.c.name),
            *(func.sum(value), func.max(value), func.count(distinct(minute)), func.count()),
        )
        .where(minute >= since_ns // MINUTE_NS, minute < -(-until_ns // MINUTE_NS))
        .group_by(step, counters.c.sensor, counters.c.name)
        .order_by(step, counters.c.sensor, counters.c.name)
    )
    with database.reading() as connection:
        return [
            CounterStep(int(at) * minutes * MINUTE_NS, sensor, name, float(total), *rest)
            for at, sensor, name, total, *rest in connection.execute(asked)
        ]


def counted_minutes(database: Database, *, since_ns: int, until_ns: int) -> list[CountedMinute]:
    """Return the minutes that have any counter; see `Store.counted_minutes`."""
    minute = counters.c.minute
    asked = (
        select(minute, counters.c.sensor, counters.c.run)
        .where(minute >= since_ns // MINUTE_NS, minute < -(-until_ns // MINUTE_NS))
        .distinct()
        .order_by(minute, counters.c.sensor, counters.c.run)
    )
    with database.reading() as connection:
        return [
            CountedMinute(int(at) * MINUTE_NS, sensor, run)
            for at, sensor, run in connection.execute(asked)
        ]
