"""Rows of a spool, changed within a transaction of its file."""

from __future__ import annotations

import random
import sqlite3
from enum import IntEnum
from typing import Final

from veilwatch.sinks.backoff import backoff_s
from veilwatch.sinks.base import DeliveryFailure

MAX_REASON: Final = 300
"""Characters kept of a reason."""

STEP: Final = 500
"""Events removed at a time where room is needed."""


class State(IntEnum):
    """How far an event is on its way to a sink."""

    PENDING = 0
    SENT = 1  # handed to the sink, not settled
    DELIVERED = 2
    SET_ASIDE = 3


def settle(db: sqlite3.Connection, sink: str, event_id: str, state: State, reason: str = "") -> int:
    """Note what became of an event that a sink was sent; return whether it was waiting."""
    return db.execute(
        "UPDATE deliveries SET state = ?, reason = ? WHERE sink = ? AND state IN (0, 1) "
        "AND seq = (SELECT seq FROM events WHERE event_id = ?)",
        (state, reason[:MAX_REASON], sink, key(event_id)),
    ).rowcount


def postpone(
    db: sqlite3.Connection,
    sink: str,
    failure: DeliveryFailure,
    now_ns: int,
    chance: random.Random,
) -> None:
    """Have an event sent to a sink again, after a pause that grows with each attempt."""
    row = db.execute(
        "SELECT d.seq, d.attempts FROM deliveries d JOIN events e USING (seq) "
        "WHERE d.sink = ? AND d.state IN (0, 1) AND e.event_id = ?",
        (sink, key(failure.event_id)),
    ).fetchone()
    if row is None:
        return
    seq, attempts = row
    next_ns = now_ns + int(1e9 * backoff_s(attempts, chance))
    db.execute(
        "UPDATE deliveries SET state = 0, again = max(again, ?), attempts = attempts + 1, "
        "next_ns = ?, reason = ? WHERE sink = ? AND seq = ?",
        (int(failure.unsure), next_ns, failure.reason[:MAX_REASON], sink, seq),
    )


def count(db: sqlite3.Connection, sink: str, name: str, more: int) -> None:
    """Add to a counter of a sink."""
    db.execute(
        "INSERT INTO counters VALUES (?, ?, ?) "
        "ON CONFLICT (sink, name) DO UPDATE SET value = value + excluded.value",
        (sink, name, more),
    )


def make_room(db: sqlite3.Connection, most_events: int, most_bytes: int) -> None:
    """Remove what is beyond the bounds: first what all sinks have, then what still waits."""
    oldest_done = "SELECT seq FROM waits WHERE sinks = 0 ORDER BY seq LIMIT ?"
    for query in (oldest_done, "SELECT seq FROM events ORDER BY seq LIMIT ?"):
        while True:
            events, size = db.execute("SELECT events, bytes FROM totals").fetchone()
            over = max(events - most_events, 1 if size > most_bytes else 0)
            if over <= 0:
                return
            rows = db.execute(query, (min(over, STEP),)).fetchall()
            if not rows:
                break
            for row in rows:
                drop(db, row[0])


def drop(db: sqlite3.Connection, seq: int) -> None:
    """Remove an event; for a sink that still waits for it, it counts as dropped."""
    lost = db.execute(
        "SELECT sink FROM deliveries WHERE seq = ? AND state IN (0, 1)", (seq,)
    ).fetchall()
    for (sink,) in lost:
        count(db, sink, "dropped", 1)
    db.execute("DELETE FROM events WHERE seq = ?", (seq,))


def key(event_id: str) -> str:
    """Return an id that SQLite can store: half a surrogate has no UTF-8."""
    return event_id.encode("utf-8", "backslashreplace").decode()
