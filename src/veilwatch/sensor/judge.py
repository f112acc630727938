"""The scoring process: tables in; alerts ruled on, spooled for the sinks, and stored.

What is handed over is first spooled and then stored, each under ids that do not change: whatever
a crash leaves half done is done again and is there once.
"""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from veilwatch.detection.alerting.desk import Desk, Ruling
from veilwatch.detection.alerting.live import LiveAlerts
from veilwatch.detection.scoring.live import LiveScorer
from veilwatch.errors import VeilwatchError
from veilwatch.imports import hidden
from veilwatch.learning.models import Model
from veilwatch.schema.events import Event, Incident
from veilwatch.schema.scores import ScoreFrame
from veilwatch.sensor import settings
from veilwatch.sensor.clock import SteadyClock
from veilwatch.sensor.config import SensorConfig
from veilwatch.sensor.link import Inbox
from veilwatch.sensor.load import load_config
from veilwatch.sensor.memory import Level, Memory
from veilwatch.sensor.places import DESK, Places
from veilwatch.sensor.scorebook import ScoreBook
from veilwatch.sensor.serve import Scored, serve
from veilwatch.sensor.sitemodel import EMULATED, load_site_model
from veilwatch.sensor.state import hold_place
from veilwatch.sensor.store_proxy import StoreProxy, UnexpectedStoreError
from veilwatch.sensor.supervise import Heart, check_threads, described
from veilwatch.sensor.tally import FlowTally
from veilwatch.sinks.base import open_sink
from veilwatch.sinks.spool import Spool
from veilwatch.store import FlowArchive
from veilwatch.traffic.capture.live.privileges import drop_privileges

TICK_S: Final = 1.0
"""How often time passes for incidents, rate limits and the archive: that of `SteadyClock`, as
docs/architecture.md says under Clocks."""

SAVE_S: Final = 30.0
"""How often state is saved that no event has saved yet."""

STATE_SHARE: Final = 20.0
"""State is saved with events at most so rarely that it takes a twentieth of the time: in a flood of
a hundred thousand hosts it has megabytes. What is told again after a crash has the same ids."""

MAX_BACKLOG: Final = 10_000
"""Most events that wait in memory for the spool, and for the store, some 50 MB each; beyond it the
oldest are lost, and counted."""

MAX_TRIES: Final = 3
"""How often a batch of events is tried that fails in a way that nobody foresaw."""

STORE_PAUSE_S: Final = 5.0
"""After a fault the store is left alone for so long: each try may wait for it, and scores do not.
"""

REPEAT_S: Final = 60.0
"""How often the same fault is said again while it lasts; each time is counted."""

LOSES: Final = (
    "evidence of {hosts} hosts of the last hour, and the windows that {window_flows} flows make; "
    "{backlog} events that the disk had no room for; what the capture side holds is sent again"
)
"""What goes with this process when it dies, for `Child.loses`."""

NOTES: Final = 3
MAX_NOTE: Final = 200
"""Latest notes, and characters kept of each: they go with every heartbeat."""

RELOADED: Final = ("alerts", "model", "windows")
"""Sections of the configuration that SIGHUP reads anew; others are what processes are built of."""


_Batch = tuple[list[Event], list[Incident]]


@dataclass(frozen=True, slots=True)
class JudgeJob:
    """What the scoring process is to do; plain data that is sent to it.

    Attributes
    ----------
    config
        The sensor's configuration.
    run
        Start of the sensor, what tells its starts apart in the store.
    file, overrides
        Where the configuration came from, to read it anew; None where it is only what it is.
    """

    config: SensorConfig
    run: str
    file: Path | None = None
    overrides: tuple[str, ...] = ()


def judge(heart: Heart, job: JudgeJob) -> None:
    """Score, rule, spool and store until told to end; a `Target`."""
    drop_privileges(None)  # only the capture side needs any
    heart.settled()
    with hidden("sklearn", "pandas"):
        from veilwatch.learning.detectors import lightgbm as _  # noqa: F401
    places = Places(job.config)

    def waiting() -> bool:
        heart.beat()
        return heart.stopping

    with (
        hold_place(job.config.sensor.state, "judge", waiting),
        closing(StoreProxy(partial(settings.store, job.config))) as store,
        Spool(places.spool) as spool,
        Inbox(places.socket) as inbox,
    ):
        bench = Bench(heart, job, store, spool)
        try:
            serve(
                heart,
                inbox,
                bench.scorer,
                bench.hand_over,
                load=bench.reload,
                note=bench.note,
                idle=bench.idle,
                status=bench.status,
            )
        finally:
            bench.close()


class Bench:
    """Everything that stands between scores and what is told of them.

    Parameters
    ----------
    heart, job
        Of the process.
    store, spool
        Where events go.
    """

    def __init__(self, heart: Heart, job: JudgeJob, store: StoreProxy, spool: Spool) -> None:
        self._heart, self._job, self._config = heart, job, job.config
        self._store, self._spool = store, spool
        self._notes: deque[str] = deque(maxlen=NOTES)
        addresses = [open_sink(url).address for url in self._config.sinks.urls]
        self._sinks = [address.shown for address in addresses]
        spool.rename_sinks({address.shown_before: address.shown for address in addresses})
        self._model = load_site_model(self._config)
        self._note_model()
        self.scorer = LiveScorer(self._model)
        inputs = Places(self._config).inputs
        self._desk = Desk(
            self._config.sensor.name, settings.policy(self._config), interface=", ".join(inputs)
        )
        self._restore()
        self._alerts = LiveAlerts(inputs, emulated=self._config.capture.emulated)
        archive = self._config.archive
        self._archive = (
            FlowArchive(self._config.archive_folder, settings.archive(self._config))
            if archive.enabled
            else None
        )
        self._memory = Memory(self._config.sensor.spare_memory_mb)
        self._level = Level.WELL
        self.tally = FlowTally()
        self._book = ScoreBook(store, self._config.sensor.name)
        self._unspooled: deque[_Batch] = deque()
        self._unstored: deque[_Batch] = deque()
        self._store_from_s = 0.0
        self._tries = 0
        self._faults: Counter[str] = Counter()
        self._said = "", 0.0
        self._clock = SteadyClock()
        self._has_heard = False
        self._ticked_s = self._saved_s = self._judged_s = time.monotonic()
        self._state_every_s = 0.0

    def hand_over(self, scored: Scored) -> None:
        """Take a scored table: a `HandOver`."""
        parcel = scored.parcel
        self._has_heard = True
        if not scored.early:
            self.tally.add(scored.scores.flows)
            self._book.add(scored.scores.flows, scored.scores.hosts, self._clock.now_ns())
            if self._archive and parcel.archive:
                if self._level is Level.WELL:
                    self._archive.write(scored.scores.flows.drop("early"), self._clock.now_ns())
                else:
                    self._archive.counts.flows_lost += scored.scores.flows.height
        self._rule(scored.scores)

    def _rule(self, scores: ScoreFrame) -> None:
        """Rule on what one table, or one look at the windows, brought."""
        raised = self._alerts.raise_alerts(scores, ransomware=self._model.ransomware)
        events: list[Event] = []
        incidents: list[Incident] = []
        for alert, flow in raised:
            self.tally.alerts[alert.kind] += 1
            ruling = self._desk.take(
                alert,
                flow,
                now_ns=self._clock.now_ns(),
                made_ns=time.time_ns(),
                interface=alert.capture,
            )
            events += ruling.events
            incidents += ruling.incidents
        self._deliver(events, incidents)

    def _deliver(self, events: list[Event], incidents: list[Incident]) -> None:
        if not events and not incidents:
            return
        self.tally.told(events)
        # Of an incident that changed twice the later state counts.
        last = {incident.incident_id: incident for incident in incidents}
        self._unspooled.append((events, list(last.values())))
        self._write()

    def _write(self) -> None:
        """Write what waits: to the spool, and what is there to the store.

        A store that is away holds up no sink. What is stored was spooled: else a crash between the
        two would keep it from the sinks for good.
        """
        while self._unspooled:
            events, _ = self._unspooled[0]
            try:
                if self._sinks and events:
                    self._spool.append(events, self._sinks)
            except VeilwatchError as error:
                self._fault(error)
                self._bound(self._unspooled)
                break
            except Exception as error:  # an event that the spool cannot hold, or a fault of ours
                if self._set_aside(self._unspooled, error):
                    continue
                break
            self._unstored.append(self._unspooled.popleft())
        while self._unstored:
            try:
                if not self._try(partial(self._record, *self._unstored[0])):
                    break
            except UnexpectedStoreError as error:
                if not self._set_aside(self._unstored, error):
                    break
                continue
            self._unstored.popleft()
        self._bound(self._unstored)

    def _set_aside(self, waiting: deque[_Batch], error: Exception) -> bool:
        """Go on after an unexpected fault: first batch by batch, at last without one event.

        Tried again `MAX_TRIES` times, as it may have been the disk or the peer; then what a batch
        holds is tried one by one, and what alone still fails is given up, counted and said.

        Returns
        -------
        bool
            Whether to go on now; else with the next look.
        """
        self._fault(error)
        self._tries += 1
        if self._tries < MAX_TRIES:
            return False
        self._tries = 0
        events, incidents = waiting.popleft()
        single: list[_Batch] = [
            *(([event], []) for event in events),
            *(([], [incident]) for incident in incidents),
        ]
        if len(single) > 1:
            waiting.extendleft(reversed(single))
            return True
        self._faults["events_lost"] += len(events)
        names = [event.event_id for event in events]
        names += [incident.incident_id for incident in incidents]
        self.note(f"given up, as it cannot be kept: {', '.join(names)}: {error}")
        return True

    def _bound(self, waiting: deque[_Batch]) -> None:
        while sum(len(events) for events, _ in waiting) > MAX_BACKLOG:
            self._faults["events_lost"] += len(waiting.popleft()[0])

    def _record(self, events: list[Event], incidents: list[Incident]) -> None:
        began_s = time.monotonic()
        # State that is ahead of what is stored would keep it from being told again after a crash.
        last = not self._unspooled and len(self._unstored) <= 1
        due = last and began_s - self._saved_s >= self._state_every_s
        self._store.record(events, incidents, state={DESK: self._desk.state()} if due else None)
        if due:
            self._saved_s = time.monotonic()
            self._state_every_s = STATE_SHARE * (self._saved_s - began_s)

    def idle(self) -> None:
        """Let time pass; called at least four times a second."""
        check_threads({"store": self._store.is_alive})
        now_s = time.monotonic()
        if now_s - self._ticked_s < TICK_S:
            return
        self._ticked_s = now_s
        self._look_at_memory()
        self._write()
        now_ns = self._clock.now_ns()
        self._deliver(*_parts(self._desk.tick(now_ns=now_ns, made_ns=time.time_ns())))
        if self._archive:
            self._archive.tick(now_ns)
        if self._has_heard and now_s - self._judged_s >= self._config.windows.every_s:
            self._judged_s = now_s
            self._rule(self.scorer.judge_current())
        self._book.tick()
        if not self._backlog and now_s - self._saved_s >= SAVE_S:
            self._saved_s = now_s
            self._try_later(self._heed_people)
            self._try_later(self._save_desk)

    @property
    def _backlog(self) -> int:
        """Events that neither spool nor store could take yet."""
        batches = (*self._unspooled, *self._unstored)
        return sum(len(events) for events, _ in batches)

    def _save_desk(self) -> None:
        self._store.save_state({DESK: self._desk.state()})

    def reload(self) -> Model:
        """Read configuration, model, thresholds of the site and policy anew (SIGHUP).

        Raises
        ------
        VeilwatchError
            If one of them cannot be read; all goes on as it was.
        """
        config, later = self._reread()
        model = load_site_model(config)
        policy = settings.policy(config)
        self._desk.replace_policy(policy)
        self._config, self._model = config, model
        self._note_model()
        if later:
            self.note(f"these hold from the next start on: {', '.join(later)}")
        return model

    def _reread(self) -> tuple[SensorConfig, list[str]]:
        """Return the configuration with what can change while it runs, and what else changed."""
        if self._job.file is None:
            return self._config, []
        fresh = load_config(
            self._job.file, environment=os.environ, overrides=self._job.overrides
        ).config
        config = self._config.model_copy(
            update={section: getattr(fresh, section) for section in RELOADED}
        )
        later = [
            f"{section}.{key}"
            for section, model in fresh
            for key, value in model
            if value != getattr(getattr(config, section), key)
        ]
        return config, later

    def _look_at_memory(self) -> None:
        level, before = self._memory.level(), self._level
        if level is before:
            return
        self._level = level
        if level is Level.WELL:
            self.note("there is memory again: flows are archived")
        elif before is Level.WELL:
            self.note("memory is short: flows are not archived until there is more")
            if self._archive:
                self._archive.close()  # its open file holds rows that no Parquet file has yet

    def status(self) -> dict[str, Any]:
        """Return what the parent is told."""
        archive = self._archive.counts if self._archive else None
        return {
            **self.tally.status(),
            "fate": {fate.value: count for fate, count in self._desk.fates.items()},
            "incidents": len(self._desk.book),
            "backlog": self._backlog,
            "faults": dict(self._faults),
            "archive_lost": archive.flows_lost if archive else 0,
            "archive_dropped": archive.files_dropped if archive else 0,
            "memory": int(self._level),
            "emulated_model": self._model.manifest.corpus.emulated,
            "score_psi": None if self._book.drift is None else round(self._book.drift, 4),
            "hosts_without_flow": self._alerts.without_flow,
            "notes": list(self._notes),
        }

    def note(self, message: str) -> None:
        """Keep what people should know; the parent logs it."""
        self._notes.append(f"{time.time():.3f} {message[:MAX_NOTE]}")

    def _note_model(self) -> None:
        """Say of a model what people must know who read its alerts."""
        if self._model.manifest.corpus.emulated:
            self.note(EMULATED)

    def close(self) -> None:
        """Tell what was held back, and save everything."""
        now_ns = self._clock.now_ns()
        ruling = self._desk.tick(now_ns=now_ns, made_ns=time.time_ns(), final=True)
        self._deliver(*_parts(ruling))
        self._store_from_s = 0.0
        self._write()
        if self._archive:
            self._archive.close()
        self._book.close()
        self._try_later(self._save_desk)
        self._heart.say(self.status())

    def _restore(self) -> None:
        state = self._store.load_state(DESK)
        if isinstance(state, Mapping):
            try:
                self._desk.restore(state)
            except VeilwatchError as error:
                self.note(f"open incidents were not taken over: {error}")

    def _heed_people(self) -> None:
        """Close what people have closed in the store."""
        open_ids = [incident.incident_id for incident in self._desk.book.open_incidents()]
        for name, who in self._store.closed_by_people(open_ids).items():
            self._deliver(
                *_parts(self._desk.close(name, f"closed by {who}", made_ns=time.time_ns()))
            )

    def _try(self, action: Callable[[], object]) -> bool:
        """Do something with the store, unless it was away a moment ago; return whether it did."""
        if time.monotonic() < self._store_from_s:
            return False
        try:
            action()
        except UnexpectedStoreError:
            self._store_from_s = time.monotonic() + STORE_PAUSE_S
            raise
        except VeilwatchError as error:
            self._store_from_s = time.monotonic() + STORE_PAUSE_S
            self._fault(error)
            return False
        return True

    def _try_later(self, action: Callable[[], object]) -> None:
        """Do something with the store that can as well be done at another time."""
        try:
            self._try(action)
        except UnexpectedStoreError as error:
            self._fault(error)

    def _fault(self, error: Exception) -> None:
        self._faults["store"] += 1
        known = isinstance(error, VeilwatchError)
        said = str(error) if known else f"unexpected {described(error)}"
        now_s = time.monotonic()
        # Every second the same would fill a log that may lie on the disk that is full.
        if said != self._said[0] or now_s - self._said[1] >= REPEAT_S:
            self._said = said, now_s
            self.note(said)


def _parts(ruling: Ruling) -> tuple[list[Event], list[Incident]]:
    return list(ruling.events), list(ruling.incidents)
