"""The archive of flows: Parquet files by hour, the first to go when space runs out.

A file is there whole or not at all: it is written beside its place and renamed when its hour is
over or it is large enough. What a crash costs is the file that was open. A full disk never
raises: alerts matter more than the archive, so the oldest files go, the loss is counted, and
writing goes on as soon as there is room.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import polars as pl

from veilwatch.closing import Closeable
from veilwatch.errors import OutputError, VeilwatchError
from veilwatch.export.encoder import Encoder
from veilwatch.export.flow_writer import ENCODERS
from veilwatch.files import PendingFile, make_folder
from veilwatch.schema.units import DAY_NS, HOUR_NS

SUFFIX: Final = ".parquet"

KEPT_FREE: Final = 256 << 20
"""Bytes of the disk that the archive leaves to others, the store of alerts first among them."""

MAX_FILE_BYTES: Final = 256 << 20
"""Size from which a file is closed before its hour is over: a crash costs no more than that."""

MAX_PER_HOUR: Final = 9999
"""Most files of one hour, by the digits in their names."""

_NAME = re.compile(r"flows-(\d{8}T\d{2})Z-(\d{4})\.parquet")


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """How much is kept.

    Attributes
    ----------
    days
        Files that were recorded before are removed; None keeps them.
    max_bytes
        Size of all files together; the oldest are removed. None for no limit.
    file_bytes
        Size from which a file is closed before its hour is over.
    keep_free
        Bytes that are left free on the disk.
    """

    days: float | None = 30.0
    max_bytes: int | None = 50 << 30
    file_bytes: int = MAX_FILE_BYTES
    keep_free: int = KEPT_FREE


@dataclass(slots=True)
class ArchiveCounts:
    """What became of the flows.

    Attributes
    ----------
    flows_written
        In files that are in their place.
    flows_lost
        For which there was no room, or whose file could not be finished.
    files_written, files_expired, files_dropped
        Files put in their place, removed because of age or size, and removed because the disk
        was full.
    bytes_dropped
        What the dropped files took.
    last_fault
        What went wrong last, in words.
    """

    flows_written: int = 0
    flows_lost: int = 0
    files_written: int = 0
    files_expired: int = 0
    files_dropped: int = 0
    bytes_dropped: int = 0
    last_fault: str = ""


class FlowArchive(Closeable):
    """Write flow tables to files by hour, and remove the oldest.

    Parameters
    ----------
    folder
        Where the files are; one writer at a time.
    limits
        How much is kept.
    free_bytes
        Tells how many bytes of the disk are free; for tests.

    Attributes
    ----------
    counts
        What became of the flows since the start.

    Raises
    ------
    OutputError
        If the folder cannot be made.

    Examples
    --------
    >>> with FlowArchive(Path("flows"), ArchiveLimits()) as archive:  # doctest: +SKIP
    ...     archive.write(table.frame, now_ns)
    """

    def __init__(
        self,
        folder: Path,
        limits: ArchiveLimits,
        *,
        free_bytes: Callable[[Path], int] | None = None,
    ) -> None:
        if limits.file_bytes < 1 or limits.keep_free < 0:
            raise VeilwatchError("limits of an archive must be above 0", where=folder)
        self.folder = make_folder(folder)
        self._limits = limits
        self._free_bytes = free_bytes or _free_bytes
        self._open: _OpenFile | None = None
        self.counts = ArchiveCounts()
        for path in left_over(folder):
            path.unlink(missing_ok=True)

    def write(self, frame: pl.DataFrame, now_ns: int) -> None:
        """Append flows; never raises for want of space.

        Parameters
        ----------
        frame
            Rows of a flow table.
        now_ns
            Time of the traffic now: it names the file.
        """
        if not frame.height:
            return
        hour = now_ns // HOUR_NS
        current = self._open
        if current and (current.hour != hour or current.schema != frame.schema):
            self._finish()
        self._make_room()
        # A second try after the oldest file has gone; a third would find the same disk.
        for _ in range(2):
            try:
                if self._open is None:
                    self._open = _OpenFile(self._next_path(hour), hour, frame.schema)
                self._open.write(frame)
                break
            except OSError as error:
                self._give_up(str(error.strerror or error))
            except OutputError as error:
                self._give_up(error.what)
            if not self._drop_oldest():
                self.counts.flows_lost += frame.height
                return
        else:
            self.counts.flows_lost += frame.height
            return
        if self._open and self._open.size() >= self._limits.file_bytes:
            self._finish()

    def tick(self, now_ns: int) -> None:
        """Let time pass: close the file of an hour that is over, remove what is too old."""
        if self._open and self._open.hour != now_ns // HOUR_NS:
            self._finish()
        self._make_room()
        self._expire(now_ns)

    def close(self) -> None:
        """Put the open file in its place."""
        self._finish()

    def files(self) -> list[Path]:
        """Return the files that are in their place, the oldest first."""
        return files_of(self.folder)

    def bytes_used(self) -> int:
        """Return what the files take together."""
        return sum(_size(path) for path in self.files())

    def _finish(self) -> None:
        current, self._open = self._open, None
        if current is None:
            return
        try:
            current.commit()
        except (OSError, OutputError) as error:
            # What the file held cannot be written again: it was handed over long ago.
            self._open = current
            self._give_up(error.what if isinstance(error, OutputError) else str(error))
            self._drop_oldest()
        else:
            self.counts.flows_written += current.flows
            self.counts.files_written += 1

    def _give_up(self, fault: str) -> None:
        """Count the open file as lost."""
        self.counts.last_fault = fault
        current, self._open = self._open, None
        if current is not None:
            self.counts.flows_lost += current.flows
            current.abandon()

    def _make_room(self) -> None:
        while self._free_bytes(self.folder) < self._limits.keep_free and self._drop_oldest():
            self.counts.last_fault = "the disk is nearly full"

    def _drop_oldest(self) -> bool:
        for path in self.files()[:1]:
            size = _size(path)
            path.unlink(missing_ok=True)
            self.counts.files_dropped += 1
            self.counts.bytes_dropped += size
            return True
        return False

    def _expire(self, now_ns: int) -> None:
        files = self.files()
        total = sum(_size(path) for path in files)
        most, days = self._limits.max_bytes, self._limits.days
        for path in files:
            oldest = 0 if days is None else (now_ns - int(days * DAY_NS)) // HOUR_NS
            too_old = days is not None and _recorded_hour(path, now_ns) < oldest
            if not too_old and (most is None or total <= most):
                continue
            total -= _size(path)
            path.unlink(missing_ok=True)
            self.counts.files_expired += 1

    def _next_path(self, hour: int) -> Path:
        stamp = datetime.fromtimestamp(hour * 3600, UTC).strftime("%Y%m%dT%H")
        last = max(
            (
                int(m[2])
                for path in self.files()
                if (m := _NAME.fullmatch(path.name)) and m[1] == stamp
            ),
            default=0,
        )
        if last >= MAX_PER_HOUR:
            raise OutputError("too many files in one hour", where=self.folder)
        return self.folder / f"flows-{stamp}Z-{last + 1:04d}{SUFFIX}"


class _OpenFile:
    def __init__(self, path: Path, hour: int, schema: pl.Schema) -> None:
        self.hour, self.schema = hour, schema
        self.flows = 0
        self._file = PendingFile(path)
        self._encoder: Encoder = ENCODERS[SUFFIX](self._file.stream)

    def write(self, frame: pl.DataFrame) -> None:
        self._encoder.write(frame)
        self.flows += frame.height

    def size(self) -> int:
        return self._file.stream.tell()

    def commit(self) -> None:
        self._encoder.finish()
        self._file.commit()

    def abandon(self) -> None:
        self._encoder.abandon()
        self._file.abandon()


def files_of(folder: Path) -> list[Path]:
    """Return the files of an archive that are in their place, the oldest first."""
    return sorted(path for path in folder.glob(f"flows-*{SUFFIX}") if _hour(path) is not None)


def left_over(folder: Path) -> list[Path]:
    """Return what runs that were killed have not finished."""
    return list(folder.glob(f".flows-*{SUFFIX}.*"))


def _hour(path: Path) -> int | None:
    """Return the hour that a file's name says, None where it is none of ours."""
    found = _NAME.fullmatch(path.name)
    try:
        moment = datetime.strptime(found[1], "%Y%m%dT%H") if found else None
    except ValueError:
        return None
    return int(moment.replace(tzinfo=UTC).timestamp()) // 3600 if moment else None


def _recorded_hour(path: Path, now_ns: int) -> int:
    """Return the hour in which a file was recorded, this one where that cannot be told.

    The name says it. In earlier releases it was that of the packets, which a capture of 2017 or a
    wrong stamp put anywhere: the latest of name and last change counts that is not to come.
    """
    now = now_ns // HOUR_NS
    try:
        told = (_hour(path), path.stat().st_mtime_ns // HOUR_NS)
    except FileNotFoundError:  # somebody tidied up
        return now
    return max((hour for hour in told if hour is not None and hour <= now), default=now)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # somebody tidied up
        return 0


def _free_bytes(folder: Path) -> int:
    try:
        return shutil.disk_usage(folder).free
    except OSError:  # the folder is gone; writing makes it anew or tells why not
        return sys.maxsize
