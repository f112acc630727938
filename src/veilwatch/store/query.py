"""Which events are asked for, and how they come out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, ScalarSelect, and_, or_, select

from veilwatch.schema.events import Event
from veilwatch.schema.verdicts import Verdict
from veilwatch.store.tables import events, verdicts

NO_VERDICT: Final = "none"
"""Asks for events that nobody judged."""

_UNSTORABLE: Final = re.compile("[\\x00\\ud800-\\udfff]")

PAGE: Final = 500
"""Events read at a time, about 3 KiB each."""


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events are asked for; what is empty does not matter.

    Attributes
    ----------
    since_ns, until_ns
        Time of the latest evidence; the end is outside.
    host
        Address of the host, or the subscriber's pseudonym.
    family
        Name of the family, upper and lower case alike.
    severity
        At least this severe: 1 only high, 2 high and medium.
    verdict
        The latest verdict, or `NO_VERDICT`.
    kinds
        Kinds of event.
    incident_id
        Of the incident.
    limit
        At most this many.
    """

    since_ns: int | None = None
    until_ns: int | None = None
    host: str = ""
    family: str = ""
    severity: int = 3
    verdict: str = ""
    kinds: tuple[str, ...] = ()
    incident_id: str = ""
    limit: int | None = None

    def clause(self) -> ColumnElement[bool]:
        """Return the condition on the table of events."""
        parts: list[ColumnElement[bool]] = [events.c.severity <= self.severity]
        if self.since_ns is not None:
            parts.append(events.c.at_ns >= self.since_ns)
        if self.until_ns is not None:
            parts.append(events.c.at_ns < self.until_ns)
        if self.host:
            name = clean(self.host)
            parts.append(or_(events.c.host == name, events.c.subscriber == name))
        if self.family:
            parts.append(events.c.family.ilike(_literal(clean(self.family)), escape="\\"))
        if self.kinds:
            parts.append(events.c.kind.in_(map(clean, self.kinds)))
        if self.incident_id:
            parts.append(events.c.incident_id == clean(self.incident_id))
        if self.verdict == NO_VERDICT:
            parts.append(latest_verdict().is_(None))
        elif self.verdict:
            parts.append(latest_verdict() == clean(self.verdict))
        return and_(*parts)


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event as it was stored, with what people said of it, the latest verdict first."""

    event: Event
    verdicts: tuple[Verdict, ...] = ()

    @property
    def verdict(self) -> Verdict | None:
        """The verdict that counts."""
        return self.verdicts[0] if self.verdicts else None


def latest_verdict() -> ScalarSelect[Any]:
    """Return the verdict of an event that counts: the latest, whoever said it."""
    return (
        select(verdicts.c.kind)
        .where(verdicts.c.event_id == events.c.event_id)
        .order_by(verdicts.c.at_ns.desc(), verdicts.c.who)
        .limit(1)
        .correlate(events)
        .scalar_subquery()
    )


def clean(value: str) -> str:
    r"""Return text that every database takes: NUL and lone surrogates become U+FFFD.

    Examples
    --------
    >>> clean("a\x00b") == "a\ufffdb"
    True
    """
    return _UNSTORABLE.sub("\ufffd", value)


def _literal(value: str) -> str:
    """Return text for LIKE that matches itself alone."""
    return value.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
