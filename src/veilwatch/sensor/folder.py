"""A folder into which somebody writes capture after capture, as one stream of blocks without end.

Nothing in the folder is changed. What was read is remembered in a file of ours, so that a restart
reads nothing twice; a file that was being read when the process died is read again from its start,
and set aside when that has happened twice. No file, whatever its name, kind or contents, keeps what
comes after it from being read.
"""

from __future__ import annotations

import glob
import math
import os
import stat
import time
from collections import OrderedDict
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from veilwatch.errors import CaptureError
from veilwatch.progress import SILENT, Progress
from veilwatch.schema.captures import CaptureReport, FileReport
from veilwatch.schema.packets import RECORD_DTYPE, RawBlock
from veilwatch.schema.text import file_name
from veilwatch.sensor.read_log import ReadLog, Seen
from veilwatch.traffic.capture import open_captures
from veilwatch.traffic.capture.times import TimeWatch

SETTLE_S: Final = 5.0
"""A file whose size has not changed for so long is whole, unless another sign came before: writers
that flush more rarely should write under a temporary name."""

LOOK_S: Final = 0.5
"""How often the folder is looked at."""

WAIT_S: Final = 0.05
"""How long a quiet moment takes, as of a live capture."""

MAX_FILES: Final = 100_000
"""Most files of the folder that are looked at: a file a second for a day. Whoever leaves more there
has them read in the order of their age."""

MAX_REPORTS: Final = 1000
"""Most files whose reports are kept; of older ones the sums."""

MAX_ASIDE: Final = 1000
"""Most files named that could not be read."""

MAX_TRIES: Final = 2
"""How often a file is begun that breaks off its reader: once may have been chance."""

TEMPORARY: Final = (".tmp", ".part", ".partial", ".crdownload", ".swp")
"""Endings of names under which files are written and not read; so are hidden ones."""

EARLIER: Final = "earlier files"


class _Watched(NamedTuple):
    """A file that may still be written."""

    seen: Seen
    changed_ns: int  # its time of change
    since_s: float  # by our clock, when it last was another
    renamed: bool  # whether it came from a temporary name


class FolderStream:
    """Blocks of the captures of a folder in the order of their age, until `stop`.

    A file is read once it is whole: it was renamed from a temporary name; or a younger file has
    begun beside it; or its size has not changed for a while. In quiet moments an empty block comes
    every 50 ms. Time does not go on in them, as nobody knows what the next file will bring, until
    no file has come for long.

    Parameters
    ----------
    folder
        Looked at, not below. Links are not followed.
    read_log
        File that remembers what was read.
    settle_s
        See `SETTLE_S`.
    quiet_s
        Without a new file for so long, the time since the last one counts as traffic time.

    Attributes
    ----------
    report
        Files that were read, the latest `MAX_REPORTS`; the first stands for all before.
    aside
        Files that could not be read as captures, by name, and why; the latest `MAX_ASIDE`.

    Raises
    ------
    CaptureError
        If there is no such folder.
    """

    def __init__(
        self,
        folder: Path,
        read_log: Path,
        *,
        settle_s: float = SETTLE_S,
        quiet_s: float = math.inf,
        progress: Progress = SILENT,
    ) -> None:
        if not folder.is_dir():
            raise CaptureError("no such folder", where=folder)
        self._folder = folder
        self._read_log = ReadLog(read_log)
        self._settle_s = settle_s
        self._quiet_s = quiet_s
        self._progress = progress
        self._watched: dict[str, _Watched] = {}
        self._hidden: set[int] = set()
        self._stopping = False
        self._now_ns = 0
        self._clock = TimeWatch()
        self._refused: set[Seen] = set()
        self.report = CaptureReport()
        self.aside: OrderedDict[str, str] = OrderedDict()
        self._blocks = self._read()

    def stop(self) -> None:
        """End the iteration after the file that is being read; may be called by a signal."""
        self._stopping = True

    def close(self) -> None:
        """Let go of the file that is being read; harmless when done twice."""
        self._blocks.close()
        self._read_log.close()

    def __iter__(self) -> Iterator[RawBlock]:
        return self._blocks

    def _read(self) -> Generator[RawBlock, None, None]:
        looked_s = -LOOK_S
        came_s = time.monotonic()
        while not self._stopping:
            if time.monotonic() - looked_s >= LOOK_S:
                looked_s = time.monotonic()
                for seen in self._whole():
                    yield from self._read_file(seen)
                    came_s = time.monotonic()
                    if self._stopping:
                        return
            now_ns, quiet_s = self._now_ns, time.monotonic() - came_s
            if now_ns and quiet_s >= self._quiet_s:
                now_ns += int(quiet_s * 1e9)
            yield RawBlock(np.empty(0, np.uint8), np.empty(0, RECORD_DTYPE), now_ns=now_ns)
            time.sleep(WAIT_S)

    def _read_file(self, seen: Seen) -> Generator[RawBlock, None, None]:
        path = self._folder / seen.name
        if self._is_refused(seen, path):
            return
        if self._read_log.tries(seen) >= MAX_TRIES:
            self._set_aside(
                seen.name,
                f"reading it was broken off {MAX_TRIES} times, it is left out; under another name "
                "it is read again",
            )
            self._read_log.add(seen)
            return
        if self._read_log.has_grown(seen):
            self._progress.note(
                f"{file_name(seen.name)}: has grown since it was read and is read again: let it "
                "be written under a temporary name"
            )
        self._read_log.begin(seen)
        try:
            yield from self._blocks_of(seen, path)
        except CaptureError as error:
            self._set_aside(seen.name, error.what)
        except Exception as error:  # a fault of ours: what comes after is not to wait for it
            self._progress.note(f"{file_name(seen.name)}: unexpected {type(error).__name__}")
            return  # once more, or set aside, with the next look
        self._read_log.add(seen)

    def _blocks_of(self, seen: Seen, path: Path) -> Generator[RawBlock, None, None]:
        # Should it vanish now, its name is still a name and no pattern.
        name = glob.escape(str(path)) if glob.has_magic(str(path)) else path
        told = False
        with open_captures([name], progress=self._progress) as stream:
            for block in stream:
                if len(block):
                    # What one bad stamp says is no time for the sensor.
                    self._now_ns = int(self._clock.take(block.records)[-1])
                # The time of the block lets those who read it hand out what has waited.
                yield RawBlock(block.buffer, block.records, now_ns=self._now_ns)
                if self._stopping and not told:
                    told = True
                    self._read_log.interrupted(seen)
            report = stream.report.files[0]
            report.name = str(self._folder / file_name(seen.name))
            self._keep(report)
            if report.fault:
                self._set_aside(seen.name, report.fault)

    def _is_refused(self, seen: Seen, path: Path) -> bool:
        """Whether a file may not be read, or is another one now; said once, looked at again."""
        try:
            status = path.lstat()
        except OSError:  # it has vanished
            return True
        if not stat.S_ISREG(status.st_mode) or status.st_ino != seen.inode:
            return True
        if os.access(path, os.R_OK):
            self._refused.discard(seen)
            return False
        if seen not in self._refused and len(self._refused) < MAX_ASIDE:
            self._refused.add(seen)
            self._set_aside(seen.name, "may not be read by the sensor's user")
        return True

    def _whole(self) -> list[Seen]:
        """Return files that are whole and have not been read, oldest first."""
        now = time.monotonic()
        found: dict[str, _Watched] = {}
        try:
            entries = list(os.scandir(self._folder))[:MAX_FILES]
        except OSError:  # gone, or not readable for a while
            return []
        hidden: set[int] = set()
        for entry in entries:
            with suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                if not stat.S_ISREG(status.st_mode):
                    continue
                if entry.name.startswith(".") or entry.name.endswith(TEMPORARY):
                    hidden.add(status.st_ino)
                    continue
                seen = Seen(entry.name, status.st_size, status.st_ino)
                before = self._watched.get(entry.name)
                same = before and before.seen == seen and before.changed_ns == status.st_mtime_ns
                found[entry.name] = _Watched(
                    seen,
                    status.st_mtime_ns,
                    before.since_s if before and same else now,
                    status.st_ino in self._hidden or bool(before and same and before.renamed),
                )
        self._watched, self._hidden = found, hidden
        unread = [one for one in found.values() if one.seen not in self._read_log]
        # Ones without a byte have not begun.
        youngest = max((one.changed_ns for one in found.values() if one.seen.size), default=0)
        whole = [
            one
            for one in unread
            if one.seen.size
            and (one.renamed or one.changed_ns < youngest or now - one.since_s >= self._settle_s)
        ]
        return [one.seen for one in sorted(whole, key=lambda one: (one.changed_ns, one.seen.name))]

    def _set_aside(self, name: str, fault: str) -> None:
        name = file_name(name)
        self.aside[name] = fault
        self.aside.move_to_end(name)
        while len(self.aside) > MAX_ASIDE:
            self.aside.popitem(last=False)
        self._progress.note(f"{name}: {fault}")

    def _keep(self, report: FileReport) -> None:
        files = self.report.files
        files.append(report)
        if len(files) > MAX_REPORTS:
            first, second = files[0], files.pop(1)
            if first.name != EARLIER:
                files[0] = first = FileReport(EARLIER, first.format, first.packets, first.bytes)
            first.packets += second.packets
            first.bytes += second.bytes
