"""What a store forgets of one person, and that no byte of it is left in its files.

Where other hosts' events name an address as the other end of their flows, it is evidence of those
hosts and stays; how many such events there are is told.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, Connection, Table, delete, func, or_, select, text

from veilwatch.detection.alerting.person import Person
from veilwatch.errors import StoreError
from veilwatch.files import scrub
from veilwatch.store.database import Database
from veilwatch.store.retention import STEP
from veilwatch.store.tables import events, incidents, verdicts

_REWRITE: Final = text("VACUUM FULL vw_events, vw_verdicts, vw_incidents, vw_state")


@dataclass(frozen=True, slots=True)
class Found:
    """What a store has of one person.

    Attributes
    ----------
    event_ids, incident_ids
        Of their events and incidents.
    verdicts
        How many verdicts these events have.
    elsewhere
        How many events of others name them.
    """

    event_ids: tuple[str, ...]
    incident_ids: tuple[str, ...]
    verdicts: int
    elsewhere: int


def find(connection: Connection, person: Person, incident_ids: tuple[str, ...]) -> Found:
    """Return what the store has of a person, and of the incidents with these ids."""
    # The document says more than the columns: a subscriber's incident may bear an address that
    # the alert has no more.
    theirs = or_(_of(events, person), _says(person.json_pair)).label("theirs")
    named = or_(_of(events, person), _says(f'"{person.name}"'))
    rows = connection.execute(select(events.c.event_id, theirs).where(named)).all()
    event_ids = tuple(row.event_id for row in rows if row.theirs)
    said = select(func.count()).select_from(verdicts)
    of_person = or_(_of(incidents, person), incidents.c.incident_id.in_(incident_ids))
    return Found(
        event_ids,
        tuple(connection.execute(select(incidents.c.incident_id).where(of_person)).scalars()),
        verdicts=sum(
            connection.execute(said.where(verdicts.c.event_id.in_(ids))).scalar_one()
            for ids in _steps(event_ids)
        ),
        elsewhere=len(rows) - len(event_ids),
    )


def erase(connection: Connection, found: Found) -> None:
    """Delete what was found of a person."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA secure_delete = ON")
    for ids in _steps(found.event_ids):
        connection.execute(delete(verdicts).where(verdicts.c.event_id.in_(ids)))
        connection.execute(delete(events).where(events.c.event_id.in_(ids)))
    for ids in _steps(found.incident_ids):
        connection.execute(delete(incidents).where(incidents.c.incident_id.in_(ids)))


def rewrite(database: Database) -> None:
    """Write the database's files anew, without what was deleted from them.

    Raises
    ------
    StoreError
        If another process keeps them from that: rows are deleted, but not their bytes.
    """
    try:
        if database.is_sqlite:
            with database.bare() as connection:
                if not scrub(connection):
                    raise StoreError("another process reads the store, its log is still needed")
        else:
            with database.reading() as connection:
                # In no transaction, as PostgreSQL demands.
                connection.execution_options(isolation_level="AUTOCOMMIT").execute(_REWRITE)
    except StoreError as error:
        error.hint = "the rows are deleted; run this again for their bytes"
        raise


def _of(table: Table, person: Person) -> ColumnElement[bool]:
    return table.c[person.key] == person.name


def _says(part: str) -> ColumnElement[bool]:
    """Tell whether an event's document holds a text.

    Not by LIKE: in SQLite it takes upper and lower case for the same.
    """
    return func.replace(events.c.document, part, "") != events.c.document


def _steps(ids: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for start in range(0, len(ids), STEP):
        yield ids[start : start + STEP]
