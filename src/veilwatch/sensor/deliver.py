"""The process that delivers: a thread for each sink, and once a minute what the sensor counted.

A sink that is slow or gone holds up nobody else: events wait in the spool on disk.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import closing, suppress
from functools import partial
from typing import Any, Final

from veilwatch.errors import VeilwatchError
from veilwatch.schema import counters as known
from veilwatch.schema.units import DAY_NS
from veilwatch.sensor import settings
from veilwatch.sensor.clock import SteadyClock
from veilwatch.sensor.config import SensorConfig
from veilwatch.sensor.counter_recorder import CounterRecorder
from veilwatch.sensor.heartbeat import shorten
from veilwatch.sensor.state_paths import StatePaths
from veilwatch.sensor.store_proxy import StoreProxy
from veilwatch.sensor.supervise import Heart, check_threads
from veilwatch.sinks.base import open_sink
from veilwatch.sinks.delivery import Delivery, Progress
from veilwatch.sinks.spool import Spool
from veilwatch.store import Store
from veilwatch.traffic.capture.live.privileges import drop_privileges

LOOK_S: Final = 0.25
"""How often the process says that it is alive."""

RETAIN_S: Final = 600.0
"""How often what is too old is deleted, from the store and from the spool alike."""

COUNTS_S: Final = 2.0
"""How often the spool is asked how far each sink is."""

MAX_REASON: Final = 120
"""Bytes kept of a sink's name and of why it does not take events: both go with every heartbeat, of
as many sinks as there may be."""

NOTES: Final = 3
MAX_NOTE: Final = 300
"""Latest notes, and bytes kept of each."""

LOSES: Final = "nothing: {pending_events} events wait in the spool and go on with the next process"
"""What goes with this process when it dies, for `Child.loses`."""


def deliver(heart: Heart, config: SensorConfig, run: str) -> None:
    """Deliver until told to end; a `Target`.

    Parameters
    ----------
    config
        The sensor's configuration.
    run
        Start of the sensor, what tells its starts apart in the store.
    """
    drop_privileges(None)
    heart.settled()
    paths = StatePaths(config)
    stop = threading.Event()
    failures: dict[str, str] = {}
    notes = _Notes()
    with (
        Spool(paths.spool) as spool,
        closing(StoreProxy(partial(settings.store, config), note=notes.add)) as store,
    ):
        recorder = CounterRecorder(store, paths.status, config.sensor.name, run)
        sinks = [open_sink(url) for url in config.sinks.urls]
        names = [sink.address.shown for sink in sinks]
        spool.rename_sinks({sink.address.shown_before: sink.address.shown for sink in sinks})
        spool.keep_sinks(names)
        threads = []
        for name, sink in zip(names, sinks, strict=True):

            def report(progress: Progress, name: str = name) -> None:
                if progress.reason.startswith("unexpected "):
                    notes.add(f"{name}: {progress.reason}")
                failures[name] = shorten(progress.reason, MAX_REASON)

            delivery = Delivery(name, sink, spool)
            thread = threading.Thread(
                target=delivery.run, args=(stop, report), name=f"sink {name}", daemon=True
            )
            thread.start()
            threads.append(thread)
        status = _Status(spool, store, names, failures, notes)
        clock = SteadyClock()
        retained_s = -RETAIN_S
        while not heart.stopping:
            heart.beat(status.now)
            recorder.tick()
            check_threads({thread.name: thread.is_alive() for thread in threads})
            check_threads({"store": store.is_alive})
            if time.monotonic() - retained_s >= RETAIN_S:
                retained_s = time.monotonic()
                now_ns = clock.now_ns()
                store.in_passing(partial(_retain, config, now_ns))
                with suppress(VeilwatchError):  # a full disk: at the next time
                    spool.forget(now_ns - int(config.store.retention_days * DAY_NS))
            time.sleep(LOOK_S)
        stop.set()
        for thread in threads:
            thread.join(LAST_S)
        recorder.tick(final=True)
        for sink in sinks:
            sink.close()
        heart.say(status.now())


LAST_S: Final = 5.0
"""How long a sink may take to answer when the process is told to end; what it did not answer is
sent again, marked."""


def _retain(config: SensorConfig, now_ns: int, store: Store) -> None:
    store.retain(settings.retention(config), now_ns=now_ns)


class _Notes:
    """What people should know, the latest few; other threads add to it."""

    def __init__(self) -> None:
        self._kept: deque[str] = deque(maxlen=NOTES)

    def add(self, message: str) -> None:
        """Keep a line, unless it was kept before."""
        text = shorten(message, MAX_NOTE)
        if text not in [note.partition(" ")[2] for note in self.all()]:
            self._kept.append(f"{time.time():.3f} {text}")

    def all(self) -> list[str]:
        """Return what is kept."""
        return list(self._kept)


class _Status:
    """How far the sinks are, asked for from time to time."""

    def __init__(
        self,
        spool: Spool,
        store: StoreProxy,
        names: list[str],
        failures: dict[str, str],
        notes: _Notes,
    ) -> None:
        self._spool, self._store = spool, store
        self._names, self._failures, self._notes = names, failures, notes
        self._asked_s = -COUNTS_S
        self._said: dict[str, Any] = {}
        self._faults = 0

    def now(self) -> dict[str, Any]:
        """Return what the parent is told."""
        if time.monotonic() - self._asked_s < COUNTS_S:
            return self._said
        self._asked_s = time.monotonic()
        try:
            counts = [self._spool.counts(name) for name in self._names]
        except VeilwatchError:
            self._faults += 1
            return self._said
        now_ns = time.time_ns()
        self._said = {
            known.PENDING_EVENTS.name: sum(count.pending for count in counts),
            known.STORE_FAULTS.name: self._store.faults + self._faults,
            "notes": self._notes.all(),
            "sinks": [
                {
                    "name": shorten(name, MAX_REASON),
                    known.SINK_PENDING.name: count.pending,
                    known.SINK_DELIVERED.name: count.delivered,
                    known.SINK_SET_ASIDE.name: count.set_aside,
                    known.SINK_DROPPED.name: count.dropped,
                    known.SINK_LAG.name: _lag_s(count.oldest_ns, now_ns),
                    "trouble": self._failures.get(name, ""),
                }
                for name, count in zip(self._names, counts, strict=True)
            ],
        }
        return self._said


def _lag_s(oldest_ns: int, now_ns: int) -> float:
    """Return how long the oldest event waits; 0 where a clock that was set back says less."""
    return round(max(0.0, (now_ns - oldest_ns) / 1e9), 1) if oldest_ns else 0.0
