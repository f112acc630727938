"""The spool: events wait on disk until every sink has them.

An event is kept once, with a row for each sink that tells how far it is. What was handed to a
sink and not settled before a crash is handed out again with `Event.again` set. Delivered events
stay until room is needed, so that they can be sent once more where a receiver lost them.
"""

from __future__ import annotations

import os
import random
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import Final, Self, TypeVar

from veilwatch.detection.alerting.person import Person
from veilwatch.errors import OutputError, VeilwatchError
from veilwatch.files import scrub
from veilwatch.schema.events import Event
from veilwatch.sinks.base import Receipt, Trouble
from veilwatch.sinks.wire import from_bytes, to_bytes

T = TypeVar("T")

MAX_EVENTS: Final = 200_000
"""Most events kept: a month of 6,000 a day, far more than a SOC reads."""

MAX_BYTES: Final = 1 << 30
"""Most bytes of events kept. One takes 2 to 10 kB; the file is larger by its indexes, about a
tenth."""

FIRST_BACKOFF_S: Final = 1.0
"""Pause before the first repetition: a restart of the receiver takes about as long."""

MAX_BACKOFF_S: Final = 60.0
"""Longest pause: an outage that ends is noticed within a minute."""

JITTER: Final = 0.25
"""Part of a pause that is drawn by chance, so that sensors do not come back all at once."""

BUSY_S: Final = 2.0
"""How long another process may hold the file; a transaction takes milliseconds, and whoever waits
for one has other work."""

RESERVE_BYTES: Final = 8 << 20
"""Disk space held back in a file beside the spool: with a full disk even noting that an event was
delivered takes a few pages of log and a checkpoint of `CHECKPOINT_PAGES`."""

CHECKPOINT_PAGES: Final = 256
"""Pages of log after which it is brought into the file: 1 MB, well within the reserve."""

MAX_LOG_BYTES: Final = 16 << 20
"""Bytes that SQLite's log keeps between checkpoints; a large batch makes it longer for a while."""

MAX_REASON: Final = 300
"""Characters kept of a reason."""

_NO_ROOM: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR})
_STEP: Final = 500  # events removed at a time where room is needed

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id TEXT NOT NULL UNIQUE,
    made_ns INTEGER NOT NULL,
    size INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS deliveries (
    seq INTEGER NOT NULL REFERENCES events (seq) ON DELETE CASCADE,
    sink TEXT NOT NULL,
    state INTEGER NOT NULL,
    again INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    next_ns INTEGER NOT NULL DEFAULT 0,
    reason TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (sink, seq)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_state ON deliveries (sink, state, seq);
CREATE INDEX IF NOT EXISTS waiting ON deliveries (sink, seq) WHERE state IN (0, 1);
CREATE INDEX IF NOT EXISTS by_event ON deliveries (seq);
-- How many sinks wait for an event, beside it: changing the event itself would copy its body.
CREATE TABLE IF NOT EXISTS waits (
    seq INTEGER PRIMARY KEY REFERENCES events (seq) ON DELETE CASCADE,
    sinks INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS by_sinks ON waits (sinks, seq);
CREATE TRIGGER IF NOT EXISTS queued AFTER INSERT ON deliveries WHEN new.state IN (0, 1) BEGIN
    UPDATE waits SET sinks = sinks + 1 WHERE seq = new.seq;
END;
CREATE TRIGGER IF NOT EXISTS moved AFTER UPDATE OF state ON deliveries
WHEN (new.state IN (0, 1)) <> (old.state IN (0, 1)) BEGIN
    UPDATE waits SET sinks = sinks + (new.state IN (0, 1)) - (old.state IN (0, 1))
    WHERE seq = new.seq;
END;
CREATE TRIGGER IF NOT EXISTS left_out AFTER DELETE ON deliveries WHEN old.state IN (0, 1) BEGIN
    UPDATE waits SET sinks = sinks - 1 WHERE seq = old.seq;
END;
CREATE TABLE IF NOT EXISTS counters (
    sink TEXT NOT NULL,
    name TEXT NOT NULL,
    value INTEGER NOT NULL,
    PRIMARY KEY (sink, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS totals (events INTEGER NOT NULL, bytes INTEGER NOT NULL);
INSERT INTO totals SELECT 0, 0 WHERE NOT EXISTS (SELECT 1 FROM totals);
CREATE TRIGGER IF NOT EXISTS came AFTER INSERT ON events BEGIN
    UPDATE totals SET events = events + 1, bytes = bytes + new.size;
    INSERT INTO waits (seq) VALUES (new.seq);
END;
CREATE TRIGGER IF NOT EXISTS went AFTER DELETE ON events BEGIN
    UPDATE totals SET events = events - 1, bytes = bytes - old.size;
END;
"""


class _State(IntEnum):
    PENDING = 0
    SENT = 1  # handed to the sink, not settled
    DELIVERED = 2
    SET_ASIDE = 3


@dataclass(frozen=True, slots=True)
class SinkCounts:
    """How far one sink is.

    Attributes
    ----------
    pending
        Events that wait or are being sent.
    set_aside
        Events that the sink will never take, kept with their reasons.
    delivered, dropped
        Since the spool was made: delivered, and lost undelivered because the spool was full.
    oldest_ns
        When the oldest pending event was made, ns since the epoch; 0 none.
    """

    pending: int
    set_aside: int
    delivered: int
    dropped: int
    oldest_ns: int


class SpoolFullError(OutputError):
    """There is no room on the spool's disk."""


class Spool:
    """Durable queue of events for several sinks, which threads and processes may share.

    A process opens it for itself: SQLite's files do not survive a fork.

    Parameters
    ----------
    path
        File of the spool, made where there is none; its folder exists.
    max_events, max_bytes
        Beyond either, events that all sinks have are removed, oldest first; where that is not
        enough, the oldest that are still waiting, which `SinkCounts.dropped` tells.

    Raises
    ------
    OutputError
        Here and in every method: if the file cannot be read or written, such as on a full disk.
        Nothing is half done then, and the next call works once there is room.
    """

    def __init__(
        self, path: Path, *, max_events: int = MAX_EVENTS, max_bytes: int = MAX_BYTES
    ) -> None:
        self.path = path
        self._bounds = (max_events, max_bytes)
        self._lock = threading.Lock()
        self._chance = random.Random()  # noqa: S311 - jitter, no secret
        with self._errors():
            # Events name hosts and subscribers: the file is the owner's alone from the start.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._db = sqlite3.connect(
                path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
            )
            self._db.execute("PRAGMA journal_mode = WAL")
            # FULL: an event that was accepted is there after a power failure. It costs a sync of
            # the log for each batch, of which there are a few a second.
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA foreign_keys = ON")
            self._db.execute(f"PRAGMA journal_size_limit = {MAX_LOG_BYTES}")
            self._db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
            self._db.executescript(_SCHEMA)
        self._reserve = Path(f"{path}.reserve")
        self._reserved = False
        self._hold_reserve()

    def append(self, events: Sequence[Event], sinks: Collection[str]) -> int:
        """Keep events for the named sinks; an id that a sink had already is not kept again.

        Returns
        -------
        int
            How many events were new to a sink.

        Raises
        ------
        OutputError
            If none of them was kept.
        """
        rows = [(event.event_id, event.made_ns, to_bytes(event)) for event in events]
        try:
            return self._append(rows, sinks)
        except SpoolFullError:
            if not self._make_way():
                raise
            return self._append(rows, sinks)

    def _append(self, rows: Sequence[tuple[str, int, bytes]], sinks: Collection[str]) -> int:
        new = 0
        with self._transaction() as db:
            for event_id, made_ns, body in rows:
                db.execute(
                    "INSERT OR IGNORE INTO events (event_id, made_ns, size, body) "
                    "VALUES (?, ?, ?, ?)",
                    (_key(event_id), made_ns, len(body), body),
                )
                added = [
                    db.execute(
                        "INSERT OR IGNORE INTO deliveries (seq, sink, state) "
                        "SELECT seq, ?, ? FROM events WHERE event_id = ?",
                        (sink, _State.PENDING, _key(event_id)),
                    ).rowcount
                    for sink in sorted(set(sinks))
                ]
                new += any(added)
            self._make_room(db)
        return new

    def take(self, sink: str, limit: int, now_ns: int) -> list[Event]:
        """Return events that are due for a sink, oldest first, and note that they are being sent.

        Parameters
        ----------
        sink
            Name of the sink; only one `Delivery` at a time takes for it.
        limit
            Most events to return.
        now_ns
            Wall clock, ns since the epoch.

        Returns
        -------
        list of Event
            Those that may have been delivered before have `again` set.
        """
        return self._despite_full(lambda: self._take(sink, limit, now_ns))

    def _take(self, sink: str, limit: int, now_ns: int) -> list[Event]:
        # A time further off than any pause makes is left from before the clock was set back.
        latest = now_ns + int(2 * MAX_BACKOFF_S * 1e9)
        with self._transaction() as db:
            rows = db.execute(
                "SELECT e.seq, e.event_id, e.body, d.state, d.again "
                "FROM deliveries d INDEXED BY waiting JOIN events e USING (seq) "
                "WHERE d.sink = ? AND d.state IN (0, 1) AND (d.next_ns <= ? OR d.next_ns > ?) "
                "ORDER BY d.seq LIMIT ?",
                (sink, now_ns, latest, limit),
            ).fetchall()
            db.executemany(
                "UPDATE deliveries SET state = ?, again = ? WHERE sink = ? AND seq = ?",
                [
                    (_State.SENT, int(again or state == _State.SENT), sink, seq)
                    for seq, _, _, state, again in rows
                ],
            )
        events, damaged = [], []
        for _, event_id, body, state, again in rows:
            try:
                event = from_bytes(body)
            except VeilwatchError as error:  # one row must not hold up those behind it
                damaged.append(Trouble(event_id, str(error)))
                continue
            events.append(replace(event, again=True) if again or state == _State.SENT else event)
        if damaged:
            self.settle(sink, Receipt(refused=tuple(damaged)), now_ns)
        return events

    def settle(self, sink: str, receipt: Receipt, now_ns: int) -> None:
        """Note what a sink's receipt says of events that were taken."""
        self._despite_full(lambda: self._settle(sink, receipt, now_ns))

    def _settle(self, sink: str, receipt: Receipt, now_ns: int) -> None:
        with self._transaction() as db:
            for event_id in receipt.delivered:
                done = self._update(db, sink, event_id, _State.DELIVERED)
                self._count(db, sink, "delivered", done)
            for trouble in receipt.refused:
                self._update(db, sink, trouble.event_id, _State.SET_ASIDE, trouble.reason)
            for trouble in receipt.again:
                self._postpone(db, sink, trouble, now_ns)

    def counts(self, sink: str) -> SinkCounts:
        """Return how far a sink is."""
        with self._transaction() as db:
            by_state = dict(
                db.execute(
                    "SELECT state, count(*) FROM deliveries WHERE sink = ? GROUP BY state", (sink,)
                ).fetchall()
            )
            oldest = db.execute(
                "SELECT e.made_ns FROM deliveries d INDEXED BY waiting JOIN events e USING (seq) "
                "WHERE d.sink = ? AND d.state IN (0, 1) ORDER BY d.seq LIMIT 1",
                (sink,),
            ).fetchone()
            told = dict(
                db.execute("SELECT name, value FROM counters WHERE sink = ?", (sink,)).fetchall()
            )
        return SinkCounts(
            by_state.get(_State.PENDING, 0) + by_state.get(_State.SENT, 0),
            by_state.get(_State.SET_ASIDE, 0),
            told.get("delivered", 0),
            told.get("dropped", 0),
            oldest[0] if oldest else 0,
        )

    def sinks(self) -> list[str]:
        """Return the names of sinks that have events here."""
        with self._transaction() as db:
            rows = db.execute("SELECT DISTINCT sink FROM deliveries ORDER BY sink").fetchall()
        return [name for (name,) in rows]

    def set_aside(self, sink: str, limit: int = 100) -> list[Trouble]:
        """Return ids and reasons of what a sink will never take, newest first."""
        with self._transaction() as db:
            rows = db.execute(
                "SELECT e.event_id, d.reason FROM deliveries d JOIN events e USING (seq) "
                "WHERE d.sink = ? AND d.state = ? ORDER BY d.seq DESC LIMIT ?",
                (sink, _State.SET_ASIDE, limit),
            ).fetchall()
        return [Trouble(event_id, reason) for event_id, reason in rows]

    def keep_sinks(self, names: Collection[str]) -> int:
        """Forget what waits for sinks that are no longer there; returns how many events."""
        gone = [name for name in self.sinks() if name not in names]
        with self._transaction() as db:
            return sum(
                db.execute("DELETE FROM deliveries WHERE sink = ?", (name,)).rowcount
                for name in gone
            )

    def rename_sinks(self, names: Mapping[str, str]) -> None:
        """Give sinks other names, old to new; what waits for them and what was counted goes along.

        Nothing is left of the old names: they may have held a secret.
        """
        with self._transaction() as db:
            for old, new in names.items():
                if old == new:
                    continue
                for table in ("deliveries", "counters"):
                    # The names of the tables are ours.
                    db.execute(
                        f"UPDATE OR IGNORE {table} SET sink = ? WHERE sink = ?",  # noqa: S608
                        (new, old),
                    )
                    db.execute(f"DELETE FROM {table} WHERE sink = ?", (old,))  # noqa: S608

    def readmit(self, sink: str) -> int:
        """Let a sink try again what was set aside, such as after a mapping was mended."""
        with self._transaction() as db:
            return db.execute(
                "UPDATE deliveries SET state = 0, attempts = 0, next_ns = 0 "
                "WHERE sink = ? AND state = ?",
                (sink, _State.SET_ASIDE),
            ).rowcount

    def resend(self, sink: str, from_ns: int, to_ns: int) -> int:
        """Deliver once more, marked, what was made in a span of time: the receiver lost it.

        Returns
        -------
        int
            How many events; those that were removed to make room cannot be sent again.
        """
        with self._transaction() as db:
            return db.execute(
                "UPDATE deliveries SET state = 0, again = 1, attempts = 0, next_ns = 0 "
                "WHERE sink = ? AND state = ? AND seq IN "
                "(SELECT seq FROM events WHERE made_ns BETWEEN ? AND ?)",
                (sink, _State.DELIVERED, from_ns, to_ns),
            ).rowcount

    def resend_ids(self, sink: str, ids: Collection[str]) -> int:
        """Deliver the named events once more, marked."""
        with self._transaction() as db:
            return sum(
                db.execute(
                    "UPDATE deliveries SET state = 0, again = 1, attempts = 0, next_ns = 0 "
                    "WHERE sink = ? AND state = ? AND seq = "
                    "(SELECT seq FROM events WHERE event_id = ?)",
                    (sink, _State.DELIVERED, _key(event_id)),
                ).rowcount
                for event_id in ids
            )

    def delivered(
        self, sink: str, from_ns: int, to_ns: int, batch: int = 500
    ) -> Iterator[list[Event]]:
        """Yield what a sink has taken of a span of time, batch by batch, oldest first."""
        after = 0
        while True:
            with self._transaction() as db:
                rows = db.execute(
                    "SELECT e.seq, e.body FROM deliveries d JOIN events e USING (seq) "
                    "WHERE d.sink = ? AND d.state = ? AND d.seq > ? "
                    "AND e.made_ns BETWEEN ? AND ? ORDER BY d.seq LIMIT ?",
                    (sink, _State.DELIVERED, after, from_ns, to_ns, batch),
                ).fetchall()
            if not rows:
                return
            after = rows[-1][0]
            yield list(_readable(body for _, body in rows))

    def forget(self, before_ns: int) -> int:
        """Remove events that were made before a time, delivered or not; return how many.

        An event that a sink still waits for counts as dropped for it. Events come in the order of
        their time: one that stands behind a later one goes when it is the first.
        """
        gone = 0
        while True:
            with self._transaction() as db:
                first = db.execute(
                    "SELECT seq, made_ns FROM events ORDER BY seq LIMIT ?", (_STEP,)
                ).fetchall()
                old = [seq for seq, made_ns in first if made_ns < before_ns]
                for seq in old:
                    self._drop(db, seq)
            gone += len(old)
            if len(old) < _STEP:
                return gone

    def forget_person(self, person: Person, *, dry_run: bool = False) -> int:
        """Remove a person's events, delivered or not, and every trace of them in the file.

        An event that a sink still waits for counts as dropped for it.

        Parameters
        ----------
        person
            Who.
        dry_run
            Whether events are only counted.

        Returns
        -------
        int
            How many events.

        Raises
        ------
        OutputError
            Also if another process reads the file meanwhile: the events are removed, but not
            their bytes.
        """
        with self._transaction() as db:
            # Also bodies that cannot be read say whose they are.
            found = db.execute(
                "SELECT seq FROM events WHERE instr(body, ?)", (person.member.encode(),)
            ).fetchall()
            if dry_run:
                return len(found)
            db.execute("PRAGMA secure_delete = ON")
            for (seq,) in found:
                self._drop(db, seq)
        with self._lock, self._errors():
            if not scrub(self._db):
                raise OutputError(
                    "another process reads the spool: its log still holds what was removed",
                    where=self.path,
                    hint="run this again",
                )
        return len(found)

    def size(self) -> tuple[int, int]:
        """Return how many events are kept and how many bytes they take."""
        with self._transaction() as db:
            events, size = db.execute("SELECT events, bytes FROM totals").fetchone()
        return events, size

    def close(self) -> None:
        """Let go of the file; harmless when done twice."""
        with self._lock:
            self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _update(
        self, db: sqlite3.Connection, sink: str, event_id: str, state: _State, reason: str = ""
    ) -> int:
        return db.execute(
            "UPDATE deliveries SET state = ?, reason = ? WHERE sink = ? AND state IN (0, 1) "
            "AND seq = (SELECT seq FROM events WHERE event_id = ?)",
            (state, reason[:MAX_REASON], sink, _key(event_id)),
        ).rowcount

    def _postpone(self, db: sqlite3.Connection, sink: str, trouble: Trouble, now_ns: int) -> None:
        row = db.execute(
            "SELECT d.seq, d.attempts FROM deliveries d JOIN events e USING (seq) "
            "WHERE d.sink = ? AND d.state IN (0, 1) AND e.event_id = ?",
            (sink, _key(trouble.event_id)),
        ).fetchone()
        if row is None:
            return
        seq, attempts = row
        next_ns = now_ns + int(1e9 * backoff_s(attempts, self._chance))
        db.execute(
            "UPDATE deliveries SET state = 0, again = max(again, ?), attempts = attempts + 1, "
            "next_ns = ?, reason = ? WHERE sink = ? AND seq = ?",
            (int(trouble.unsure), next_ns, trouble.reason[:MAX_REASON], sink, seq),
        )

    @staticmethod
    def _count(db: sqlite3.Connection, sink: str, name: str, more: int) -> None:
        db.execute(
            "INSERT INTO counters VALUES (?, ?, ?) "
            "ON CONFLICT (sink, name) DO UPDATE SET value = value + excluded.value",
            (sink, name, more),
        )

    def _make_room(self, db: sqlite3.Connection) -> None:
        most_events, most_bytes = self._bounds
        oldest_done = "SELECT seq FROM waits WHERE sinks = 0 ORDER BY seq LIMIT ?"
        for query in (oldest_done, "SELECT seq FROM events ORDER BY seq LIMIT ?"):
            while True:
                events, size = db.execute("SELECT events, bytes FROM totals").fetchone()
                over = max(events - most_events, 1 if size > most_bytes else 0)
                if over <= 0:
                    return
                rows = db.execute(query, (min(over, _STEP),)).fetchall()
                if not rows:
                    break
                for row in rows:
                    self._drop(db, row[0])

    def _drop(self, db: sqlite3.Connection, seq: int) -> None:
        lost = db.execute(
            "SELECT sink FROM deliveries WHERE seq = ? AND state IN (0, 1)", (seq,)
        ).fetchall()
        for (sink,) in lost:
            self._count(db, sink, "dropped", 1)
        db.execute("DELETE FROM events WHERE seq = ?", (seq,))

    def _hold_reserve(self) -> None:
        if self._reserved:
            return
        try:
            handle = os.open(self._reserve, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(handle, 0, RESERVE_BYTES)
            finally:
                os.close(handle)
            self._reserved = True
        except OSError:  # no room for a reserve: the spool works without one
            self._let_go_reserve()

    def _let_go_reserve(self) -> None:
        self._reserved = False
        with suppress(OSError):
            self._reserve.unlink(missing_ok=True)

    def _despite_full(self, work: Callable[[], T]) -> T:
        """Do what takes events out, with the reserve where the disk is full."""
        try:
            done = work()
        except SpoolFullError:
            self._let_go_reserve()
            return work()
        self._hold_reserve()
        return done

    def _make_way(self) -> bool:
        """Remove some of what all sinks have, for its pages; False if there is none.

        New events never live on the reserve: taking them out needs it.
        """
        with self._transaction() as db:
            if db.execute("SELECT 1 FROM waits WHERE sinks = 0 LIMIT 1").fetchone() is None:
                return False
        self._let_go_reserve()
        try:
            with self._transaction() as db:
                gone = db.execute(
                    "DELETE FROM events WHERE seq IN "
                    "(SELECT seq FROM waits WHERE sinks = 0 ORDER BY seq LIMIT ?)",
                    (_STEP,),
                ).rowcount
            with self._lock, self._errors():
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            self._hold_reserve()
        return bool(gone)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            hint = "free some space or name another place"
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in _NO_ROOM:
                raise SpoolFullError(
                    f"cannot use the spool: {error}", where=self.path, hint=hint
                ) from error
            if "malformed" in str(error) or "not a database" in str(error):
                hint = "the file is damaged: move it away, a new one is made"
            raise OutputError(
                f"cannot use the spool: {error}", where=self.path, hint=hint
            ) from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                # SQLite itself has rolled back after some errors, a full disk among them.
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise


def backoff_s(attempts: int, chance: random.Random) -> float:
    """Return the pause after a number of failed attempts, s; part of it drawn by chance."""
    whole = min(FIRST_BACKOFF_S * 2.0 ** min(attempts, 20), MAX_BACKOFF_S)
    return whole * (1 - JITTER * chance.random())


def _readable(bodies: Iterable[bytes]) -> Iterator[Event]:
    for body in bodies:
        with suppress(VeilwatchError):
            yield from_bytes(body)


def _key(event_id: str) -> str:
    """Return an id that SQLite can store: half a surrogate has no UTF-8."""
    return event_id.encode("utf-8", "backslashreplace").decode()
