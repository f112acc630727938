"""What the alert pipeline asks of its surroundings: the time, a store and a spool."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

from veilwatch.schema.events import Event, Incident

Note = Callable[[str], None]
"""Takes one line that people should read."""


class Clock(Protocol):
    """The three times that alerting goes by."""

    def now_ns(self) -> int:
        """Return the sensor's steady time, ns since the epoch: limits and quiet times go by it."""
        ...

    def wall_ns(self) -> int:
        """Return the wall clock, ns since the epoch: people read it in events."""
        ...

    def monotonic_s(self) -> float:
        """Return seconds since some moment that never run back: pauses go by them."""
        ...


class EventStore(Protocol):
    """Keeps events, incidents and state; every call may raise `StoreError`."""

    def record(
        self,
        new_events: Iterable[Event],
        changed_incidents: Iterable[Incident],
        *,
        state: Mapping[str, Any] | None,
    ) -> object:
        """Store all of it together; what was stored before is not there twice."""
        ...

    def save_state(self, values: Mapping[str, Any]) -> None:
        """Store state by name."""
        ...

    def load_state(self, name: str) -> Any:
        """Return the state of a name, None where there is none."""
        ...

    def closed_by_people(self, incident_ids: Iterable[str]) -> dict[str, str]:
        """Return who closed which of these incidents."""
        ...


class EventSpool(Protocol):
    """Keeps events until every sink has them."""

    def append(self, events: Sequence[Event], sinks: Collection[str]) -> object:
        """Keep events for sinks; may raise `VeilwatchError`. Events it has are not there twice."""
        ...
