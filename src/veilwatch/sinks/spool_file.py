"""The file of a spool: SQLite that survives power failures, and disk space held back for it."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar

from veilwatch.errors import OutputError
from veilwatch.files import scrub

T = TypeVar("T")

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

_NO_ROOM: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR})

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


class SpoolFullError(OutputError):
    """There is no room on the spool's disk."""


class SpoolFile:
    """An SQLite file with the tables of a spool, which threads and processes may share.

    Parameters
    ----------
    path
        Made where there is none; its folder exists.

    Raises
    ------
    OutputError
        Here and in every method: if the file cannot be read or written; `SpoolFullError` where the
        disk is full. Nothing is half done then, and the next call works once there is room.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
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
        self.hold_reserve()

    def close(self) -> None:
        """Let go of the file; harmless when done twice."""
        with self._lock:
            self._db.close()

    def hold_reserve(self) -> None:
        """Hold disk space back, where there is room."""
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
            self.release_reserve()

    def release_reserve(self) -> None:
        """Give the space that was held back to the database."""
        self._reserved = False
        with suppress(OSError):
            self._reserve.unlink(missing_ok=True)

    def despite_full(self, work: Callable[[], T]) -> T:
        """Do what takes events out, with the reserve where the disk is full."""
        try:
            done = work()
        except SpoolFullError:
            self.release_reserve()
            return work()
        self.hold_reserve()
        return done

    def checkpoint(self) -> None:
        """Bring the log into the file."""
        with self._lock, self._errors():
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def scrub(self) -> None:
        """Leave no byte of what was deleted, in the file or its log.

        Raises
        ------
        OutputError
            Also if another process reads the file meanwhile: the rows are gone, not their bytes.
        """
        with self._lock, self._errors():
            if not scrub(self._db):
                raise OutputError(
                    "another process reads the spool: its log still holds what was removed",
                    where=self.path,
                    hint="run this again",
                )

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
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Do all of it or, where it raises, nothing; threads take turns."""
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
