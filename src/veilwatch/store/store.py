"""The store: what a sensor found and what people said of it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import func, or_, select

from veilwatch.closing import Closeable
from veilwatch.detection.alerting.person import Person
from veilwatch.errors import StoreError
from veilwatch.schema.counters import CountedMinute, CounterStep
from veilwatch.schema.events import Event, Incident
from veilwatch.schema.units import MINUTE_NS
from veilwatch.schema.verdicts import Verdict
from veilwatch.store import counts, erasure, reading, retention, writing
from veilwatch.store.database import PATIENCE_S, Database
from veilwatch.store.query import PAGE, EventFilter, StoredEvent, clean
from veilwatch.store.rows import (
    StoredIncident,
    event_from_row,
    event_row,
    from_text,
    incident_from_row,
    incident_row,
)
from veilwatch.store.tables import counters, events, incidents, state, verdicts

MAX_WHO: Final = 100
"""Longest name of a person in characters."""

MAX_NOTE: Final = 2000
"""Longest note in characters: a page."""


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
        rows = {row["event_id"]: row for row in map(event_row, new_events)}
        if now_ns is None:
            now_ns = max((row["made_ns"] for row in rows.values()), default=time.time_ns())
        with self._database.writing() as connection:
            added = writing.insert_events(connection, list(rows.values()))
            for incident in changed_incidents:
                writing.put_incident(connection, incident, now_ns)
            writing.put_state(connection, state or {})
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
            writing.upsert(connection, counters, rows)

    def save_state(self, values: Mapping[str, Any]) -> None:
        """Store what a restart must not forget, by name; plain values, None to forget it."""
        with self._database.writing() as connection:
            writing.put_state(connection, values)

    def load_state(self, name: str) -> Any:
        """Return what was saved under `name`, None where nothing was."""
        with self._database.reading() as connection:
            found = connection.execute(select(state.c.document).where(state.c.name == clean(name)))
            document = found.scalar()
        return None if document is None else from_text(document, f"state {name}")

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
            size = PAGE if left is None else min(PAGE, left)
            with self._database.reading() as connection:
                page = reading.event_page(connection, wanted, after, size, newest_first)
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
            full = reading.full_id(connection, events, "event_id", event_id, "event")
            row = connection.execute(select(events).where(events.c.event_id == full)).one()
            return StoredEvent(
                event_from_row(row), reading.verdicts_of(connection, [full]).get(full, ())
            )

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
            full = reading.full_id(connection, events, "event_id", verdict.event_id, "event")
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
            return [incident_from_row(row) for row in connection.execute(asked)]

    def incident(self, incident_id: str) -> StoredIncident:
        """Return an incident by its id, or by a beginning that only it has.

        Raises
        ------
        StoreError
            If there is none, or more than one.
        """
        with self._database.reading() as connection:
            full = reading.full_id(connection, incidents, "incident_id", incident_id, "incident")
            asked = select(incidents).where(incidents.c.incident_id == full)
            return incident_from_row(connection.execute(asked).one())

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
            full = reading.full_id(connection, incidents, "incident_id", incident_id, "incident")
            row = connection.execute(select(incidents).where(incidents.c.incident_id == full)).one()
            closed = replace(incident_from_row(row).incident, status="closed")
            connection.execute(
                incidents.update()
                .where(incidents.c.incident_id == full)
                .values(
                    **incident_row(closed),
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
        return counts.counter_values(
            self._database, since_ns=since_ns, until_ns=until_ns, names=names
        )

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
            writing.put_state(connection, state or {})
        erasure.rewrite(self._database)
        return found

    def bytes_used(self) -> int:
        """Return what the contents take, without space that is free within the database."""
        return retention.bytes_used(self._database)
