"""A network interface as a stream of blocks."""

from __future__ import annotations

import errno
import select
import socket
import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from typing import Final

import numpy as np

from veilwatch.closing import Closeable
from veilwatch.errors import CaptureError
from veilwatch.progress import SILENT, Progress
from veilwatch.schema.captures import CaptureReport, FileReport, LiveReport
from veilwatch.schema.packets import RECORD_DTYPE, RawBlock
from veilwatch.traffic.capture.account import Account
from veilwatch.traffic.capture.live import bpf
from veilwatch.traffic.capture.live.interface import hardware_type, interface_index, is_up
from veilwatch.traffic.capture.live.link import link_type
from veilwatch.traffic.capture.live.options import RETIRE_MS, LiveSettings
from veilwatch.traffic.capture.live.receive import Receiver
from veilwatch.traffic.capture.live.ring import Ring
from veilwatch.traffic.capture.live.tap import Tap, open_taps

LAG_NS: Final = 2 * RETIRE_MS * 1_000_000
"""How far behind the clock a quiet moment is: a packet may wait `RETIRE_MS` in the kernel, whose
timers may be as late again."""

LOOK_S: Final = 1.0
"""How often the kernel's counters are read: they have 32 bits and must not wrap."""

SEARCH_S: Final = 0.1
"""How often an interface that went away is looked for."""

_GONE: Final = (errno.ENETDOWN, errno.ENXIO, errno.ENODEV)


class LiveCapture(Closeable):
    """Blocks of what an interface receives; iterate over it once.

    Made by `open_live`, or from a tap that another process opened. Begins to take packets when
    the first block is asked for. A block is valid until the next one is asked for. In quiet
    moments an empty block comes at least every 50 ms, whose `now_ns` says how late it is.

    Parameters
    ----------
    tap
        An open socket, ours from now on.
    name
        How reports call it; empty for the name of the interface.
    source
        Value for the records.
    duration_s
        How long to listen; None until `stop`.
    progress
        Told when it listens, when the interface comes and goes, and the seconds that pass.

    Attributes
    ----------
    report
        What was read so far; its only file has a `LiveReport`.
    """

    def __init__(
        self,
        tap: Tap,
        *,
        name: str = "",
        source: int = 0,
        duration_s: float | None = None,
        progress: Progress = SILENT,
    ) -> None:
        self._tap = tap
        self._progress = progress
        self._duration_s = duration_s
        settings = tap.settings
        self._receiver: Ring | Receiver = (
            Ring(tap.socket, tap.ring_bytes, source)
            if tap.ring_bytes
            else Receiver(tap.socket, settings.snaplen, settings.ring_mb, source)
        )
        self._live = LiveReport(
            ring_bytes=tap.ring_bytes, snaplen=settings.snaplen, warnings=list(tap.warnings)
        )
        self._file = FileReport(
            name or tap.interface, format="live", interfaces=[tap.link], live=self._live
        )
        self._books = Account(self._file)
        self.report = CaptureReport([self._file])
        self._stopping = False
        self._away = False
        self._poll = select.poll()
        self._poll.register(tap.socket, select.POLLIN)
        self._blocks = self._read()

    @property
    def is_away(self) -> bool:
        """Whether the interface is down or gone, and waited for."""
        return self._away

    def stop(self) -> None:
        """End the iteration within 200 ms, after what has arrived; may be called by a signal."""
        self._stopping = True

    def close(self) -> None:
        """Close the socket; harmless when done twice."""
        self._blocks.close()
        self._receiver.close()
        self._tap.socket.close()

    def __iter__(self) -> Iterator[RawBlock]:
        return self._blocks

    def _read(self) -> Generator[RawBlock, None, None]:
        for warning in self._live.warnings:
            self._progress.note(warning)
        self._tap.listen()
        self._progress.start(f"Listening on {self._file.name}", self._duration_s)
        began = looked = time.monotonic()
        while not self._stopping and not self._file.fault:
            asked_ns = time.time_ns()
            block = self._next()
            yield self._wait(asked_ns) if block is None else block
            now = time.monotonic()
            if self._duration_s is not None and now - began >= self._duration_s:
                break
            if now - looked >= (SEARCH_S if self._away else LOOK_S):
                self._count()
                if self._away:
                    self._search()
                self._progress.advance(now - looked)
                looked = now
        yield from self._drain()
        self._count()

    def _next(self) -> RawBlock | None:
        """Return the packets at hand, None if there are none."""
        try:
            block = self._receiver.next()
        except OSError as error:
            if error.errno not in _GONE:
                raise
            self._lose()
            return None
        except CaptureError as error:
            self._fail(error.what)
            return None
        if block is None:
            return None
        clocks = self._books.add(block.records)
        self._file.bytes += int(block.records["captured"].sum())
        return RawBlock(block.buffer, block.records, now_ns=int(clocks[-1]))

    def _wait(self, asked_ns: int) -> RawBlock:
        """Wait until packets come, `RETIRE_MS` at most; return an empty block with the time.

        Parameters
        ----------
        asked_ns
            When we found that there are none, ns since the epoch.
        """
        for _, event in self._poll.poll(RETIRE_MS):
            if event & select.POLLERR and self._tap.socket.getsockopt(
                socket.SOL_SOCKET, socket.SO_ERROR
            ):
                self._lose()
        return RawBlock(np.empty(0, np.uint8), np.empty(0, RECORD_DTYPE), now_ns=asked_ns - LAG_NS)

    def _drain(self) -> Iterator[RawBlock]:
        """Take nothing more from the interface and hand out what has arrived."""
        bpf.mute(self._tap.socket)
        until = time.monotonic() + self._receiver.settle_s
        while not self._file.fault:
            late = time.monotonic() >= until  # asked first: what came before is still handed out
            block = self._next()
            if block is not None:
                yield block
            elif late:
                return
            else:
                self._poll.poll(RETIRE_MS // 5)

    def _count(self) -> None:
        """Add the kernel's counters, which begin anew each time they are read."""
        seen, dropped, freezes = self._receiver.statistics()
        self._live.received += seen - dropped
        self._live.dropped += dropped
        self._live.freezes += freezes

    def _lose(self) -> None:
        """Note that the interface went away, or is not up yet."""
        if not self._away:
            self._away = True
            self._live.interruptions += 1
            self._progress.note(f"{self._tap.interface} is down: waiting for it")

    def _search(self) -> None:
        """Go on if the interface is back; bind anew if it is another one of that name."""
        tap = self._tap
        index = interface_index(tap.interface)
        if index is None:
            return
        if index != tap.index:
            if tap.grouped:
                self._fail("was made anew, which a group of workers cannot follow: start again")
                return
            with suppress(OSError):  # it may be gone again
                if link_type(hardware_type(tap.interface)) != tap.link:
                    self._fail("was made anew with frames of another kind: start again")
                    return
                tap.bind()
        if tap.index == index and is_up(tap.interface):
            self._away = False
            self._progress.note(f"{tap.interface} is up again")

    def _fail(self, fault: str) -> None:
        self._file.fault = fault
        self._progress.note(f"{self._file.name}: {fault}")


def open_live(
    interface: str,
    settings: LiveSettings = LiveSettings(),  # noqa: B008 (frozen)
    *,
    duration_s: float | None = None,
    progress: Progress = SILENT,
) -> LiveCapture:
    """Capture what an interface receives. Nothing is ever sent on it.

    Parameters
    ----------
    interface
        Name of a network interface, a mirror port most often.
    settings
        Ring, capture length, promiscuous mode.
    duration_s
        How long to listen, s; None until `LiveCapture.stop`.
    progress
        Told what becomes of the interface.

    Returns
    -------
    LiveCapture
        To be closed, or used in a `with` statement.

    Raises
    ------
    CaptureError
        If there is no such interface, its frames are of an unknown kind, or permission is
        missing.

    Examples
    --------
    >>> with open_live("eth1", duration_s=10) as capture:   # doctest: +SKIP
    ...     for block in capture:
    ...         print(len(block))
    """
    (tap,) = open_taps(interface, settings)
    return LiveCapture(tap, duration_s=duration_s, progress=progress)
