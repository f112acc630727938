"""The spool: events wait on disk until every sink has them.

An event is kept once, with a row for each sink that tells how far it is. What was handed to a
sink and not settled before a crash is handed out again with `Event.again` set. Delivered events
stay until room is needed, so that they can be sent once more where a receiver lost them.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from veilwatch.closing import Closeable
from veilwatch.detection.alerting.person import Person
from veilwatch.errors import VeilwatchError
from veilwatch.schema.events import Event
from veilwatch.sinks.backoff import MAX_BACKOFF_S
from veilwatch.sinks.base import DeliveryFailure, Receipt
from veilwatch.sinks.spool_file import SpoolFile, SpoolFullError
from veilwatch.sinks.spool_rows import STEP, State, count, drop, key, make_room, postpone, settle
from veilwatch.sinks.wire import from_bytes, to_bytes

MAX_EVENTS: Final = 200_000
"""Most events kept: a month of 6,000 a day, far more than a SOC reads."""

MAX_BYTES: Final = 1 << 30
"""Most bytes of events kept. One takes 2 to 10 kB; the file is larger by its indexes, about a
tenth."""


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


class Spool(Closeable):
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
        self._chance = random.Random()  # noqa: S311 - jitter, no secret
        self._file = SpoolFile(path)

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
        with self._file.transaction() as db:
            for event_id, made_ns, body in rows:
                db.execute(
                    "INSERT OR IGNORE INTO events (event_id, made_ns, size, body) "
                    "VALUES (?, ?, ?, ?)",
                    (key(event_id), made_ns, len(body), body),
                )
                added = [
                    db.execute(
                        "INSERT OR IGNORE INTO deliveries (seq, sink, state) "
                        "SELECT seq, ?, ? FROM events WHERE event_id = ?",
                        (sink, State.PENDING, key(event_id)),
                    ).rowcount
                    for sink in sorted(set(sinks))
                ]
                new += any(added)
            make_room(db, *self._bounds)
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
        return self._file.despite_full(lambda: self._take(sink, limit, now_ns))

    def _take(self, sink: str, limit: int, now_ns: int) -> list[Event]:
        # A time further off than any pause makes is left from before the clock was set back.
        latest = now_ns + int(2 * MAX_BACKOFF_S * 1e9)
        with self._file.transaction() as db:
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
                    (State.SENT, int(again or state == State.SENT), sink, seq)
                    for seq, _, _, state, again in rows
                ],
            )
        events, damaged = [], []
        for _, event_id, body, state, again in rows:
            try:
                event = from_bytes(body)
            except VeilwatchError as error:  # one row must not hold up those behind it
                damaged.append(DeliveryFailure(event_id, str(error)))
                continue
            events.append(replace(event, again=True) if again or state == State.SENT else event)
        if damaged:
            self.settle(sink, Receipt(refused=tuple(damaged)), now_ns)
        return events

    def settle(self, sink: str, receipt: Receipt, now_ns: int) -> None:
        """Note what a sink's receipt says of events that were taken."""
        self._file.despite_full(lambda: self._settle(sink, receipt, now_ns))

    def _settle(self, sink: str, receipt: Receipt, now_ns: int) -> None:
        with self._file.transaction() as db:
            for event_id in receipt.delivered:
                done = settle(db, sink, event_id, State.DELIVERED)
                count(db, sink, "delivered", done)
            for failure in receipt.refused:
                settle(db, sink, failure.event_id, State.SET_ASIDE, failure.reason)
            for failure in receipt.again:
                postpone(db, sink, failure, now_ns, self._chance)

    def counts(self, sink: str) -> SinkCounts:
        """Return how far a sink is."""
        with self._file.transaction() as db:
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
            by_state.get(State.PENDING, 0) + by_state.get(State.SENT, 0),
            by_state.get(State.SET_ASIDE, 0),
            told.get("delivered", 0),
            told.get("dropped", 0),
            oldest[0] if oldest else 0,
        )

    def sinks(self) -> list[str]:
        """Return the names of sinks that have events here."""
        with self._file.transaction() as db:
            rows = db.execute("SELECT DISTINCT sink FROM deliveries ORDER BY sink").fetchall()
        return [name for (name,) in rows]

    def set_aside(self, sink: str, limit: int = 100) -> list[DeliveryFailure]:
        """Return ids and reasons of what a sink will never take, newest first."""
        with self._file.transaction() as db:
            rows = db.execute(
                "SELECT e.event_id, d.reason FROM deliveries d JOIN events e USING (seq) "
                "WHERE d.sink = ? AND d.state = ? ORDER BY d.seq DESC LIMIT ?",
                (sink, State.SET_ASIDE, limit),
            ).fetchall()
        return [DeliveryFailure(event_id, reason) for event_id, reason in rows]

    def keep_sinks(self, names: Collection[str]) -> int:
        """Forget what waits for sinks that are no longer there; returns how many events."""
        gone = [name for name in self.sinks() if name not in names]
        with self._file.transaction() as db:
            return sum(
                db.execute("DELETE FROM deliveries WHERE sink = ?", (name,)).rowcount
                for name in gone
            )

    def rename_sinks(self, names: Mapping[str, str]) -> None:
        """Give sinks other names, old to new; what waits for them and what was counted goes along.

        Nothing is left of the old names: they may have held a secret.
        """
        with self._file.transaction() as db:
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
        with self._file.transaction() as db:
            return db.execute(
                "UPDATE deliveries SET state = 0, attempts = 0, next_ns = 0 "
                "WHERE sink = ? AND state = ?",
                (sink, State.SET_ASIDE),
            ).rowcount

    def resend(self, sink: str, from_ns: int, to_ns: int) -> int:
        """Deliver once more, marked, what was made in a span of time: the receiver lost it.

        Returns
        -------
        int
            How many events; those that were removed to make room cannot be sent again.
        """
        with self._file.transaction() as db:
            return db.execute(
                "UPDATE deliveries SET state = 0, again = 1, attempts = 0, next_ns = 0 "
                "WHERE sink = ? AND state = ? AND seq IN "
                "(SELECT seq FROM events WHERE made_ns BETWEEN ? AND ?)",
                (sink, State.DELIVERED, from_ns, to_ns),
            ).rowcount

    def resend_ids(self, sink: str, ids: Collection[str]) -> int:
        """Deliver the named events once more, marked."""
        with self._file.transaction() as db:
            return sum(
                db.execute(
                    "UPDATE deliveries SET state = 0, again = 1, attempts = 0, next_ns = 0 "
                    "WHERE sink = ? AND state = ? AND seq = "
                    "(SELECT seq FROM events WHERE event_id = ?)",
                    (sink, State.DELIVERED, key(event_id)),
                ).rowcount
                for event_id in ids
            )

    def delivered(
        self, sink: str, from_ns: int, to_ns: int, batch: int = 500
    ) -> Iterator[list[Event]]:
        """Yield what a sink has taken of a span of time, batch by batch, oldest first."""
        after = 0
        while True:
            with self._file.transaction() as db:
                rows = db.execute(
                    "SELECT e.seq, e.body FROM deliveries d JOIN events e USING (seq) "
                    "WHERE d.sink = ? AND d.state = ? AND d.seq > ? "
                    "AND e.made_ns BETWEEN ? AND ? ORDER BY d.seq LIMIT ?",
                    (sink, State.DELIVERED, after, from_ns, to_ns, batch),
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
            with self._file.transaction() as db:
                first = db.execute(
                    "SELECT seq, made_ns FROM events ORDER BY seq LIMIT ?", (STEP,)
                ).fetchall()
                old = [seq for seq, made_ns in first if made_ns < before_ns]
                for seq in old:
                    drop(db, seq)
            gone += len(old)
            if len(old) < STEP:
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
        with self._file.transaction() as db:
            # Also bodies that cannot be read say whose they are.
            found = db.execute(
                "SELECT seq FROM events WHERE instr(body, ?)", (person.json_pair.encode(),)
            ).fetchall()
            if dry_run:
                return len(found)
            db.execute("PRAGMA secure_delete = ON")
            for (seq,) in found:
                drop(db, seq)
        self._file.scrub()
        return len(found)

    def size(self) -> tuple[int, int]:
        """Return how many events are kept and how many bytes they take."""
        with self._file.transaction() as db:
            events, size = db.execute("SELECT events, bytes FROM totals").fetchone()
        return events, size

    def close(self) -> None:
        """Let go of the file; harmless when done twice."""
        self._file.close()

    def _make_way(self) -> bool:
        """Remove some of what all sinks have, for its pages; False if there is none.

        New events never live on the reserve: taking them out needs it.
        """
        with self._file.transaction() as db:
            if db.execute("SELECT 1 FROM waits WHERE sinks = 0 LIMIT 1").fetchone() is None:
                return False
        self._file.release_reserve()
        try:
            with self._file.transaction() as db:
                gone = db.execute(
                    "DELETE FROM events WHERE seq IN "
                    "(SELECT seq FROM waits WHERE sinks = 0 ORDER BY seq LIMIT ?)",
                    (STEP,),
                ).rowcount
            self._file.checkpoint()
        finally:
            self._file.hold_reserve()
        return bool(gone)


def _readable(bodies: Iterable[bytes]) -> Iterator[Event]:
    for body in bodies:
        with suppress(VeilwatchError):
            yield from_bytes(body)
