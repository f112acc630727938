"""Several processes that share one interface, as one reader of flow tables.

Each has its own socket of a fanout group, its own meter, and its own range of flow ids. They are
spawned and not forked: the threads of Numba and Polars do not survive a fork. What they find
comes through pipes as Arrow, what they say as JSON.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Final

import polars as pl

from veilwatch.closing import Closeable
from veilwatch.errors import CaptureError, VeilwatchError
from veilwatch.progress import SILENT, Progress
from veilwatch.schema.captures import CaptureReport, FileReport, LiveReport
from veilwatch.schema.flows import FlowTable
from veilwatch.schema.sessions import SubscriberReport
from veilwatch.traffic.capture.live import MAX_WORKERS, LiveCapture, Tap
from veilwatch.traffic.capture.live.privileges import end_with_parent
from veilwatch.traffic.flow import MeterConfig
from veilwatch.traffic.pipeline.extract import FlowReader
from veilwatch.traffic.pipeline.warm import settle
from veilwatch.traffic.subscriber import KeyRing

FLOW_IDS: Final = (1 << 53) // MAX_WORKERS
"""Flow ids of each worker: two years of a million flows a second, and all of them below 2^53, so
that a reader which keeps numbers as floats tells them apart."""

END_S: Final = 10.0
"""How long a worker may take to end after its report before it is killed."""

# First byte of a message of a worker.
_READY: Final = b"A"  # also the parent's answer: begin
_LISTENING: Final = b"L"
_TABLE: Final = b"T"
_NOTE: Final = b"N"
_ERROR: Final = b"E"
_REPORT: Final = b"R"


@dataclass(frozen=True, slots=True)
class _Job:
    """What a worker is to do; sent to it when it is spawned."""

    tap: Tap
    number: int
    name: str
    config: MeterConfig
    gtp_ports: tuple[int, ...]
    subscriber_keys: KeyRing | None
    duration_s: float | None
    user: str | None


class ParallelReader(Closeable):
    """Iterate over the flow tables of an interface that several processes read.

    It has the shape of a `FlowReader`. Packets are taken once all workers are ready.

    Parameters
    ----------
    taps
        Sockets of one fanout group, a worker for each; ours from now on.
    config, gtp_ports, subscriber_keys
        As for `FlowReader`.
    duration_s
        How long to listen, s; None until `stop`.
    user
        Whom the workers become; None to stay who they are.
    progress
        Told what becomes of the interface.

    Attributes
    ----------
    captures
        A file for each worker, complete after the last table.
    balance
        What became of every packet read; see `veilwatch.traffic.decode.Decoder.balance`.
    metering
        What the meters counted beside flows; see `veilwatch.traffic.flow.FlowMeter.counters`.
    subscribers
        Sessions and subscribers that the workers saw. Control traffic reaches one of them by its
        own end points, so that the others learn subscribers from tunnels alone.

    Raises
    ------
    VeilwatchError
        If a worker cannot start.
    """

    def __init__(
        self,
        taps: Sequence[Tap],
        *,
        config: MeterConfig = MeterConfig(),  # noqa: B008 (frozen)
        gtp_ports: Sequence[int] = (),
        subscriber_keys: KeyRing | None = None,
        duration_s: float | None = None,
        user: str | None = None,
        progress: Progress = SILENT,
    ) -> None:
        self._progress = progress
        self._duration_s = duration_s
        self._interface = taps[0].interface
        self._reports: dict[int, FileReport] = {}
        self._balance: Counter[str] = Counter()
        self._metering: Counter[str] = Counter()
        self._subscribers: list[SubscriberReport] = []
        self._processes: list[BaseProcess] = []
        self._pipes: list[Connection] = []
        context = multiprocessing.get_context("spawn")
        # Ctrl-C goes to the whole group of processes: only this one heeds it, and tells the others.
        heeded = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            for number, tap in enumerate(taps):
                name = f"{tap.interface} ({number + 1} of {len(taps)})"
                job = _Job(
                    *(tap, number, name, config, tuple(gtp_ports)),
                    *(subscriber_keys, duration_s, user),
                )
                pipe, far_end = context.Pipe()
                process = context.Process(target=_work, args=(job, far_end), daemon=True)
                process.start()
                self._processes.append(process)
                self._pipes.append(pipe)
                far_end.close()
                tap.socket.close()
            for number in range(len(taps)):
                self._expect_ready(number)
        except BaseException:
            self.close()
            raise
        finally:
            signal.signal(signal.SIGINT, heeded)

    @property
    def captures(self) -> CaptureReport:
        """What the workers read."""
        return CaptureReport([self._reports[number] for number in sorted(self._reports)])

    @property
    def balance(self) -> dict[str, int]:
        """What became of every packet read."""
        return dict(self._balance)

    @property
    def metering(self) -> dict[str, int]:
        """What the meters counted beside flows."""
        return dict(self._metering)

    @property
    def subscribers(self) -> SubscriberReport:
        """Sessions and subscribers that the workers saw."""
        reports = self._subscribers
        return SubscriberReport(
            sessions=tuple(session for report in reports for session in report.sessions),
            counters=summed([report.counters for report in reports]),
            note=next((report.note for report in reports if report.note), ""),
        )

    def stop(self) -> None:
        """Have the workers end, after what has arrived; may be called by a signal."""
        for process in self._processes:
            with suppress(OSError, ValueError):
                process.terminate()

    def close(self) -> None:
        """End the workers; harmless when done twice."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            if process.is_alive():
                process.kill()
            process.join()

    def __iter__(self) -> Iterator[FlowTable]:
        for pipe in self._pipes:
            pipe.send_bytes(_READY)
        deaf = len(self._pipes)
        at_work: dict[object, int] = {pipe: number for number, pipe in enumerate(self._pipes)}
        while at_work:
            for answering in wait([self._pipes[number] for number in at_work.values()]):
                number = at_work[answering]
                kind, body = self._receive(number)
                if kind == _LISTENING:
                    deaf -= 1
                    if deaf == 0:
                        self._progress.start(f"Listening on {self._interface}", self._duration_s)
                elif kind == _TABLE:
                    yield FlowTable(pl.read_ipc_stream(io.BytesIO(body))).check()
                elif kind == _REPORT:
                    self._add(number, json.loads(body))
                    del at_work[answering]
                    self._processes[number].join(END_S)

    def _expect_ready(self, number: int) -> None:
        while self._receive(number)[0] != _READY:
            pass

    def _receive(self, number: int) -> tuple[bytes, bytes]:
        """Take one message; notes are passed on, errors raised."""
        try:
            message = self._pipes[number].recv_bytes()
        except (EOFError, OSError) as error:
            self._processes[number].join(END_S)
            raise CaptureError(
                f"worker {number + 1} died (exit code {self._processes[number].exitcode})",
                where=self._interface,
                hint="is there enough memory?",
            ) from error
        kind, body = message[:1], message[1:]
        if kind == _NOTE:
            self._progress.note(body.decode())
        elif kind == _ERROR:
            what, where, hint = json.loads(body)
            raise VeilwatchError(what, where=where, hint=hint)
        return kind, body

    def _add(self, number: int, found: dict[str, Any]) -> None:
        from pydantic import TypeAdapter  # here, because every verb imports this module

        live = LiveReport(**found["file"].pop("live"))
        self._reports[number] = FileReport(**found["file"], live=live)
        self._balance.update(found["balance"])
        self._metering.update(found["metering"])
        subscribers = TypeAdapter(SubscriberReport).validate_python(found["subscribers"])
        self._subscribers.append(subscribers)


class _Messages:
    """Pass on to the parent what a capture says; the first worker notes what all of them see."""

    def __init__(self, pipe: Connection, number: int) -> None:
        self._pipe = pipe
        self._number = number

    def start(self, task: str, total: float | None = None) -> None:
        self._pipe.send_bytes(_LISTENING)

    def advance(self, amount: float = 1.0) -> None:
        """Say nothing."""

    def note(self, message: str) -> None:
        if self._number == 0:
            self._pipe.send_bytes(_NOTE + message.encode())


def _work(job: _Job, pipe: Connection) -> None:
    """Read one socket until it is over; runs in a process of its own."""
    try:
        settle(job.user)
        end_with_parent(signal.SIGTERM)
        capture = LiveCapture(
            job.tap,
            name=job.name,
            source=job.number,
            duration_s=job.duration_s,
            progress=_Messages(pipe, job.number),
        )
        signal.signal(signal.SIGTERM, lambda *_: capture.stop())
        pipe.send_bytes(_READY)
        pipe.recv_bytes()
        _read(job, capture, pipe.send_bytes)
    except VeilwatchError as error:
        with suppress(OSError):
            pipe.send_bytes(_ERROR + json.dumps([error.what, error.where, error.hint]).encode())
    except (EOFError, BrokenPipeError):
        pass  # the parent is gone: nobody wants what we could say


def _read(job: _Job, capture: LiveCapture, send: Callable[[bytes], None]) -> None:
    with FlowReader(
        capture,
        config=job.config,
        gtp_ports=job.gtp_ports,
        subscriber_keys=job.subscriber_keys,
        first_flow_id=job.number * FLOW_IDS + 1,
    ) as reader:
        for table in reader:
            stream = io.BytesIO(_TABLE)
            stream.seek(len(_TABLE))
            table.frame.write_ipc_stream(stream)
            send(stream.getvalue())
        found = {
            "file": asdict(reader.captures.files[0]),
            "balance": reader.balance,
            "metering": reader.metering,
            "subscribers": asdict(reader.subscribers),
        }
    send(_REPORT + json.dumps(found).encode())


def summed(counts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Add up nested counts by name; lists are joined."""
    total: dict[str, Any] = {}
    for one in counts:
        for name, value in one.items():
            before = total.get(name)
            if before is None:
                total[name] = value
            elif isinstance(value, dict):
                total[name] = summed([before, value])
            else:
                total[name] = before + value
    return total
