"""Once a minute, what the processes counted goes into the store.

The parent writes what its children say of themselves to a file, which any process may read. What
they count begins at 0 with each of their starts: what a minute added is taken process by process.
"""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict, deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from veilwatch.errors import VeilwatchError
from veilwatch.sensor.store_proxy import StoreProxy
from veilwatch.store import Store
from veilwatch.store.store import MINUTE_NS

MAX_STATUS_BYTES: Final = 1 << 20
"""Longest status that is read: a child says at most some 4 kB."""

GROWING: Final = {
    "ingest": (
        *("packets", "decoded", "kernel_dropped", "interruptions"),
        *("rows_early", "rows_ended", "dropped", "refused"),
    ),
    "judge": (
        *("flows", "bytes", "flows_gtp", "flows_encrypted", "bytes_encrypted"),
        *("flows_attributed", "service", "alerts", "fate", "delay_sum_s", "delay_count"),
        *("archive_lost", "archive_dropped", "faults"),
    ),
    "deliver": ("store_faults",),
}
"""What the processes of each kind count; of a table of counts every entry."""

MAX_MINUTES: Final = 240
"""Minutes that wait while the store is away, of some 10 kB each; the oldest are lost beyond it."""

NAMES: Final = {
    "archive_dropped": "archive_files_dropped",
    "faults/store": "store_faults",
}
"""Counters that are stored under another name."""

BY_MINUTE: Final = ("hosts_seen", "subscribers_seen", "delay_max_s")
"""What the scoring process says of the last minute as a whole (`FlowCounts`)."""

GAUGES: Final = ("live_flows", "hosts", "waiting_rows", "score_psi", "pending_events")


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
            kind = child.split("-")[0]
            flat = _flat({name: said[name] for name in GROWING.get(kind, ()) if name in said})
            if "cpu_s" in said:
                flat[f"cpu_s/{child}"] = float(said["cpu_s"])
            # One that has ended said its last under the number it had.
            pid = self._pids[child] = int(said.get("pid") or self._pids.get(child, 0))
            key = (child, pid)
            before = self._seen.get(key, {})
            for name, value in flat.items():
                # A first look at a process that was started meanwhile: all of it is new.
                if value > before.get(name, 0.0):
                    self._sums[NAMES.get(name, name)] += value - before.get(name, 0.0)
            if key not in self._seen:
                self._seen = {
                    place: seen
                    for place, seen in self._seen.items()
                    if place[0] != child or place[1] < 0
                }
            self._seen[key] = {**before, **flat}
            for number, count in enumerate(said.get("score", ())):
                self._grow(key, f"score/{number}", float(count))
            for name in GAUGES:
                if said.get(name) is not None:
                    self._sums[f"gauge/{name}"] = float(said[name])
            for name in BY_MINUTE:
                if name in said:
                    self._sums[name] = float(said[name])
            for number, sink in enumerate(said.get("sinks", ())):
                self._sums[f"gauge/pending/{number}"] = float(sink.get("pending", 0))
            if "rss" in said:
                self._sums[f"gauge/rss/{child}"] = float(said["rss"])
            self._grow(key, f"restarts/{child}", float(said.get("restarts", 0)), since_start=False)
        self._sums["gauge/cores"] = float(os.cpu_count() or 1)
        self._grow(("parent", 0), "up_s", float(document.get("up_s", 0.0)))

    def _grow(
        self, key: tuple[str, int], name: str, value: float, *, since_start: bool = True
    ) -> None:
        """Add what a count grew by; restarts are counted by the parent, across processes."""
        place = key if since_start else (key[0], -1)
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


def _flat(counts: Mapping[str, Any]) -> dict[str, float]:
    """Return counts with those of inner tables under `table/entry`."""
    out: dict[str, float] = {}
    for name, value in counts.items():
        if isinstance(value, Mapping):
            out |= {f"{name}/{entry}": float(count) for entry, count in value.items()}
        elif isinstance(value, int | float):
            out[name] = float(value)
    return out
