"""The archive of flows, given up while memory is short."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import polars as pl

from veilwatch.schema import counters as known
from veilwatch.sensor.memory_monitor import Level, MemoryMonitor
from veilwatch.store import FlowArchive


class Archiving:
    """Write flows that ended to the archive, as far as there is memory for it.

    Parameters
    ----------
    archive
        None where flows are not archived.
    monitor
        How much memory is left.
    note
        Takes what people should read.
    """

    def __init__(
        self, archive: FlowArchive | None, monitor: MemoryMonitor, note: Callable[[str], None]
    ) -> None:
        self._archive, self._monitor, self._note = archive, monitor, note
        self._level = Level.WELL

    def write(self, flows: pl.DataFrame, now_ns: int) -> None:
        """Archive flows, or count them as lost."""
        if self._archive is None:
            return
        if self._level is Level.WELL:
            self._archive.write(flows, now_ns)
        else:
            self._archive.counts.flows_lost += flows.height

    def look_at_memory(self) -> None:
        """Take the archive up or give it up, by the memory that is left now."""
        level, before = self._monitor.level(), self._level
        if level is before:
            return
        self._level = level
        if level is Level.WELL:
            self._note("there is memory again: flows are archived")
        elif before is Level.WELL:
            self._note("memory is short: flows are not archived until there is more")
            self.close()  # its open file holds rows that no Parquet file has yet

    def tick(self, now_ns: int) -> None:
        """Let time pass for the archive."""
        if self._archive is not None:
            self._archive.tick(now_ns)

    def status(self) -> dict[str, Any]:
        """Return what was counted."""
        counts = self._archive.counts if self._archive else None
        return known.to_status(
            {
                known.ARCHIVE_LOST: counts.flows_lost if counts else 0,
                known.ARCHIVE_DROPPED: counts.files_dropped if counts else 0,
                known.MEMORY: int(self._level),
            }
        )

    def close(self) -> None:
        """Put the open file in its place."""
        if self._archive is not None:
            self._archive.close()
