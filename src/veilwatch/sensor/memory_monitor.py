"""How much memory is left, and what is given up before the kernel kills a process.

Every table of the sensor has a bound of its own; this is for machines that are smaller than the
bounds together, or that others fill. What was promised last is given up first: the archive of
flows, then early reports, which only make an alert earlier. Alerts are never given up.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import Final

LOOK_S: Final = 1.0
"""How often the memory is looked at: reading it takes 0.1 ms."""

RECOVERED: Final = 1.25
"""By how much more must be free than the limit until all is well again: without a gap archive files
would be opened and closed at every look."""

_MIB: Final = 1 << 20


class Level(IntEnum):
    """How it stands."""

    WELL = 0
    TIGHT = 1  # less than the limit is free: no archive
    SHORT = 2  # less than half of it: no early reports either


class MemoryMonitor:
    """Look at the memory that is left from time to time.

    Parameters
    ----------
    spare_mb
        MiB below which it is tight; 0 never to look.
    proc, cgroup
        Where the kernel tells; for tests.
    """

    def __init__(
        self,
        spare_mb: int,
        *,
        proc: Path = Path("/proc"),
        cgroup: Path = Path("/sys/fs/cgroup"),
    ) -> None:
        self._limit = spare_mb * _MIB
        self._proc, self._cgroup = proc, cgroup
        self._looked_s = float("-inf")
        self._level = Level.WELL

    def level(self) -> Level:
        """Return how it stands, as of a second ago at most."""
        now_s = time.monotonic()
        if self._limit and now_s - self._looked_s >= LOOK_S:
            self._looked_s = now_s
            free = free_bytes(self._proc, self._cgroup)
            if free is not None:
                self._level = self._judged(free)
        return self._level

    def _judged(self, free: int) -> Level:
        for level, limit in ((Level.SHORT, self._limit // 2), (Level.TIGHT, self._limit)):
            # A level that holds is left only with a margin.
            if free < limit * (RECOVERED if self._level >= level else 1.0):
                return level
        return Level.WELL


def free_bytes(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return what this process could still have: of the machine, and of its control groups.

    None where the kernel tells neither.
    """
    found = [free for free in (_machine(proc), *_groups(proc, cgroup)) if free is not None]
    return min(found, default=None)


def _machine(proc: Path) -> int | None:
    try:
        text = (proc / "meminfo").read_text()
    except OSError:
        return None
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return None


def _groups(proc: Path, cgroup: Path) -> Iterator[int | None]:
    """Yield what is left in our control group and in those above it (version 2)."""
    try:
        line = next(
            line
            for line in (proc / "self" / "cgroup").read_text().splitlines()
            if line.startswith("0::")
        )
    except (OSError, StopIteration):
        return
    group = Path(line[3:].lstrip("/"))
    for place in (group, *group.parents):
        yield _group(cgroup / place)


def _group(folder: Path) -> int | None:
    """Return what a group may still take; its file cache can be given back and is no use."""
    try:
        limits = [(folder / name).read_text().strip() for name in ("memory.max", "memory.high")]
        used = int((folder / "memory.current").read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    numbers = [int(limit) for limit in limits if limit.isdecimal()]
    if not numbers:
        return None
    cache = int(stat.get("inactive_file", 0)) + int(stat.get("active_file", 0))
    return max(0, min(numbers) - used + cache)
