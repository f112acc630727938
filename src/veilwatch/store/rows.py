"""Events and incidents as rows of the tables, and back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row

from veilwatch.errors import StoreError
from veilwatch.export.clean import compact_json
from veilwatch.schema.convert import (
    event_from_plain,
    event_to_plain,
    incident_from_plain,
    incident_to_plain,
)
from veilwatch.schema.events import Event, EventKind, Incident
from veilwatch.store.query import clean


@dataclass(frozen=True, slots=True)
class StoredIncident:
    """An incident as it was stored, and who closed it ('' nobody, or the sensor) and why."""

    incident: Incident
    closed_by: str = ""
    closed_note: str = ""


def to_text(value: Any) -> str:
    """Return plain values as JSON that every database takes."""
    return compact_json(value).decode()


def from_text(document: str, where: str) -> Any:
    """Return what `to_text` wrote; `where` is named where it is damaged."""
    try:
        return json.loads(document)
    except ValueError as error:
        raise StoreError("what was stored is damaged", where=where) from error


def event_row(event: Event) -> dict[str, Any]:
    """Return the row of an event."""
    alert, incident = event.alert, event.incident
    of_incident = event.kind is EventKind.INCIDENT and incident is not None
    return {
        "event_id": clean(event.event_id),
        "kind": str(event.kind),
        "at_ns": incident.last_ns if of_incident and incident else alert.last_ns,
        "made_ns": event.made_ns,
        "sensor": clean(event.sensor),
        "host": clean(alert.host),
        "subscriber": clean(alert.subscriber),
        "family": clean(alert.family),
        "severity": incident.severity if of_incident and incident else alert.severity,
        "score": float(alert.score),
        "incident_id": clean(incident.incident_id) if incident else "",
        "document": to_text(event_to_plain(event)),
    }


def event_from_row(row: Row[Any]) -> Event:
    """Return the event of a row."""
    try:
        return event_from_plain(from_text(row.document, f"event {row.event_id}"))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise StoreError("what was stored is damaged", where=f"event {row.event_id}") from error


def incident_row(incident: Incident) -> dict[str, Any]:
    """Return the row of an incident, without what people did to it."""
    return {
        "incident_id": clean(incident.incident_id),
        "status": incident.status,
        "host": clean(incident.host),
        "subscriber": clean(incident.subscriber),
        "family": clean(incident.family),
        "severity": incident.severity,
        "opened_ns": incident.opened_ns,
        "last_ns": incident.last_ns,
        "alerts": incident.alerts,
        "document": to_text(incident_to_plain(incident)),
    }


def incident_from_row(row: Row[Any]) -> StoredIncident:
    """Return the incident of a row."""
    where = f"incident {row.incident_id}"
    try:
        found = incident_from_plain(from_text(row.document, where))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise StoreError("what was stored is damaged", where=where) from error
    return StoredIncident(found, row.closed_by, row.closed_note)
