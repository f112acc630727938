"""The capture side of the sensor: an interface or a folder in, flow tables out to the scorer.

Packets are never kept waiting: tables go to a bounded outbox, and what does not fit is dropped
there and counted (`veilwatch.sensor.link`).
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from veilwatch.errors import CaptureError
from veilwatch.schema import counters as known
from veilwatch.schema.packets import RawBlock, Status
from veilwatch.schema.text import file_name
from veilwatch.sensor.folder import SETTLE_S, FolderStream
from veilwatch.sensor.link import MAX_WAITING, Kind, Outbox, Sender
from veilwatch.sensor.memory_monitor import Level, MemoryMonitor
from veilwatch.sensor.supervise import Heart, check_threads
from veilwatch.traffic.capture.live import Group, LiveCapture, LiveSettings, open_taps
from veilwatch.traffic.capture.live.interface import is_up
from veilwatch.traffic.flow import InterimPoints, MeterConfig
from veilwatch.traffic.pipeline import FlowReader, settle
from veilwatch.traffic.pipeline.extract import LIVE_S
from veilwatch.traffic.pipeline.warm import load_kernels
from veilwatch.traffic.pipeline.workers import FLOW_IDS
from veilwatch.traffic.subscriber import KeyRing

IDS_A_SECOND: Final = 1 << 16
"""Flow ids set aside for each second since 1970: a process that is started anew goes on with ids
that none before it gave, as long as no run makes more than 65,536 flows a second on average."""

FLUSH_S: Final = 8.0
"""How long the tables that wait are still sent after the process was told to end."""

LOSES: Final = (
    "packets from its death until it listens again; {live_flows} flows that were alive, whose "
    "later packets begin new flows; {waiting_rows} rows that were not sent yet"
)
"""What goes with this process when it dies, for `Child.loses`."""


@dataclass(frozen=True, slots=True)
class InterfaceSource:
    """A network interface, or one process's share of it.

    Attributes
    ----------
    interface
        Its name.
    settings
        How to capture.
    user
        Whom to become once it is open; None to stay who we are.
    place
        What the column `source` of its flows says: the interface, whichever process
        saw them. Hosts are those of the sensor: inputs that are read together are one place.
    group
        Shares the packets among several processes; None for one process alone.
    """

    interface: str
    settings: LiveSettings = LiveSettings()  # noqa: RUF009 (frozen)
    user: str | None = None
    place: int = 0
    group: Group | None = None


@dataclass(frozen=True, slots=True)
class FolderSource:
    """A folder into which captures are written; see `veilwatch.sensor.folder.FolderStream`."""

    folder: Path
    read_log: Path
    settle_s: float = SETTLE_S
    quiet_s: float = math.inf


@dataclass(frozen=True, slots=True)
class IngestJob:
    """What an ingest process is to do; plain data that is sent to it.

    Attributes
    ----------
    source
        Where packets come from.
    number
        Which ingest process of the sensor it is, from 0 on: ids of its flows tell it from others.
    socket
        Where the scorer listens.
    config, early, gtp_ports, subscriber_keys
        As for `FlowReader`.
    interval_s
        See `FlowReader.live_tables`.
    max_waiting
        Rows that may wait for the scorer.
    spare_memory_mb
        See `veilwatch.sensor.memory_monitor.MemoryMonitor`.
    """

    source: InterfaceSource | FolderSource
    socket: Path
    number: int = 0
    config: MeterConfig = MeterConfig()  # noqa: RUF009 (frozen)
    early: InterimPoints | None = InterimPoints()  # noqa: RUF009 (frozen)
    gtp_ports: tuple[int, ...] = ()
    subscriber_keys: KeyRing | None = None
    interval_s: float = LIVE_S
    max_waiting: int = MAX_WAITING
    spare_memory_mb: int = 0


def first_flow_id(number: int, now_s: float) -> int:
    """Return where a run that starts now begins to count its flows."""
    return number * FLOW_IDS + int(now_s) * IDS_A_SECOND % FLOW_IDS + 1


def ingest(heart: Heart, job: IngestJob) -> None:
    """Read until told to end, then end the live flows and send what waits; a `Target`."""
    outbox = Outbox(job.max_waiting)
    monitor = MemoryMonitor(job.spare_memory_mb)
    sender = Sender(outbox, job.socket, secrets.randbits(63) + 1)
    stream = _open(job, heart)
    heart.on_stop(stream.stop)
    beating = _Beating(stream, heart)
    rows = {Kind.EARLY: 0, Kind.ENDED: 0}
    with FlowReader(
        beating,
        config=job.config,
        gtp_ports=job.gtp_ports,
        subscriber_keys=job.subscriber_keys,
        first_flow_id=first_flow_id(job.number, time.time()),
        early=job.early,
    ) as reader:

        def status() -> dict[str, Any]:
            return _status(reader, outbox, sender, rows) | {
                "away": isinstance(stream, LiveCapture) and stream.is_away
            }

        beating.status = status
        sender.start()
        for live in reader.live_tables(job.interval_s):
            heart.beat(status)
            check_threads({"sender": sender.is_alive})
            kind = Kind.EARLY if live.early else Kind.ENDED
            if live.early and monitor.level() is Level.SHORT:
                outbox.dropped["early"] += len(live.table)
            else:
                outbox.offer(kind, live.table, live.now_ns)
            rows[kind] += len(live.table)
        unsent = sender.finish(FLUSH_S)
        heart.say(status() | {"unsent_rows": unsent})
        fault = next((file.fault for file in reader.captures.files if file.live and file.fault), "")
    if fault and not heart.stopping:
        raise CaptureError(fault, hint="the process is started again")


def _open(job: IngestJob, heart: Heart) -> LiveCapture | FolderStream:
    source = job.source
    progress = _Notes(heart)
    if isinstance(source, FolderSource):
        load_kernels()
        return FolderStream(
            source.folder,
            source.read_log,
            settle_s=source.settle_s,
            quiet_s=source.quiet_s,
            progress=progress,
        )
    while True:
        try:
            (tap,) = open_taps(
                source.interface, source.settings, gtp_ports=job.gtp_ports, group=source.group
            )
            break
        except CaptureError:
            # At boot an interface may come later than we do; another fault stays one.
            if heart.stopping or not _may_come(source):
                raise
            heart.beat()
            time.sleep(0.2)
    # The ring fills while kernels are loaded. That is done before anything is said: where they
    # have to be compiled first it takes a minute, and whoever has been heard once may be silent
    # for seconds only.
    tap.listen()
    load_kernels()
    settle(source.user)
    heart.settled()
    return LiveCapture(tap, source=source.place, progress=progress)


def _may_come(source: InterfaceSource) -> bool:
    if not Path("/sys/class/net", source.interface).exists():
        return True
    return source.group is not None and not is_up(source.interface)  # nobody joins it then


def _status(
    reader: FlowReader, outbox: Outbox, sender: Sender, rows: dict[Kind, int]
) -> dict[str, Any]:
    """Say how the process does, in numbers that fit a heartbeat."""
    report = reader.captures
    live = [file.live for file in report.files if file.live]
    balance = reader.balance
    counted = {
        known.PACKETS: report.packets,
        known.PACKETS_FROM_FILES: 0 if live else report.packets,
        known.DECODED: balance[Status.OK.name],
        known.KERNEL_DROPPED: sum(one.dropped for one in live),
        known.INTERRUPTIONS: sum(one.interruptions for one in live),
        known.LIVE_FLOWS: reader.meter.live,
        known.ROWS_EARLY: rows[Kind.EARLY],
        known.ROWS_ENDED: rows[Kind.ENDED],
        known.WAITING_ROWS: outbox.rows,
        known.SENT_ROWS: sender.sent_rows,
        known.CONNECTIONS: sender.connections,
        known.DROPPED: dict(outbox.dropped),
        known.REFUSED: {
            status.name: balance[status.name]
            for status in Status
            if status is not Status.OK and balance[status.name]
        },
    }
    return known.to_status(counted) | reader.metering


class _Beating:
    """A stream that says with each block that its reader is alive."""

    def __init__(self, stream: LiveCapture | FolderStream, heart: Heart) -> None:
        self._stream = stream
        self._heart = heart
        self.report = stream.report
        self.status: Callable[[], dict[str, Any]] = dict

    def __iter__(self) -> Iterator[RawBlock]:
        for block in self._stream:
            self._heart.beat(self.status)
            yield block

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()


class _Notes:
    """Pass on what a source says, as a part of the status."""

    def __init__(self, heart: Heart) -> None:
        self._heart = heart

    def start(self, task: str, total: float | None = None) -> None:
        """Say what begins."""
        self._heart.say({"note": file_name(task)})

    def advance(self, amount: float = 1.0) -> None:
        """Say nothing."""

    def note(self, message: str) -> None:
        """Say what happened."""
        self._heart.say({"note": file_name(message[:500])})
