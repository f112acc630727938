"""The store: what a sensor found and what people said of it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import Connection, Row, Table, and_, func, or_, select
from sqlalchemy.dialects import postgresql, sqlite

from veilwatch.closing import Closeable
from veilwatch.detection.alerting.person import Person
from veilwatch.errors import StoreError
from veilwatch.schema.convert import (
    event_from_plain,
    event_to_plain,
    incident_from_plain,
    incident_to_plain,
)
from veilwatch.schema.counters import CountedMinute, CounterStep
from veilwatch.schema.events import Event, EventKind, Incident
from veilwatch.schema.verdicts import Verdict, VerdictKind
from veilwatch.store import counts, erasure, retention
from veilwatch.store.database import PATIENCE_S, Database
from veilwatch.store.query import PAGE, EventFilter, StoredEvent, clean
from veilwatch.store.tables import counters, events, incidents, state, verdicts

MIN_PREFIX: Final = 4
"""Shortest beginning of an id that is taken for it."""

MAX_WHO: Final = 100
"""Longest name of a person in characters."""

MAX_NOTE: Final = 2000
"""Longest note in characters: a page."""

CHUNK: Final = 200
"""Rows of one INSERT: SQLite takes 32,766 values in a statement."""

MINUTE_NS: Final = 60 * 10**9


@dataclass(frozen=True, slots=True)
class StoredIncident:
    """An incident as it was stored, and who closed it ('' nobody, or the sensor) and why."""

    incident: Incident
    closed_by: str = ""
    closed_note: str = ""


class Store(Closeable):
    """Events, incidents, verdicts, counters and the sensor's own state.

    Every call is one transaction: it is done whole or, where it raises, not at all. What is
    written twice is there once.

    Parameters
    ----------
    url
        Path of a file, `sqlite:///path` or `postgresql://user@host/name`.
    create
        Whether to make the store where there is none, and to bring an older one up to date.
    patience_s
        How long each call waits for another writer, or for a server that does not answer.

    Raises
    ------
    StoreError
        If the store cannot be opened; later, if it cannot be read or written.
        `StoreFullError` where the disk is full.

    Examples
    --------
    >>> with Store("veilwatch.db") as store:  # doctest: +SKIP
    ...     store.record(decision.events, decision.incidents, state={"desk": gate.state()})
    """

    def __init__(self, url: str, *, create: bool = True, patience_s: float = PATIENCE_S) -> None:
        self._database = Database(url, create=create, patience_s=patience_s)
        self.name = self._database.name

    def close(self) -> None:
        """Close the store."""
        self._database.close()

    # What the sensor writes.

    def record(
        self,
        new_events: Iterable[Event] = (),
        changed_incidents: Iterable[Incident] = (),
        *,
        state: Mapping[str, Any] | None = None,
        now_ns: int | None = None,
    ) -> list[str]:
        """Store events, incidents and state together.

        Parameters
        ----------
        new_events
            An event whose id is known stays as it was stored first.
        changed_incidents
            Take the place of what was stored under their ids. One that a person closed stays
            closed until there is more evidence.
        state
            What the sensor must know after a restart, by name; plain values.
        now_ns
            When incidents are recorded, by which their age goes; None for when the latest of the
            events was made, or now.

        Returns
        -------
        list of str
            Ids of the events that were not there before.
        """
        rows = {row["event_id"]: row for row in map(_event_row, new_events)}
        if now_ns is None:
            now_ns = max((row["made_ns"] for row in rows.values()), default=time.time_ns())
        with self._database.writing() as connection:
            added = self._insert_events(connection, list(rows.values()))
            for incident in changed_incidents:
                self._put_incident(connection, incident, now_ns)
            self._put_state(connection, state or {})
        return added

    def count(self, values: Mapping[str, float], *, minute_ns: int, sensor: str, run: str) -> None:
        """Store what was counted in one minute; counted again it takes the place.

        Parameters
        ----------
        values
            By the counter's name, what this minute added.
        minute_ns
            Any time of the minute, ns since the epoch.
        sensor, run
            Name of the sensor, and what tells its starts apart.
        """
        rows = [
            {
                "minute": minute_ns // MINUTE_NS,
                "sensor": clean(sensor),
                "run": clean(run),
                "name": clean(name),
                "value": float(value),
            }
            for name, value in values.items()
        ]
        with self._database.writing() as connection:
            self._upsert(connection, counters, rows)

    def save_state(self, values: Mapping[str, Any]) -> None:
        """Store what a restart must not forget, by name; plain values, None to forget it."""
        with self._database.writing() as connection:
            self._put_state(connection, values)

    def load_state(self, name: str) -> Any:
        """Return what was saved under `name`, None where nothing was."""
        with self._database.reading() as connection:
            found = connection.execute(select(state.c.document).where(state.c.name == clean(name)))
            document = found.scalar()
        return None if document is None else _parsed(document, f"state {name}")

    # What people ask and say.

    def events(
        self, wanted: EventFilter | None = None, *, newest_first: bool = True
    ) -> Iterator[StoredEvent]:
        """Yield the events that are asked for, by the time of their evidence.

        They are read in pages: what is stored meanwhile may come as well.
        """
        wanted = wanted or EventFilter()
        left, after = wanted.limit, None
        while left is None or left > 0:
            page = self._page(
                wanted, after, PAGE if left is None else min(PAGE, left), newest_first
            )
            yield from (stored for _, stored in page)
            if len(page) < PAGE:
                return
            after = page[-1][0]
            left = None if left is None else left - len(page)

    def event(self, event_id: str) -> StoredEvent:
        """Return an event by its id, or by a beginning that only it has.

        Raises
        ------
        StoreError
            If there is none, or more than one.
        """
        with self._database.reading() as connection:
            full = self._full_id(connection, events, "event_id", event_id, "event")
            row = connection.execute(select(events).where(events.c.event_id == full)).one()
            return StoredEvent(_event(row), self._verdicts(connection, [full]).get(full, ()))

    def judge(self, verdict: Verdict) -> Verdict:
        """Store what a person says of an event; what was said before stays.

        Returns
        -------
        Verdict
            As it was stored: with the whole id, and later than any other of the event, even
            if the clock was set back.

        Raises
        ------
        StoreError
            If there is no such event, or no name was given.
        """
        who = clean(verdict.who).strip()
        if not who or len(who) > MAX_WHO or len(verdict.note) > MAX_NOTE:
            raise StoreError(
                f"a verdict needs a name of 1 to {MAX_WHO} characters and a note of at most "
                f"{MAX_NOTE:,}"
            )
        with self._database.writing() as connection:
            full = self._full_id(connection, events, "event_id", verdict.event_id, "event")
            latest = connection.execute(
                select(func.max(verdicts.c.at_ns)).where(verdicts.c.event_id == full)
            ).scalar()
            at_ns = verdict.at_ns if latest is None else max(verdict.at_ns, latest + 1)
            kept = replace(verdict, event_id=full, who=who, at_ns=at_ns, note=clean(verdict.note))
            connection.execute(
                verdicts.insert().values(
                    event_id=full, who=who, at_ns=at_ns, kind=str(kept.kind), note=kept.note
                )
            )
        return kept

    def incidents(
        self,
        *,
        status: str = "",
        host: str = "",
        since_ns: int | None = None,
        until_ns: int | None = None,
        limit: int | None = None,
    ) -> list[StoredIncident]:
        """Return incidents, those with the latest evidence first.

        Parameters
        ----------
        status
            "open" or "closed", '' both.
        host
            Address of the host, or the subscriber's pseudonym.
        since_ns, until_ns
            Time of the latest evidence; the end is outside.
        limit
            At most this many.
        """
        asked = select(incidents).order_by(incidents.c.last_ns.desc(), incidents.c.incident_id)
        if status:
            asked = asked.where(incidents.c.status == status)
        if host:
            name = clean(host)
            asked = asked.where(or_(incidents.c.host == name, incidents.c.subscriber == name))
        if since_ns is not None:
            asked = asked.where(incidents.c.last_ns >= since_ns)
        if until_ns is not None:
            asked = asked.where(incidents.c.last_ns < until_ns)
        if limit is not None:
            asked = asked.limit(limit)
        with self._database.reading() as connection:
            return [_incident(row) for row in connection.execute(asked)]

    def incident(self, incident_id: str) -> StoredIncident:
        """Return an incident by its id, or by a beginning that only it has.

        Raises
        ------
        StoreError
            If there is none, or more than one.
        """
        with self._database.reading() as connection:
            full = self._full_id(connection, incidents, "incident_id", incident_id, "incident")
            asked = select(incidents).where(incidents.c.incident_id == full)
            return _incident(connection.execute(asked).one())

    def close_incident(self, incident_id: str, *, who: str, note: str = "") -> StoredIncident:
        """Close an incident; more evidence opens it again.

        Raises
        ------
        StoreError
            If there is no such incident, or no name was given.
        """
        who = clean(who).strip()
        if not who or len(who) > MAX_WHO or len(note) > MAX_NOTE:
            raise StoreError(f"closing needs a name of 1 to {MAX_WHO} characters")
        with self._database.writing() as connection:
            full = self._full_id(connection, incidents, "incident_id", incident_id, "incident")
            row = connection.execute(select(incidents).where(incidents.c.incident_id == full)).one()
            closed = replace(_incident(row).incident, status="closed")
            connection.execute(
                incidents.update()
                .where(incidents.c.incident_id == full)
                .values(
                    **_incident_row(closed),
                    closed_by=who,
                    closed_note=clean(note),
                    closed_alerts=row.alerts,
                    recorded_ns=time.time_ns(),
                )
            )
        return StoredIncident(closed, who, clean(note))

    def closed_by_people(self, incident_ids: Iterable[str]) -> dict[str, str]:
        """Return who closed which of these incidents: what the sensor still holds to be open."""
        names = [clean(name) for name in incident_ids]
        closed: dict[str, str] = {}
        with self._database.reading() as connection:
            for start in range(0, len(names), PAGE):
                asked = select(incidents.c.incident_id, incidents.c.closed_by).where(
                    incidents.c.incident_id.in_(names[start : start + PAGE]),
                    incidents.c.closed_by != "",
                    incidents.c.status == "closed",
                )
                closed |= {row.incident_id: row.closed_by for row in connection.execute(asked)}
        return closed

    def counters(
        self, *, since_ns: int = 0, until_ns: int | None = None, names: Iterable[str] = ()
    ) -> list[tuple[int, str, str, float]]:
        """Return (minute in ns, sensor, name, value) in order, starts of a sensor added up."""
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
        with self._database.reading() as connection:
            return [
                (int(at) * MINUTE_NS, sensor, name, float(value))
                for at, sensor, name, value in connection.execute(asked)
            ]

    def counter_steps(self, *, since_ns: int, until_ns: int, step_ns: int) -> list[CounterStep]:
        """Return every counter added up within steps of time.

        Parameters
        ----------
        since_ns, until_ns
            Whole minutes that the span touches, the end outside.
        step_ns
            Length of a step, whole minutes; steps begin at its multiples since the epoch.
        """
        return counts.counter_steps(
            self._database, since_ns=since_ns, until_ns=until_ns, step_ns=step_ns
        )

    def counted_minutes(self, *, since_ns: int, until_ns: int) -> list[CountedMinute]:
        """Return the minutes in which each run of a sensor stored any counter, in order."""
        return counts.counted_minutes(self._database, since_ns=since_ns, until_ns=until_ns)

    # Care.

    def retain(
        self, policy: retention.Retention, *, now_ns: int | None = None
    ) -> retention.RetentionReport:
        """Delete what is too old or too much, in the order of `veilwatch.store.retention`."""
        now_ns = time.time_ns() if now_ns is None else now_ns
        return retention.retain(self._database, policy, now_ns)

    def forget_person(
        self,
        person: Person,
        incident_ids: tuple[str, ...] = (),
        *,
        state: Mapping[str, Any] | None = None,
        dry_run: bool = False,
    ) -> erasure.Found:
        """Delete a person's events, verdicts on them and incidents, and every trace in the files.

        Parameters
        ----------
        person
            Who.
        incident_ids
            Incidents that the sensor holds to be theirs, whatever the store says of them.
        state
            The sensor's state without them, as for `record`: all of it goes, or nothing.
        dry_run
            Whether it is only counted.

        Returns
        -------
        Found
            What was there.

        Raises
        ------
        StoreError
            Also if another process keeps the files from being written anew: rows are deleted
            then, but not their bytes.
        """
        opened = self._database.reading() if dry_run else self._database.writing()
        with opened as connection:
            found = erasure.find(connection, person, incident_ids)
            if dry_run:
                return found
            erasure.erase(connection, found)
            self._put_state(connection, state or {})
        erasure.rewrite(self._database)
        return found

    def bytes_used(self) -> int:
        """Return what the contents take, without space that is free within the database."""
        return retention.bytes_used(self._database)

    def _insert_events(self, connection: Connection, rows: list[dict[str, Any]]) -> list[str]:
        added: list[str] = []
        for start in range(0, len(rows), CHUNK):
            statement = (
                self._insert(events)
                .values(rows[start : start + CHUNK])
                .on_conflict_do_nothing(index_elements=["event_id"])
                .returning(events.c.event_id)
            )
            added += connection.execute(statement).scalars()
        return added

    def _put_incident(self, connection: Connection, incident: Incident, now_ns: int) -> None:
        row = _incident_row(incident)
        known = connection.execute(
            select(incidents.c.closed_by, incidents.c.closed_alerts, incidents.c.last_ns).where(
                incidents.c.incident_id == row["incident_id"]
            )
        ).first()
        if known and known.closed_by:
            if incident.alerts <= known.closed_alerts and incident.last_ns <= known.last_ns:
                row = _incident_row(replace(incident, status="closed"))
            else:
                row |= {"closed_by": "", "closed_note": "", "closed_alerts": 0}
        self._upsert(connection, incidents, [row | {"recorded_ns": now_ns}])

    def _put_state(self, connection: Connection, values: Mapping[str, Any]) -> None:
        rows = [
            {"name": clean(name), "document": _text(value), "saved_ns": time.time_ns()}
            for name, value in values.items()
            if value is not None
        ]
        if rows:
            self._upsert(connection, state, rows)
        for name in (name for name, value in values.items() if value is None):
            connection.execute(state.delete().where(state.c.name == clean(name)))

    def _insert(self, table: Table) -> Any:
        dialect = sqlite if self._database.is_sqlite else postgresql
        return dialect.insert(table)

    def _upsert(self, connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
        keys = [column.name for column in table.primary_key]
        for start in range(0, len(rows), CHUNK):
            statement = self._insert(table).values(rows[start : start + CHUNK])
            changed = {name: statement.excluded[name] for name in rows[0] if name not in keys}
            connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=changed))

    def _page(
        self, wanted: EventFilter, after: tuple[int, str] | None, size: int, newest_first: bool
    ) -> list[tuple[tuple[int, str], StoredEvent]]:
        at, name = events.c.at_ns, events.c.event_id
        asked = select(events).where(wanted.clause()).limit(size)
        asked = asked.order_by(*((at.desc(), name.desc()) if newest_first else (at, name)))
        if after:
            beyond = at < after[0] if newest_first else at > after[0]
            tie = name < after[1] if newest_first else name > after[1]
            asked = asked.where(or_(beyond, and_(at == after[0], tie)))
        with self._database.reading() as connection:
            rows = connection.execute(asked).all()
            said = self._verdicts(connection, [row.event_id for row in rows])
        return [
            ((row.at_ns, row.event_id), StoredEvent(_event(row), said.get(row.event_id, ())))
            for row in rows
        ]

    @staticmethod
    def _verdicts(connection: Connection, event_ids: list[str]) -> dict[str, tuple[Verdict, ...]]:
        asked = (
            select(verdicts)
            .where(verdicts.c.event_id.in_(event_ids))
            .order_by(verdicts.c.at_ns.desc(), verdicts.c.who)
        )
        out: dict[str, tuple[Verdict, ...]] = {}
        for row in connection.execute(asked):
            said = Verdict(row.event_id, VerdictKind(row.kind), row.who, row.at_ns, row.note)
            out[row.event_id] = (*out.get(row.event_id, ()), said)
        return out

    def _full_id(
        self, connection: Connection, table: Table, column: str, given: str, what: str
    ) -> str:
        """Return the one id that begins with `given`."""
        if len(given) < MIN_PREFIX or not given.isalnum() or not given.isascii():
            raise StoreError(
                f"{given[:64]!r} is no id of an {what}",
                hint=f"give at least its first {MIN_PREFIX} characters",
            )
        ids = table.c[column]
        found = connection.execute(
            # A range and not LIKE: it is answered from the index. Ids are hexadecimal, and "g"
            # comes after them in every collation.
            select(ids).where(ids >= given, ids < given + "g").order_by(ids).limit(2)
        ).scalars()
        names = list(found)
        if given in names:
            return given
        if len(names) != 1:
            raise StoreError(
                f"{'several ids begin' if names else f'no {what} has an id that begins'} "
                f"with {given[:64]}",
                where=self.name,
            )
        return str(names[0])


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def _parsed(document: str, where: str) -> Any:
    try:
        return json.loads(document)
    except ValueError as error:
        raise StoreError("what was stored is damaged", where=where) from error


def _event_row(event: Event) -> dict[str, Any]:
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
        "document": _text(event_to_plain(event)),
    }


def _event(row: Row[Any]) -> Event:
    try:
        return event_from_plain(_parsed(row.document, f"event {row.event_id}"))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise StoreError("what was stored is damaged", where=f"event {row.event_id}") from error


def _incident_row(incident: Incident) -> dict[str, Any]:
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
        "document": _text(incident_to_plain(incident)),
    }


def _incident(row: Row[Any]) -> StoredIncident:
    where = f"incident {row.incident_id}"
    try:
        found = incident_from_plain(_parsed(row.document, where))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise StoreError("what was stored is damaged", where=where) from error
    return StoredIncident(found, row.closed_by, row.closed_note)
