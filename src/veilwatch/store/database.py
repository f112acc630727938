"""The database behind a store: SQLite in a file of its own, or PostgreSQL by URL.

SQLite runs in WAL mode, so that people read while the sensor writes, and waits for the disk at
each commit: what was committed is there after a power failure. Writers take the lock when they
begin and not in the middle, where they could no longer wait for it.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from veilwatch.errors import StoreDamagedError, StoreError, StoreFullError
from veilwatch.schema.units import SECOND_NS
from veilwatch.store.migrations import NEWEST, migrate, read_version

PATIENCE_S: Final = 10.0
"""How long to wait for another writer, or for a server that does not answer: a retention step takes
tenths of a second."""

WAL_BYTES: Final = 16 << 20
"""Size that SQLite's log is cut back to once it was copied to the file."""

CONNECT_S: Final = 2
"""Shortest time that libpq waits for a server."""

_DAMAGED: Final = ".damaged-"
_WRITES: Final = "veilwatch_writes"
_PG_FULL: Final = "53100"
_PG_LOCKED: Final = "55P03"


class Database:
    """Connections to one database whose tables are up to date.

    Parameters
    ----------
    url
        Path of a file, `sqlite:///path` or `postgresql://user@host/name`.
    create
        Whether to make the database and to bring older tables up to date; else both are errors.
    patience_s
        How long to wait for another writer, or for a server that does not answer.

    Raises
    ------
    StoreError
        If the URL is of another kind, or the database is missing, damaged, of a later release,
        or does not answer.
    """

    def __init__(self, url: str, *, create: bool = True, patience_s: float = PATIENCE_S) -> None:
        parsed = parse_url(url)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        self.name = (parsed.database or "") if self.is_sqlite else masked(parsed)
        if self.is_sqlite:
            _prepare_file(Path(self.name), create)
        self._engine = _engine(parsed, self.name, patience_s)
        try:
            self._open_tables(create)
        except BaseException:
            self._engine.dispose()
            raise

    def _open_tables(self, create: bool) -> None:
        with self.reading() as connection:
            found = read_version(connection)
        if found == NEWEST:
            return
        if not create and found < NEWEST:
            raise StoreError(
                "holds no tables" if not found else f"has tables of version {found}, not {NEWEST}",
                where=self.name,
                hint="start the sensor once, it makes them",
            )
        with self.writing() as connection:
            migrate(connection)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Read in one transaction: all of it sees the same state."""
        with self._faults(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Write in one transaction: all of it or, on a fault, nothing."""
        with self._faults(), self._engine.connect() as connection:
            connection = connection.execution_options(**{_WRITES: True})
            with connection.begin():
                yield connection

    @contextmanager
    def bare(self) -> Iterator[Any]:
        """Give the driver's own connection, for statements that run in no transaction."""
        with self._faults():
            connection = self._engine.raw_connection()
            try:
                yield connection.driver_connection
            finally:
                connection.close()

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            raise _told(error, getattr(error, "orig", None), self.name) from error
        except sqlite3.Error as error:
            raise _told(error, error, self.name) from error
        except OverflowError as error:
            raise StoreError("a number is too large for a store", where=self.name) from error
        except StoreError as error:
            error.where = error.where or self.name
            raise


def parse_url(url: str) -> URL:
    """Return the URL of a database, with the driver that is used here.

    Raises
    ------
    StoreError
        If it is of a kind that is not known.
    """
    if "://" not in url:
        return URL.create("sqlite", database=str(Path(url).expanduser()))
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        # The text is not repeated: it may hold a password.
        raise StoreError("the store's URL cannot be read", hint=_KNOWN) from error
    backend = parsed.get_backend_name()
    if backend == "sqlite" and parsed.database and parsed.database != ":memory:":
        return URL.create("sqlite", database=str(Path(parsed.database).expanduser()))
    if backend in ("postgresql", "postgres") and parsed.database:
        return parsed.set(drivername="postgresql+psycopg")
    raise StoreError(f"no store is known by {masked(parsed)}", hint=_KNOWN)


_KNOWN: Final = "known: a path, sqlite:///path, postgresql://user@host/name"


def set_aside(url: str, *, now_ns: int) -> Path:
    """Rename the file of a damaged SQLite store, so that a new one can take its place.

    A sensor that finds its store damaged goes on alerting; what can be saved of the old one is
    left to people.

    Parameters
    ----------
    url
        Path or URL of the store, which nobody has open.
    now_ns
        Wall clock, for the new name.

    Returns
    -------
    Path
        Where the file is now.

    Raises
    ------
    StoreError
        If it is no file, or cannot be renamed.
    """
    parsed = parse_url(url)
    if parsed.get_backend_name() != "sqlite":
        raise StoreError("only a file can be set aside", where=masked(parsed))
    path = Path(parsed.database or "")
    stamp = datetime.fromtimestamp(now_ns // SECOND_NS, UTC).strftime("%Y%m%dT%H%M%SZ")
    aside = path.with_name(f"{path.name}{_DAMAGED}{stamp}")
    try:
        # The log first: a new database beside the log of another one would be damaged as well.
        for end in ("-wal", "-shm", ""):
            found = path.with_name(path.name + end)
            if found.exists():
                found.replace(aside.with_name(aside.name + end))
    except OSError as error:
        raise StoreError(
            f"cannot set the store aside: {error.strerror or error}", where=path
        ) from error
    return aside


def damaged_copies(url: str) -> list[Path]:
    """Return the files that `set_aside` has left of a store, the oldest first."""
    parsed = parse_url(url)
    if parsed.get_backend_name() != "sqlite":
        return []
    path = Path(parsed.database or "")
    return sorted(
        found for found in path.parent.iterdir() if found.name.startswith(f"{path.name}{_DAMAGED}")
    )


def masked(url: URL) -> str:
    """Return a URL as text, without its password."""
    return url.render_as_string(hide_password=True)


def _prepare_file(path: Path, create: bool) -> None:
    """Make the file, readable by its owner alone: it tells who talked to whom."""
    try:
        if path.exists():
            return
        if not create:
            raise StoreError(
                "no such store",
                where=path,
                hint="name another with --store or under store.url, or start the sensor",
            )
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise StoreError(f"cannot make the store: {error.strerror or error}", where=path) from error


def _engine(url: URL, name: str, patience_s: float) -> Engine:
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, connect_args={"timeout": patience_s})
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    try:
        engine = create_engine(
            url,
            pool_pre_ping=True,
            connect_args={"connect_timeout": max(CONNECT_S, round(patience_s))},
        )
    except ModuleNotFoundError as error:
        raise StoreError(
            "PostgreSQL needs the package psycopg", where=name, hint="pip install '.[postgres]'"
        ) from error
    event.listen(engine, "connect", partial(_set_up_postgresql, round(1000 * patience_s)))
    return engine


def _set_up_postgresql(lock_ms: int, connection: Any, _record: Any) -> None:
    # Outside a transaction: what one sets is undone where it is rolled back.
    connection.autocommit = True
    connection.execute(f"SET lock_timeout = {lock_ms}")
    connection.autocommit = False


def _set_up_sqlite(connection: Any, _record: Any) -> None:
    # The driver's own way of beginning transactions leaves out DDL and reads; we begin them.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        "auto_vacuum = INCREMENTAL",  # has an effect on an empty file only
        "journal_mode = WAL",
        "synchronous = FULL",
        f"journal_size_limit = {WAL_BYTES}",
        "trusted_schema = OFF",  # a file from elsewhere runs no functions
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


_HELD: Final = "another process holds the store for too long"


def _told(error: Exception, cause: BaseException | None, name: str) -> StoreError:
    """Turn the driver's error into the one that the user sees."""
    code = getattr(cause, "sqlite_errorcode", 0) & 0xFF  # the low byte is the kind
    if code == sqlite3.SQLITE_FULL or getattr(cause, "sqlstate", "") == _PG_FULL:
        return StoreFullError(
            "the disk is full, nothing was written", where=name, hint="free some space"
        )
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StoreDamagedError(
            "the store is damaged, or no store at all",
            where=name,
            hint="rename it, and the sensor makes another",
        )
    what = {
        sqlite3.SQLITE_IOERR: "the disk cannot be read or written",
        sqlite3.SQLITE_BUSY: _HELD,
        sqlite3.SQLITE_READONLY: "the store cannot be written to",
        sqlite3.SQLITE_CANTOPEN: "the store cannot be opened",
    }.get(code)
    if getattr(cause, "sqlstate", "") == _PG_LOCKED:
        what = _HELD
    lines = str(cause or error).strip().splitlines()
    return StoreError(what or (lines[0] if lines else type(error).__name__), where=name)
