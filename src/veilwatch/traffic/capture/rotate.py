"""A capture as a row of files, each of which appears whole."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from veilwatch.closing import Output
from veilwatch.errors import OutputError
from veilwatch.traffic.capture.blocks import Direction, Interface
from veilwatch.traffic.capture.clock import NS
from veilwatch.traffic.capture.writer import CaptureWriter

MAX_ROTATIONS: Final = 100_000
"""Most files that one capture is cut into: a packet time that jumps to and fro in a hostile
capture could begin a file with each packet, and folders with more files serve nobody."""


_OVERHEAD: Final = 64
"""Bytes that a packet's block takes beside frame and comment, at most."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """When the next file begins. All zero: never.

    Attributes
    ----------
    max_bytes
        A file ends before the packet that would make it longer, but for the blocks that describe
        interfaces; 0 for any length.
    seconds
        A file ends at each multiple of this many seconds of packet time since the epoch;
        0 for never.
    keep
        Finished files to keep of this capture, the oldest are removed; 0 for all.
    """

    max_bytes: int = 0
    seconds: int = 0
    keep: int = 0

    def __post_init__(self) -> None:
        if min(self.max_bytes, self.seconds, self.keep) < 0:
            raise ValueError("a rotation cannot be negative")

    def __bool__(self) -> bool:
        return self.max_bytes > 0 or self.seconds > 0


class RotatingWriter(Output):
    """Write packets into one file after the other.

    The files are named after `path`, with a number and the UTC time of their first packet:
    `n3_00001_20231114T221320Z.pcapng`. The one in progress is a hidden neighbour, which is
    flushed with each second of packet time; without packets there is no file. Only files that
    this writer has finished are ever removed.

    Parameters
    ----------
    path
        Names the folder, the beginning of the names and their suffix.
    start
        Makes the writer of a file.
    rotation
        When the next file begins.

    Attributes
    ----------
    finished
        Path and packets of each file that stands there whole.

    Raises
    ------
    OutputError
        If a file cannot be written, or there would be more than `MAX_ROTATIONS`. Those that
        were finished stay.
    """

    def __init__(
        self, path: Path, start: Callable[[Path], CaptureWriter], rotation: Rotation
    ) -> None:
        self.finished: deque[tuple[Path, int]] = deque()
        self._path = path
        self._start = start
        self._rotation = rotation
        self._writer: CaptureWriter | None = None
        self._begun = 0
        self._slot = 0
        self._second = 0

    def write(
        self,
        ts_ns: int,
        frame: bytes | memoryview,
        length: int | None = None,
        comment: str = "",
        *,
        interface: Interface | None = None,
        direction: Direction = Direction.UNKNOWN,
    ) -> None:
        """Write one packet; see `CaptureWriter.write`."""
        writer = self._writer
        if writer is None or self._is_full(writer, ts_ns, frame, comment):
            writer = self._next(ts_ns)
        elif ts_ns // NS != self._second:
            writer.flush()
        self._second = ts_ns // NS
        writer.write(ts_ns, frame, length, comment, interface=interface, direction=direction)

    def statistics(self, interface: Interface | None, *, received: int, dropped: int) -> None:
        """Say what an interface counted, in the file in progress."""
        if self._writer is not None:
            self._writer.statistics(interface, received=received, dropped=dropped)

    def flush(self) -> None:
        """Hand what was written to the system."""
        if self._writer is not None:
            self._writer.flush()

    def suspend(self) -> None:
        """Release the descriptor of the file in progress until the next write."""
        if self._writer is not None:
            self._writer.suspend()

    def close(self) -> None:
        """Finish the file in progress."""
        if self._writer is None:
            return
        self._writer.close()  # still known while it is put on disk: Ctrl-C comes most likely then
        self.finished.append((self._writer.path, self._writer.packets))
        self._writer = None
        while 0 < self._rotation.keep < len(self.finished):
            with suppress(FileNotFoundError):  # somebody else has tidied up
                self.finished[0][0].unlink()
            self.finished.popleft()

    def abandon(self) -> None:
        """Remove the file in progress; those that were finished stay."""
        if self._writer is not None:
            self._writer.abandon()
            self._writer = None

    def _is_full(
        self, writer: CaptureWriter, ts_ns: int, frame: bytes | memoryview, comment: str
    ) -> bool:
        rotation = self._rotation
        if rotation.max_bytes and writer.packets:
            more = len(frame) + len(comment.encode()) + _OVERHEAD
            if writer.size + more > rotation.max_bytes:
                return True
        if not rotation.seconds:
            return False
        # A packet that is a little late stays with its neighbours; a clock that was set back
        # by more than a file does not.
        slot = ts_ns // (rotation.seconds * NS)
        return slot > self._slot or slot < self._slot - 1

    def _next(self, ts_ns: int) -> CaptureWriter:
        self.close()
        if self._begun == MAX_ROTATIONS:
            raise OutputError(
                f"more than {MAX_ROTATIONS:,} files of one capture",
                where=self._path,
                hint="rotate less often",
            )
        self._begun += 1
        if self._rotation.seconds:
            self._slot = ts_ns // (self._rotation.seconds * NS)
        when = datetime.fromtimestamp(ts_ns // NS, UTC).strftime("%Y%m%dT%H%M%SZ")
        name = f"{self._path.stem}_{self._begun:05}_{when}{self._path.suffix}"
        self._writer = self._start(self._path.with_name(name))
        return self._writer
