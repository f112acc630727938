"""Once a minute, what the processes counted goes into the store.

The parent writes what its children say of themselves to a file, which any process may read. What
they count begins at 0 with each of their starts: what a minute added is taken process by process.
"""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from veilwatch.errors import VeilwatchError
from veilwatch.schema.counters import (
    CORES,
    CPU,
    RESIDENT,
    RESTARTS,
    SINK_PENDING,
    UP,
    Kind,
    Process,
    counted_by,
    kind_of,
)
from veilwatch.schema.units import MINUTE_NS
from veilwatch.sensor.store_proxy import StoreProxy
from veilwatch.store import Store

MAX_STATUS_BYTES: Final = 1 << 20
"""Longest status that is read: a child says at most some 4 kB."""

PARENTS_COUNT: Final = -1
"""In the place of a process number: what the parent counts of a process across its starts."""

MAX_MINUTES: Final = 240
"""Minutes that wait while the store is away, of some 10 kB each; the oldest are lost beyond it."""


class CounterRecorder:
    """Store what a minute added.

    Parameters
    ----------
    store
        Where it goes.
    status
        File that the parent writes.
    sensor, run
        Name of the sensor, and what tells its starts apart.
    """

    def __init__(self, store: Store | StoreProxy, status: Path, sensor: str, run: str) -> None:
        self._store, self._path = store, status
        self._sensor, self._run = sensor, run
        self._steps_back = 0
        self._minute = time.time_ns() // MINUTE_NS
        self._unstored: deque[tuple[int, str, dict[str, float]]] = deque(maxlen=MAX_MINUTES)
        self._seen: dict[tuple[str, int], dict[str, float]] = {}
        self._sums: defaultdict[str, float] = defaultdict(float)
        self._pids: dict[str, int] = {}
        self._looked_s = 0.0

    def tick(self, *, final: bool = False) -> None:
        """Look at the status once a second; store when a minute is over, or at the end."""
        now_s = time.monotonic()
        if now_s - self._looked_s < 1.0 and not final:
            return
        self._looked_s = now_s
        minute = time.time_ns() // MINUTE_NS
        if minute != self._minute:
            self._store_minute()
            # What is counted again in a minute takes the place of what was: after a step back of
            # the clock it is another run's, and both add up.
            self._steps_back += minute < self._minute
            self._minute, self._sums = minute, defaultdict(float)
        document = self._read()
        if document:
            self._add(document)
        if final:
            self._store_minute()

    def _read(self) -> dict[str, Any]:
        try:
            with self._path.open("rb") as stream:
                document = json.loads(stream.read(MAX_STATUS_BYTES))
        except (OSError, ValueError):
            return {}
        return document if isinstance(document, dict) else {}

    def _add(self, document: Mapping[str, Any]) -> None:
        for child, said in document.get("children", {}).items():
            # One that has ended said its last under the number it had.
            pid = self._pids[child] = int(said.get("pid") or self._pids.get(child, 0))
            kind = kind_of(child)
            self._add_growing((child, pid), dict(_growing(child, said)))
            for spec in counted_by(kind):
                if (
                    spec.stored
                    and spec.kind is not Kind.COUNTER
                    and said.get(spec.name) is not None
                ):
                    self._sums[spec.key] = float(said[spec.name])
            for number, sink in enumerate(said.get("sinks", ())):
                self._sums[SINK_PENDING.entry(number)] = float(sink.get(SINK_PENDING.name, 0))
            if RESIDENT.name in said:
                self._sums[RESIDENT.entry(child)] = float(said[RESIDENT.name])
            # The parent counts restarts, across processes.
            restarts = float(said.get(RESTARTS.name, 0))
            self._grow((child, PARENTS_COUNT), RESTARTS.entry(child), restarts)
        self._sums[CORES.key] = float(os.cpu_count() or 1)
        self._grow((Process.PARENT, 0), UP.key, float(document.get(UP.name, 0.0)))

    def _add_growing(self, place: tuple[str, int], counts: Mapping[str, float]) -> None:
        """Add what a process counted; what one before it under its name counted is forgotten."""
        if place not in self._seen:
            self._seen = {
                other: seen
                for other, seen in self._seen.items()
                if other[0] != place[0] or other[1] == PARENTS_COUNT
            }
        for name, value in counts.items():
            self._grow(place, name, value)

    def _grow(self, place: tuple[str, int], name: str, value: float) -> None:
        """Add what a count grew by; of a process that is seen for the first time all of it."""
        seen = self._seen.setdefault(place, {})
        if value > seen.get(name, 0.0):
            self._sums[name] += value - seen.get(name, 0.0)
        seen[name] = value

    def _store_minute(self) -> None:
        if self._sums:
            run = f"{self._run} +{self._steps_back}" if self._steps_back else self._run
            self._unstored.append((self._minute, run, self._sums))
        while self._unstored:
            minute, run, sums = self._unstored[0]
            try:
                self._store.count(sums, minute_ns=minute * MINUTE_NS, sensor=self._sensor, run=run)
            except VeilwatchError:
                return  # it is away, or its disk is full: with the next minute
            self._unstored.popleft()


def _growing(child: str, said: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield what a process counts from 0 on, under its names in the store."""
    for spec in counted_by(kind_of(child)):
        value = said.get(spec.name)
        if spec.kind is not Kind.COUNTER or not spec.stored or value is None:
            continue
        if isinstance(value, Mapping):
            yield from ((spec.entry(entry), float(count)) for entry, count in value.items())
        elif isinstance(value, list):
            yield from ((spec.entry(n), float(count)) for n, count in enumerate(value))
        else:
            yield spec.key, float(value)
    if CPU.name in said:
        yield CPU.entry(child), float(said[CPU.name])
