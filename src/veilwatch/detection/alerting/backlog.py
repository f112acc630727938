"""What the gate let out, on its way to the spool and then to the store.

What is stored was spooled: else a crash between the two would keep it from the sinks for good. Both
keep ids, so that what a crash leaves half done is done again and is there once. A store that is
away holds up no sink.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, Final

from veilwatch.detection.alerting.faults import FaultLog
from veilwatch.detection.alerting.guard import StoreGuard
from veilwatch.detection.alerting.ports import Clock, EventSpool, EventStore
from veilwatch.errors import UnexpectedStoreError, VeilwatchError
from veilwatch.schema.events import Event, Incident

MAX_BACKLOG: Final = 10_000
"""Most events that wait in memory for the spool, and for the store, some 50 MB each; beyond it the
oldest are lost, and counted."""

MAX_TRIES: Final = 3
"""How often a batch of events is tried that fails in a way that nobody foresaw."""

STATE_SHARE: Final = 20.0
"""State is saved with events at most so rarely that it takes a twentieth of the time: in a flood of
a hundred thousand hosts it has megabytes. What is reported again after a crash has the same ids."""

Batch = tuple[list[Event], list[Incident]]


class EventBacklog:
    """Write events and incidents to spool and store, in order, until both have them.

    Parameters
    ----------
    store, spool
        Where they go.
    sinks
        Names of the sinks that get events.
    guard
        Leaves the store alone where it failed.
    clock
        Tells what saving the state costs.
    faults
        Takes what went wrong.
    state
        Returns the state that is saved with events, by name.

    Attributes
    ----------
    saved_s
        When the state was saved last, by the clock's monotonic time.
    """

    def __init__(
        self,
        store: EventStore,
        spool: EventSpool,
        sinks: Collection[str],
        *,
        guard: StoreGuard,
        clock: Clock,
        faults: FaultLog,
        state: Callable[[], dict[str, Any]],
    ) -> None:
        self._store, self._spool, self._sinks = store, spool, sinks
        self._guard, self._clock, self._faults, self._state = guard, clock, faults, state
        self._unspooled: deque[Batch] = deque()
        self._unstored: deque[Batch] = deque()
        self._tries = 0
        self._state_every_s = 0.0
        self.saved_s = clock.monotonic_s()

    def __len__(self) -> int:
        """Events that spool or store have not taken yet."""
        return sum(len(events) for events, _ in (*self._unspooled, *self._unstored))

    def add(self, events: list[Event], incidents: list[Incident]) -> None:
        """Take in what belongs together, behind all that waits."""
        # Of an incident that changed twice the later state counts.
        last = {incident.incident_id: incident for incident in incidents}
        self._unspooled.append((events, list(last.values())))

    def write(self) -> None:
        """Write what waits, as far as spool and store take it."""
        self._write_to_spool()
        self._write_to_store()
        self._bound(self._unstored)

    def _write_to_spool(self) -> None:
        while self._unspooled:
            events, _ = self._unspooled[0]
            try:
                if self._sinks and events:
                    self._spool.append(events, self._sinks)
            except VeilwatchError as error:
                self._faults.add(error)
                self._bound(self._unspooled)
                return
            except Exception as error:  # an event that the spool cannot hold, or a fault of ours
                if self._set_aside(self._unspooled, error):
                    continue
                return
            self._unstored.append(self._unspooled.popleft())

    def _write_to_store(self) -> None:
        while self._unstored:
            try:
                if not self._guard.attempt(partial(self._record, *self._unstored[0])):
                    return
            except UnexpectedStoreError as error:
                if not self._set_aside(self._unstored, error):
                    return
                continue
            self._unstored.popleft()

    def _set_aside(self, waiting: deque[Batch], error: Exception) -> bool:
        """Go on after an unexpected fault: first batch by batch, at last without one event.

        Tried again `MAX_TRIES` times, as it may have been the disk or the peer; then what a batch
        holds is tried one by one, and what alone still fails is given up, counted and noted.

        Returns
        -------
        bool
            Whether to go on now; else with the next `write`.
        """
        self._faults.add(error)
        self._tries += 1
        if self._tries < MAX_TRIES:
            return False
        self._tries = 0
        events, incidents = waiting.popleft()
        single: list[Batch] = [
            *(([event], []) for event in events),
            *(([], [incident]) for incident in incidents),
        ]
        if len(single) > 1:
            waiting.extendleft(reversed(single))
            return True
        self._faults.lost(len(events))
        names = [event.event_id for event in events]
        names += [incident.incident_id for incident in incidents]
        self._faults.note(f"given up, as it cannot be kept: {', '.join(names)}: {error}")
        return True

    def _bound(self, waiting: deque[Batch]) -> None:
        while sum(len(events) for events, _ in waiting) > MAX_BACKLOG:
            self._faults.lost(len(waiting.popleft()[0]))

    def _record(self, events: list[Event], incidents: list[Incident]) -> None:
        began_s = self._clock.monotonic_s()
        # State that is ahead of what is stored would keep it from being reported after a crash.
        last = not self._unspooled and len(self._unstored) <= 1
        due = last and began_s - self.saved_s >= self._state_every_s
        self._store.record(events, incidents, state=self._state() if due else None)
        if due:
            self.saved_s = self._clock.monotonic_s()
            self._state_every_s = STATE_SHARE * (self.saved_s - began_s)
