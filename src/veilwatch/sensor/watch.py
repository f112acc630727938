"""The sensor as a whole: which processes it has, and what the parent does beside keeping them."""

from __future__ import annotations

import json
import os
import pwd
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from veilwatch.errors import VeilwatchError
from veilwatch.sensor import ingest, settings
from veilwatch.sensor.clock import clock_cautions
from veilwatch.sensor.config import SensorConfig
from veilwatch.sensor.deliver import LOSES as DELIVER_LOSES
from veilwatch.sensor.deliver import deliver
from veilwatch.sensor.ingest import FolderSource, IngestJob, InterfaceSource
from veilwatch.sensor.judge import LOSES as JUDGE_LOSES
from veilwatch.sensor.judge import JudgeJob, judge
from veilwatch.sensor.logs import open_log
from veilwatch.sensor.notify import Notifier
from veilwatch.sensor.state import private_folder
from veilwatch.sensor.state_paths import StatePaths
from veilwatch.sensor.status_server import StatusServer
from veilwatch.sensor.supervise import Child, ChildEvent, ChildEventKind, Supervisor
from veilwatch.traffic.capture.live import Group
from veilwatch.traffic.subscriber import KeyRing

FLUSH_S: Final = {"ingest": 15.0, "judge": 20.0, "deliver": 45.0}
"""How long each kind of process may take to end: what is on its way is scored, told and sent. The
whole stays below the 90 s that systemd waits."""

COMPILING_S: Final = 600.0
"""How long a capturing process may take to its first heartbeat: without a cache it compiles, for a
minute on a machine that has nothing else to do."""

STATUS_S: Final = 1.0
"""How often the status is written."""

STALE_S: Final = 10.0
"""A parent that did not look after its children for so long is not healthy."""

CLOCK_S: Final = 2.0
"""Steps of the wall clock against the steady one that are logged."""

PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
TICKS: Final = os.sysconf("SC_CLK_TCK")


class Sensor:
    """A sensor that watches until told to end.

    Parameters
    ----------
    config
        Its configuration.
    keys
        Makes pseudonyms of subscribers.
    file, overrides
        Where the configuration came from, for SIGHUP.

    Raises
    ------
    VeilwatchError
        If something that it needs from the start is missing: the state folder, the model, the
        allow-list, the store, a sink's address, the port of the metrics.
    """

    def __init__(
        self,
        config: SensorConfig,
        keys: KeyRing,
        *,
        file: Path | None = None,
        overrides: tuple[str, ...] = (),
    ) -> None:
        self._config = config
        self._file, self._overrides = file, overrides
        self._paths = StatePaths(config)
        self._log = open_log(config.log)
        self._notifier = Notifier()
        self.run_name = datetime.now(UTC).isoformat(timespec="seconds")
        if private_folder(config.sensor.state):
            self._log.warning(
                "the state folder was open to others and is not any more",
                where=str(config.sensor.state),
            )
        for caution in clock_cautions(self._paths.written):
            self._log.warning(caution)
        self._supervisor = Supervisor(self._children(keys), self._tell)
        self._began_s = self._written_s = time.monotonic()
        self._clock_offset_s = time.time() - time.monotonic()
        self._notes: dict[str, Any] = {}
        self._up_s = 0.0
        self._looked_s = time.monotonic()
        self._status_fault = ""
        self._published = self.status()
        self._server = self._served()

    def run(self) -> None:
        """Watch until SIGTERM or Ctrl-C; SIGHUP reloads model, thresholds and policy.

        A second Ctrl-C changes nothing: what is on its way is saved, within `FLUSH_S`.
        """
        self._supervisor.heed_signals()
        self._log.info(
            "started",
            sensor=self._config.sensor.name,
            inputs=self._paths.inputs,
            metrics=f"port {self._server.port}",
            sinks=len(self._config.sinks.urls),
        )
        try:
            self._supervisor.run(self._look)
        finally:
            self._notifier.stopping()
            self._server.close()
            self._write_status()
            self._paths.socket.unlink(missing_ok=True)
            self._log.info("ended", sensor=self._config.sensor.name, left=self.left())

    def left(self) -> str:
        """Say what is left for the next start, once `run` has returned."""
        children = self._supervisor.status
        judge, deliver = children.get("judge", {}), children.get("deliver", {})
        unsent = sum(int(said.get("unsent_rows", 0)) for said in children.values())
        counts = [
            (int(deliver.get("pending_events", 0)), "event", "waiting for sinks"),
            (int(judge.get("incidents", 0)), "incident", "open"),
            (int(judge.get("backlog", 0)), "event", "lost, as nothing could be written"),
            (unsent, "row", "lost, as nobody scored them"),
        ]
        parts = [f"{n:,} {what}{'' if n == 1 else 's'} {how}" for n, what, how in counts if n]
        parts.append(f"everything else stored; it goes on from {self._config.sensor.state}")
        return "; ".join(parts)

    def status(self) -> dict[str, Any]:
        """Return what is known of the sensor, for the status file, metrics and probes."""
        children = self._supervisor.status
        for said in children.values():
            said |= usage(said.get("pid"))
        states = {child: self._state(child, said) for child, said in children.items()}
        healthy = all(state == "running" for state in states.values())
        waiting = [child for child, said in children.items() if not _is_ready(child, said)]
        packets = sum(int(said.get("packets", 0)) for said in children.values())
        return {
            "sensor": self._config.sensor.name,
            "run": self.run_name,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "up_s": round(self._up_s, 1),
            "healthy": healthy,
            "ready": healthy and not waiting,
            "waiting_for": waiting,
            "packets": packets,
            "states": states,
            "children": children,
        }

    def _latest(self) -> dict[str, Any]:
        """Return the status as it was last looked at; for other threads.

        Only the thread of the supervisor looks at processes: they may be gone while one looks.
        """
        status, now_s = self._published, time.monotonic()
        if now_s - self._looked_s > STALE_S:
            return status | {"healthy": False, "ready": False}
        return status

    def _state(self, child: str, said: dict[str, Any]) -> str:
        if said.get("pid") is None:
            return "not running"
        return "running" if said.get("heard") else "starting"

    def _children(self, keys: KeyRing) -> list[Child]:
        config, paths = self._config, self._paths
        common: dict[str, Any] = {
            "socket": paths.socket,
            "config": settings.meter(config),
            "early": settings.early(config),
            "gtp_ports": tuple(config.capture.gtp_ports),
            "subscriber_keys": keys,
            "spare_memory_mb": config.sensor.spare_memory_mb,
        }
        sources: list[InterfaceSource | FolderSource]
        if config.capture.folder is not None:
            sources = [
                FolderSource(config.capture.folder, paths.read_log, quiet_s=config.capture.quiet_s)
            ]
        else:
            live, workers = settings.live(config), config.capture.workers
            sources = []
            for place, name in enumerate(paths.inputs):
                group = Group.drawn() if workers > 1 else None
                source = InterfaceSource(name, live, config.capture.user, place, group)
                sources += [source] * workers
        readers = [
            Child(
                f"ingest-{number}",
                ingest.ingest,
                (IngestJob(source, number=number, **common),),
                loses=ingest.LOSES,
                flush_s=FLUSH_S["ingest"],
                start_s=COMPILING_S,
                endless=True,
            )
            for number, source in enumerate(sources)
        ]
        return [
            *readers,
            Child(
                "judge",
                judge,
                (JudgeJob(config, self.run_name, self._file, self._overrides),),
                JUDGE_LOSES,
                FLUSH_S["judge"],
                endless=True,
            ),
            Child(
                "deliver",
                deliver,
                (config, self.run_name),
                DELIVER_LOSES,
                FLUSH_S["deliver"],
                endless=True,
            ),
        ]

    def _tell(self, event: ChildEvent) -> None:
        bad = event.what in (ChildEventKind.DIED, ChildEventKind.HUNG, ChildEventKind.LATE)
        write = self._log.error if bad else self._log.info
        facts: dict[str, Any] = {"process": event.child, "pid": event.pid}
        if event.exit_code is not None:
            facts["exit_code"] = event.exit_code
        if event.lost:
            facts["lost"] = event.lost
        if event.status.get("error"):
            facts["error"] = event.status["error"]
        write(f"process {event.what.value}", **facts)

    def _look(self) -> None:
        """Called about four times a second by the supervisor."""
        now_s = time.monotonic()
        status = self._published = self.status()
        if status["healthy"]:
            self._up_s += now_s - self._looked_s
        if status["ready"]:
            self._notifier.ready()
        # The watchdog watches this loop: children are watched here, and a sensor whose store is
        # away is not helped by one that loses its live flows as well.
        self._notifier.alive()
        self._notifier.say(_sentence(status))
        self._looked_s = now_s
        self._check_clock()
        self._check_server()
        self._log_notes(status["children"])
        if now_s - self._written_s >= STATUS_S or self._supervisor.stopping:
            self._written_s = now_s
            self._write_status(status)

    def _check_server(self) -> None:
        """Answer again where the thread that does so has died: a supervisor takes us for dead."""
        if self._server.is_alive:
            return
        self._log.error("the thread that answers metrics has ended and is started again")
        self._server.close()
        with suppress(VeilwatchError):  # the port is taken for a moment: at the next look
            self._server = self._served()

    def _served(self) -> StatusServer:
        config = self._config
        token = settings.metrics_token(config)
        return StatusServer(config.metrics.listen, self._latest, token=token)

    def _check_clock(self) -> None:
        offset_s = time.time() - time.monotonic()
        step_s = offset_s - self._clock_offset_s
        if abs(step_s) >= CLOCK_S:
            self._clock_offset_s = offset_s
            self._log.warning("the clock was set", by_s=round(step_s, 1))

    def _log_notes(self, children: dict[str, dict[str, Any]]) -> None:
        """Log what children want people to know, each once."""
        for child, said in children.items():
            if said.get("note") and self._notes.get(child) != said["note"]:
                self._notes[child] = said["note"]
                self._log.info(said["note"], process=child)
            known = self._notes.setdefault(f"{child} notes", [])
            for note in said.get("notes", ()):
                if note not in known:
                    self._log.warning(note.partition(" ")[2], process=child)
            self._notes[f"{child} notes"] = list(said.get("notes", ()))

    def _write_status(self, status: dict[str, Any] | None = None) -> None:
        """Write the status beside its place and rename it; a full disk costs this one status.

        It is said once that it cannot be written, not every second.
        """
        path = self._paths.status
        fresh = path.with_name(f".{path.name}.new")
        try:
            fresh.write_text(json.dumps(status or self.status()) + "\n")
            fresh.replace(path)
        except OSError as error:
            fault = str(error.strerror or error)
            if fault != self._status_fault:
                self._log.warning(f"the status cannot be written: {fault}")
            self._status_fault = fault
        else:
            self._status_fault = ""


def _is_ready(child: str, said: dict[str, Any]) -> bool:
    """Whether a process does what it is there for: packets can be read, tables can be scored."""
    if not said.get("heard"):
        return False
    kind = child.split("-")[0]
    if kind == "ingest":
        return "packets" in said and not said.get("away")
    return kind != "judge" or "incidents" in said


def _sentence(status: dict[str, Any]) -> str:
    """Say in one line how it stands."""
    if status["waiting_for"]:
        return f"waiting for {', '.join(status['waiting_for'])}"
    incidents = status["children"].get("judge", {}).get("incidents", 0)
    return f"watching: {status['packets']:,} packets, {incidents:,} open incidents"


def usage(pid: int | None) -> dict[str, float]:
    """Return CPU seconds and resident bytes of a process, from /proc; nothing if it is gone."""
    if pid is None:
        return {}
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return {}
    # utime and stime are fields 14 and 15 of proc(5), rss is 24; the name and two more are cut off.
    return {
        "cpu_s": (int(fields[11]) + int(fields[12])) / TICKS,
        "rss": float(int(fields[21]) * PAGE_BYTES),
    }


def check_start(config: SensorConfig) -> None:
    """Refuse what would fail in a child: people read the first line, not a restart loop.

    Raises
    ------
    VeilwatchError
        If the model, its thresholds, the allow-list, the store or a sink's address is at fault.
    """
    from veilwatch.sensor.sitemodel import check_site_model
    from veilwatch.sinks.base import open_sink
    from veilwatch.sinks.spool import Spool
    from veilwatch.store import Store

    check_site_model(config)
    settings.policy(config)
    settings.metrics_token(config)
    seen = set()
    for url in config.sinks.urls:
        with open_sink(url) as sink:
            if sink.address.shown in seen:
                raise VeilwatchError("a sink is named twice", where=sink.address.shown)
            seen.add(sink.address.shown)
    Store(config.store_url).close()
    Spool(StatePaths(config).spool).close()
    if config.capture.folder is not None and not config.capture.folder.is_dir():
        raise VeilwatchError("no such folder", where=config.capture.folder)
    user = config.capture.user
    if user is not None and user != pwd.getpwuid(os.geteuid()).pw_name:
        raise VeilwatchError(
            f"the sensor cannot become {user}: its processes share the state folder",
            where="capture.user",
            hint=f"start it as {user} with CAP_NET_RAW, as deploy/veilwatch.service does",
        )
