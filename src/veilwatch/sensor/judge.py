"""The scoring process: tables in; scores go to alert pipeline, archive and score history."""

from __future__ import annotations

import time
from collections import deque
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from veilwatch.detection.alerting.pipeline import AlertPipeline
from veilwatch.detection.scoring.live import LiveScorer
from veilwatch.imports import hidden
from veilwatch.learning.models import Model
from veilwatch.schema import counters as known
from veilwatch.schema.scores import ScoreFrame
from veilwatch.sensor import settings
from veilwatch.sensor.archiving import Archiving
from veilwatch.sensor.clock import SteadyClock
from veilwatch.sensor.config import SensorConfig
from veilwatch.sensor.flow_counts import FlowCounts
from veilwatch.sensor.link import Inbox
from veilwatch.sensor.memory_monitor import MemoryMonitor
from veilwatch.sensor.reload import reread
from veilwatch.sensor.score_history import ScoreHistory
from veilwatch.sensor.serve import Scored, serve
from veilwatch.sensor.sitemodel import EMULATED, load_site_model
from veilwatch.sensor.state import hold_place
from veilwatch.sensor.state_paths import StatePaths
from veilwatch.sensor.store_proxy import StoreProxy
from veilwatch.sensor.supervise import Heart, check_threads
from veilwatch.sinks.base import open_sink
from veilwatch.sinks.spool import Spool
from veilwatch.store import FlowArchive
from veilwatch.traffic.capture.live.privileges import drop_privileges

TICK_S: Final = 1.0
"""How often time passes for incidents, rate limits and the archive: that of `SteadyClock`, as
docs/architecture.md says under Clocks."""

LOSES: Final = (
    "evidence of {hosts} hosts of the last hour, and the windows that {window_flows} flows make; "
    "{backlog} events that the disk had no room for; what the capture side holds is sent again"
)
"""What goes with this process when it dies, for `Child.loses`."""

NOTES: Final = 3
MAX_NOTE: Final = 200
"""Latest notes, and characters kept of each: they go with every heartbeat."""


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
    """Score, decide, spool and store until told to end; a `Target`."""
    drop_privileges(None)  # only the capture side needs any
    heart.settled()
    with hidden("sklearn", "pandas"):
        from veilwatch.learning.detectors import lightgbm as _  # noqa: F401
    paths = StatePaths(job.config)

    def waiting() -> bool:
        heart.beat()
        return heart.stopping

    with (
        hold_place(job.config.sensor.state, "judge", waiting),
        closing(StoreProxy(partial(settings.store, job.config))) as store,
        Spool(paths.spool) as spool,
        Inbox(paths.socket) as inbox,
    ):
        work = JudgeWork(job, store, spool)
        try:
            serve(
                heart,
                inbox,
                work.scorer,
                work.hand_over,
                load=work.reload,
                note=work.note,
                idle=work.idle,
                status=work.status,
            )
        finally:
            work.close()
            heart.say(work.status())


class JudgeWork:
    """What the scoring process does with scores: it hands them to each part that takes them.

    Parameters
    ----------
    job
        Of the process.
    store, spool
        Where events go.
    """

    def __init__(self, job: JudgeJob, store: StoreProxy, spool: Spool) -> None:
        self._job, self._config, self._store = job, job.config, store
        config = job.config
        self._notes: deque[str] = deque(maxlen=NOTES)
        addresses = [open_sink(url).address for url in config.sinks.urls]
        spool.rename_sinks({address.shown_before: address.shown for address in addresses})
        self._model = load_site_model(config)
        self._note_model()
        self.scorer = LiveScorer(self._model)
        self._clock = SteadyClock()
        self._flow_counts = FlowCounts()
        self._history = ScoreHistory(store, config.sensor.name)
        self._pipeline = AlertPipeline(
            config.sensor.name,
            settings.policy(config),
            inputs=StatePaths(config).inputs,
            emulated=config.capture.emulated,
            sinks=[address.shown for address in addresses],
            store=store,
            spool=spool,
            clock=self._clock,
            note=self.note,
            reported=self._flow_counts.reported,
        )
        archive = (
            FlowArchive(config.archive_folder, settings.archive(config))
            if config.archive.enabled
            else None
        )
        monitor = MemoryMonitor(config.sensor.spare_memory_mb)
        self._archiving = Archiving(archive, monitor, self.note)
        self._has_scored = False
        self._ticked_s = self._judged_s = time.monotonic()

    def hand_over(self, scored: Scored) -> None:
        """Take a scored table: a `HandOver`."""
        self._has_scored = True
        if not scored.early:
            flows, now_ns = scored.scores.flows, self._clock.now_ns()
            self._flow_counts.add(flows)
            self._history.add(flows, scored.scores.hosts, now_ns)
            if scored.parcel.archive:
                self._archiving.write(flows.drop("early"), now_ns)
        self._take(scored.scores)

    def _take(self, scores: ScoreFrame) -> None:
        """Have the pipeline decide on what one table, or one look at the windows, brought."""
        self._pipeline.take(scores, ransomware=self._model.ransomware)

    def idle(self) -> None:
        """Let time pass; called at least four times a second."""
        check_threads({"store": self._store.is_alive})
        now_s = time.monotonic()
        if now_s - self._ticked_s < TICK_S:
            return
        self._ticked_s = now_s
        self._archiving.look_at_memory()
        self._pipeline.tick()
        self._archiving.tick(self._clock.now_ns())
        if self._has_scored and now_s - self._judged_s >= self._config.windows.every_s:
            self._judged_s = now_s
            self._take(self.scorer.judge_current())
        self._history.tick()

    def reload(self) -> Model:
        """Read configuration, model, thresholds of the site and policy anew (SIGHUP).

        Raises
        ------
        VeilwatchError
            If one of them cannot be read; all goes on as it was.
        """
        config, later = reread(self._config, self._job.file, self._job.overrides)
        model = load_site_model(config)
        self._pipeline.replace_policy(settings.policy(config))
        self._config, self._model = config, model
        self._note_model()
        if later:
            self.note(f"these hold from the next start on: {', '.join(later)}")
        return model

    def status(self) -> dict[str, Any]:
        """Return what the parent is told."""
        drift = self._history.drift
        return {
            **self._flow_counts.status(),
            **self._pipeline.status(),
            **self._archiving.status(),
            known.EMULATED_MODEL.name: self._model.manifest.corpus.emulated,
            known.SCORE_PSI.name: None if drift is None else round(drift, 4),
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
        """Report what was held back, and save everything."""
        self._pipeline.close()
        self._archiving.close()
        self._history.close()
