"""A parent that keeps child processes running, and says what was lost when one was not.

Children are spawned and not forked: the threads of Numba and Polars do not survive a fork. The
parent itself does no work that could fail.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any, Final

from veilwatch.errors import VeilwatchError, described
from veilwatch.sensor.heartbeat import join_status, split_status
from veilwatch.traffic.capture.live.privileges import end_with_parent

FIRST_BACKOFF_S: Final = 0.1
"""Pause before a child that died is started again: a crash costs as little traffic as can be."""

LONGEST_BACKOFF_S: Final = 30.0
"""Longest such pause; each doubles the one before, so that a child that cannot start does not eat
the processor."""

SETTLED_S: Final = 60.0
"""A child that ran for so long begins with the first pause again."""

LOOK_S: Final = 0.25
"""How often the parent looks at the clock; a death is noticed at once."""

BEAT_S: Final = 0.25
"""How often a child says that it is alive, at most."""

BUSY_BEAT_S: Final = 1.0
"""How often a child that is busy says that it is alive."""

BUSY_S: Final = 120.0
"""How long a child may be busy with one thing (`Heart.busy`) until it is taken to hang."""

MAX_EVENTS: Final = 1000
"""Events remembered."""


class ChildEventKind(StrEnum):
    """What happened to a child."""

    STARTED = "started"
    DIED = "died"
    HUNG = "hung"  # no heartbeat: it was killed
    LATE = "late"  # it did not end in time: it was killed
    ENDED = "ended"  # as it was told to, or because its work is done


@dataclass(frozen=True, slots=True)
class ChildEvent:
    """Something that happened to a child.

    Attributes
    ----------
    at_s
        When, seconds since the epoch.
    child
        Name of the child.
    what
        What happened.
    pid
        Its process.
    exit_code
        As `multiprocessing` gives it: negative for a signal; None while it runs.
    up_s
        How long it had run, s.
    lost
        What went with it, in words; empty where nothing did.
    status
        What it had last said of itself.
    """

    at_s: float
    child: str
    what: ChildEventKind
    pid: int
    exit_code: int | None = None
    up_s: float = 0.0
    lost: str = ""
    status: dict[str, Any] = field(default_factory=dict)


class Heart:
    """What a child has of its parent: it is told to end or to reload, and says that it is alive."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        os.set_blocking(pipe.fileno(), False)
        self._said_s = 0.0
        self._on_stop: list[Callable[[], None]] = []
        self._reload = False
        self._sending = threading.Lock()
        self._busy_until_s = 0.0
        self._busy_thread: threading.Thread | None = None
        self._thread_fault = ""
        self.stopping = False
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to heed
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGHUP, self._heed_reload)
        threading.excepthook = self._thread_died
        self.settled()

    def settled(self) -> None:
        """Have the child end with its parent; to be called again after a change of user."""
        end_with_parent(signal.SIGTERM)

    def on_stop(self, action: Callable[[], None]) -> None:
        """Have something done at once when the child is told to end.

        It is done by the signal's handler, amid whatever the child does: it may set a flag and must
        not take a lock, which that may be holding (`threading.Event` has one).
        """
        self._on_stop.append(action)

    def take_reload(self) -> bool:
        """Return whether the child was told to reload since the last call."""
        told, self._reload = self._reload, False
        return told

    def beat(self, status: Callable[[], dict[str, Any]] = dict) -> None:
        """Say that the child is alive and how it does; at most every `BEAT_S`, never waiting.

        Raises
        ------
        VeilwatchError
            If a thread of this process has died of what nobody expected: its work would wait for
            ever, so the process ends with a line that says so, and is started again.
        """
        if self._thread_fault:
            raise VeilwatchError(self._thread_fault, hint="the process is started again")
        now = time.monotonic()
        if now - self._said_s < BEAT_S:
            return
        self._said_s = now
        self.say(status())

    def say(self, status: dict[str, Any]) -> None:
        """Say it now, in as many messages as it takes."""
        # A parent that does not read, or is gone, is no reason to stop working.
        with self._sending, suppress(OSError):
            for message in split_status(status):
                self._pipe.send_bytes(message)

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Be alive for `BUSY_S` without `beat`: within is one thing that may take long."""
        if self._busy_thread is None:
            self._busy_thread = threading.Thread(target=self._beat_busy, name="beat", daemon=True)
            self._busy_thread.start()
        self._busy_until_s = time.monotonic() + BUSY_S
        try:
            yield
        finally:
            self._busy_until_s = 0.0

    def _beat_busy(self) -> None:
        while True:
            time.sleep(BUSY_BEAT_S)
            if time.monotonic() < self._busy_until_s:
                self.say({})

    def _thread_died(self, fault: threading.ExceptHookArgs) -> None:
        name = fault.thread.name if fault.thread else "?"
        self._thread_fault = f"thread {name} died: {described(fault.exc_value)}"

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopping = True
        for action in self._on_stop:
            action()

    def _heed_reload(self, number: int, frame: FrameType | None) -> None:
        self._reload = True


Target = Callable[..., None]
"""A function of some module, called in the child with its `Heart` and the child's arguments. It
returns when its work is done or `Heart.stopping` is set, and calls `Heart.beat` all the while. What
it raises ends the child; the line of a `VeilwatchError` becomes its status `error`."""


@dataclass(frozen=True, slots=True)
class Child:
    """A process to keep running.

    Attributes
    ----------
    name
        What it is called.
    target
        What it does; see `Target`.
    arguments
        For the target: plain data, as they are sent to another process.
    loses
        What goes with it when it dies, in words, with the names of its status in braces, as in
        "{live_flows} flows that were alive".
    flush_s
        How long it may take to end when it is told to, s.
    hang_s
        Without a heartbeat for so long it is taken to hang, and killed.
    start_s
        How long its first heartbeat may take: kernels and models are loaded.
    endless
        Whether its work is never done: one that ended because a stranger told it to, such as who
        makes room in memory, is started again.
    """

    name: str
    target: Target
    arguments: tuple[Any, ...] = ()
    loses: str = ""
    flush_s: float = 10.0
    hang_s: float = 10.0
    start_s: float = 120.0
    endless: bool = False


def _run(target: Target, pipe: Connection, arguments: tuple[Any, ...]) -> None:
    heart = Heart(pipe)
    try:
        target(heart, *arguments)
    except VeilwatchError as error:
        heart.say({"error": str(error)})
        raise SystemExit(1) from None
    except Exception as error:  # a fault of ours: one line for the log, with where it was
        heart.say({"error": f"unexpected {described(error)}"})
        raise SystemExit(1) from None


def check_threads(alive: Mapping[str, bool]) -> None:
    """Refuse to go on beside a thread that has ended: its work would wait for ever.

    Raises
    ------
    VeilwatchError
        If one has.
    """
    dead = [name for name, lives in alive.items() if not lives]
    if dead:
        raise VeilwatchError(
            f"a thread has ended: {', '.join(dead)}", hint="the process is started again"
        )


class _Kept:
    """A child and its process."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.process: BaseProcess | None = None
        self.pipe: Connection | None = None
        self.began_s = self.heard_s = 0.0
        self.heard = False
        self.again_s: float | None = 0.0
        self.backoff_s = FIRST_BACKOFF_S
        self.status: dict[str, Any] = {}
        self.starts = 0

    def start(self) -> None:
        context = multiprocessing.get_context("spawn")
        pipe, far_end = context.Pipe(duplex=False)
        process = context.Process(
            target=_run,
            args=(self.child.target, far_end, self.child.arguments),
            name=self.child.name,
            daemon=False,
        )
        process.start()
        far_end.close()
        self.process, self.pipe = process, pipe
        self.began_s = self.heard_s = time.monotonic()
        self.heard, self.again_s, self.status = False, None, {}
        self.starts += 1

    def listen(self) -> None:
        """Take the heartbeats that have come."""
        assert self.pipe is not None
        with suppress(EOFError, OSError):
            while self.pipe.poll():
                said = json.loads(self.pipe.recv_bytes(1 << 16))
                self.heard_s, self.heard = time.monotonic(), True
                if isinstance(said, dict):
                    join_status(self.status, said)

    def is_hung(self, now: float) -> bool:
        limit = self.child.hang_s if self.heard else self.child.start_s
        return now - self.heard_s > limit

    def lost(self) -> str:
        values: dict[str, Any] = Counter()
        values.update(self.status)
        try:
            return self.child.loses.format_map(values)
        except (LookupError, ValueError, TypeError):
            return self.child.loses


class Supervisor:
    """Start children, start those again that die or hang, and end them in their order.

    Parameters
    ----------
    children
        In the order in which they are ended: who brings traffic first, who takes it last, so that
        what is on its way arrives. They are started the other way round.
    tell
        Called with each event as it happens.

    Attributes
    ----------
    events
        The latest events, at most `MAX_EVENTS`.
    """

    def __init__(
        self, children: Sequence[Child], tell: Callable[[ChildEvent], None] = lambda event: None
    ) -> None:
        if len({child.name for child in children}) != len(children):
            raise ValueError("children need different names")
        self._kept = [_Kept(child) for child in children]
        self._tell = tell
        self._stopping = self._reloading = False
        self._wake, self._waker = socket.socketpair()
        for end in (self._wake, self._waker):
            end.setblocking(False)
        self.events: deque[ChildEvent] = deque(maxlen=MAX_EVENTS)

    @property
    def stopping(self) -> bool:
        """Whether the children are being ended."""
        return self._stopping

    @property
    def status(self) -> dict[str, dict[str, Any]]:
        """What each child last said of itself, with `pid`, `heard`, `up_s` and `restarts`."""
        now = time.monotonic()
        return {
            kept.child.name: kept.status
            | {
                "pid": kept.process.pid if kept.process else None,
                "heard": kept.heard and kept.process is not None,
                "up_s": round(now - kept.began_s, 1) if kept.process else 0.0,
                "restarts": max(0, kept.starts - 1),
            }
            for kept in self._kept
        }

    def stop(self) -> None:
        """Have `run` end the children and return; may be called by a signal."""
        self._stopping = True
        self._rouse()

    def reload(self) -> None:
        """Have every child reload (SIGHUP); may be called by a signal."""
        self._reloading = True
        self._rouse()

    def heed_signals(self) -> None:
        """Stop on SIGTERM and Ctrl-C, reload on SIGHUP."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stop())
        signal.signal(signal.SIGHUP, lambda *_: self.reload())

    def run(self, look: Callable[[], None] = lambda: None) -> None:
        """Keep the children running until `stop`, or until all have done their work.

        To be called in a thread that outlives it, the main one best: the kernel ends children with
        the thread that started them.

        Parameters
        ----------
        look
            Called about four times a second: for those who publish the status or feed a watchdog.
        """
        try:
            while not self._stopping and any(
                kept.process is not None or kept.again_s is not None for kept in self._kept
            ):
                self._start_due()
                self._wait(LOOK_S)
                self._look()
                if self._reloading:
                    self._reloading = False
                    for kept in self._kept:
                        self._signal(kept, signal.SIGHUP)
                look()
        finally:
            self._end_all(look)

    def _rouse(self) -> None:
        with suppress(OSError):
            self._waker.send(b"!")

    def _start_due(self) -> None:
        now = time.monotonic()
        for kept in reversed(self._kept):
            if kept.process is None and kept.again_s is not None and now >= kept.again_s:
                kept.start()
                self._note(kept, ChildEventKind.STARTED)

    def _wait(self, timeout_s: float) -> None:
        running = [kept for kept in self._kept if kept.process is not None]
        due = [kept.again_s for kept in self._kept if kept.again_s is not None]
        left = min([timeout_s, *(max(0.0, at - time.monotonic()) for at in due)])
        objects: list[Any] = [self._wake]
        objects += [kept.process.sentinel for kept in running if kept.process]
        wait(objects, left)
        with suppress(OSError):
            self._wake.recv(4096)

    def _look(self) -> None:
        now = time.monotonic()
        for kept in self._kept:
            if kept.process is None:
                continue
            kept.listen()
            if not kept.process.is_alive():
                done = kept.process.exitcode == 0 and not kept.child.endless
                self._gone(kept, ChildEventKind.ENDED if done else ChildEventKind.DIED)
            elif kept.is_hung(now):
                kept.process.kill()
                kept.process.join()
                self._gone(kept, ChildEventKind.HUNG)

    def _gone(self, kept: _Kept, what: ChildEventKind) -> None:
        """Note that a child is gone, and when it is to be started again."""
        assert kept.process is not None and kept.pipe is not None
        kept.process.join()
        kept.listen()  # what it said last
        up_s = time.monotonic() - kept.began_s
        self._note(kept, what, up_s, "" if what is ChildEventKind.ENDED else kept.lost())
        kept.pipe.close()
        kept.process.close()
        kept.process = None
        if what is ChildEventKind.ENDED or self._stopping:
            kept.again_s = None
            return
        if up_s >= SETTLED_S:
            kept.backoff_s = FIRST_BACKOFF_S
        kept.again_s = time.monotonic() + kept.backoff_s
        kept.backoff_s = min(2 * kept.backoff_s, LONGEST_BACKOFF_S)

    def _note(self, kept: _Kept, what: ChildEventKind, up_s: float = 0.0, lost: str = "") -> None:
        process = kept.process
        assert process is not None
        event = ChildEvent(
            at_s=time.time(),
            child=kept.child.name,
            what=what,
            pid=process.pid or 0,
            exit_code=process.exitcode,
            up_s=up_s,
            lost=lost,
            status=dict(kept.status),
        )
        self.events.append(event)
        self._tell(event)

    def _signal(self, kept: _Kept, number: int) -> None:
        if kept.process is not None and kept.process.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(kept.process.pid, number)

    def _end_all(self, look: Callable[[], None]) -> None:
        """End the children one after the other, each within its time, and go on looking."""
        self._stopping = True
        for kept in self._kept:
            kept.again_s = None
            if kept.process is None:
                continue
            self._signal(kept, signal.SIGTERM)
            deadline = time.monotonic() + kept.child.flush_s
            while kept.process.is_alive() and time.monotonic() < deadline:
                wait([kept.process.sentinel], max(0.0, min(LOOK_S, deadline - time.monotonic())))
                kept.listen()
                look()
            if kept.process.is_alive():
                kept.process.kill()
                kept.process.join()
                self._gone(kept, ChildEventKind.LATE)
            else:
                # One that was still starting knows no better than to die of the signal.
                told = kept.process.exitcode in (0, -signal.SIGTERM)
                self._gone(kept, ChildEventKind.ENDED if told else ChildEventKind.DIED)
            # Those that end later are told what this one said last.
            look()
        self._wake.close()
        self._waker.close()
