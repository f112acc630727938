"""From an empty database, or one that an older version made, to the newest tables.

Forward only: a step is never changed once it was released, another one is added. All steps of
one opening are one transaction, under a lock, so that a crash leaves the version before and two
processes that open an old store do not both change it.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, inspect, text

from veilwatch.errors import StoreError

LOCK: Final = 0x7661_7463
"""Key of the lock in PostgreSQL; any number that nobody else takes."""

STEPS: Final[tuple[tuple[str, ...], ...]] = (
    (
        """CREATE TABLE vw_events (
            event_id TEXT PRIMARY KEY NOT NULL,
            kind TEXT NOT NULL,
            at_ns BIGINT NOT NULL,
            made_ns BIGINT NOT NULL,
            sensor TEXT NOT NULL,
            host TEXT NOT NULL,
            subscriber TEXT NOT NULL,
            family TEXT NOT NULL,
            severity INTEGER NOT NULL,
            score DOUBLE PRECISION NOT NULL,
            incident_id TEXT NOT NULL,
            document TEXT NOT NULL)""",
        "CREATE INDEX vw_events_at ON vw_events (at_ns, event_id)",
        "CREATE INDEX vw_events_host ON vw_events (host, at_ns)",
        "CREATE INDEX vw_events_incident ON vw_events (incident_id)",
        """CREATE TABLE vw_incidents (
            incident_id TEXT PRIMARY KEY NOT NULL,
            status TEXT NOT NULL,
            host TEXT NOT NULL,
            subscriber TEXT NOT NULL,
            family TEXT NOT NULL,
            severity INTEGER NOT NULL,
            opened_ns BIGINT NOT NULL,
            last_ns BIGINT NOT NULL,
            alerts BIGINT NOT NULL,
            document TEXT NOT NULL)""",
        "CREATE INDEX vw_incidents_last ON vw_incidents (last_ns, incident_id)",
        """CREATE TABLE vw_verdicts (
            event_id TEXT NOT NULL,
            who TEXT NOT NULL,
            at_ns BIGINT NOT NULL,
            kind TEXT NOT NULL,
            note TEXT NOT NULL,
            PRIMARY KEY (event_id, who, at_ns))""",
        """CREATE TABLE vw_counters (
            minute BIGINT NOT NULL,
            sensor TEXT NOT NULL,
            run TEXT NOT NULL,
            name TEXT NOT NULL,
            value DOUBLE PRECISION NOT NULL,
            PRIMARY KEY (minute, sensor, run, name))""",
        """CREATE TABLE vw_state (
            name TEXT PRIMARY KEY NOT NULL,
            document TEXT NOT NULL,
            saved_ns BIGINT NOT NULL)""",
    ),
    (
        "ALTER TABLE vw_incidents ADD COLUMN closed_by TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE vw_incidents ADD COLUMN closed_note TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE vw_incidents ADD COLUMN closed_alerts BIGINT NOT NULL DEFAULT 0",
    ),
    (
        "ALTER TABLE vw_incidents ADD COLUMN recorded_ns BIGINT NOT NULL DEFAULT 0",
        # Of older incidents it is known from their events when they were last told of.
        """UPDATE vw_incidents SET recorded_ns = COALESCE(
            (SELECT MAX(made_ns) FROM vw_events
             WHERE vw_events.incident_id = vw_incidents.incident_id), last_ns)""",
        "CREATE INDEX vw_events_made ON vw_events (made_ns, event_id)",
        "CREATE INDEX vw_incidents_recorded ON vw_incidents (recorded_ns, incident_id)",
    ),
)
"""Statements that lead from version n to n + 1, the first from an empty database."""

NEWEST: Final = len(STEPS)
"""Version of the tables that this release reads and writes."""


def read_version(connection: Connection) -> int:
    """Return the version of the tables, 0 where there are none."""
    if not inspect(connection).has_table("vw_version"):
        return 0
    return int(connection.execute(text("SELECT max(version) FROM vw_version")).scalar() or 0)


def migrate(connection: Connection, *, to: int = NEWEST) -> int:
    """Bring the tables to version `to` within the running transaction; return what they were.

    Raises
    ------
    StoreError
        If a later release made them.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
    found = read_version(connection)
    if found > NEWEST:
        raise StoreError(
            f"made by a later release (tables of version {found}, this one knows {NEWEST})",
            hint="use that release, or another store",
        )
    if found >= to:
        return found
    if found == 0:
        connection.execute(text("CREATE TABLE IF NOT EXISTS vw_version (version INTEGER NOT NULL)"))
    for number, statements in enumerate(STEPS[found:to], found + 1):
        for statement in statements:
            connection.execute(text(statement))
        connection.execute(text("DELETE FROM vw_version"))
        connection.execute(text("INSERT INTO vw_version VALUES (:n)"), {"n": number})
    return found
