"""What a sensor writes, each within a transaction of the caller's."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import Connection, Table, select
from sqlalchemy.dialects import postgresql, sqlite

from veilwatch.schema.events import Incident
from veilwatch.store.query import clean
from veilwatch.store.rows import incident_row, to_text
from veilwatch.store.tables import events, incidents, state

CHUNK: Final = 200
"""Rows of one INSERT: SQLite takes 32,766 values in a statement."""


def insert_events(connection: Connection, rows: list[dict[str, Any]]) -> list[str]:
    """Insert events; return the ids of those that were not there."""
    added: list[str] = []
    for start in range(0, len(rows), CHUNK):
        statement = (
            _insert(connection, events)
            .values(rows[start : start + CHUNK])
            .on_conflict_do_nothing(index_elements=["event_id"])
            .returning(events.c.event_id)
        )
        added += connection.execute(statement).scalars()
    return added


def put_incident(connection: Connection, incident: Incident, now_ns: int) -> None:
    """Store an incident; one that a person closed opens again with more evidence only."""
    row = incident_row(incident)
    known = connection.execute(
        select(incidents.c.closed_by, incidents.c.closed_alerts, incidents.c.last_ns).where(
            incidents.c.incident_id == row["incident_id"]
        )
    ).first()
    if known and known.closed_by:
        if incident.alerts <= known.closed_alerts and incident.last_ns <= known.last_ns:
            row = incident_row(replace(incident, status="closed"))
        else:
            row |= {"closed_by": "", "closed_note": "", "closed_alerts": 0}
    upsert(connection, incidents, [row | {"recorded_ns": now_ns}])


def put_state(connection: Connection, values: Mapping[str, Any]) -> None:
    """Store values by name; None forgets one."""
    rows = [
        {"name": clean(name), "document": to_text(value), "saved_ns": time.time_ns()}
        for name, value in values.items()
        if value is not None
    ]
    if rows:
        upsert(connection, state, rows)
    for name in (name for name, value in values.items() if value is None):
        connection.execute(state.delete().where(state.c.name == clean(name)))


def _insert(connection: Connection, table: Table) -> Any:
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    return dialect.insert(table)


def upsert(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    """Insert rows; those whose keys are known take the place of what was there."""
    keys = [column.name for column in table.primary_key]
    for start in range(0, len(rows), CHUNK):
        statement = _insert(connection, table).values(rows[start : start + CHUNK])
        changed = {name: statement.excluded[name] for name in rows[0] if name not in keys}
        connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=changed))
