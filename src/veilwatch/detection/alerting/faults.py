"""Faults of store and spool: every one is counted, the same one is noted once in a while."""

from __future__ import annotations

from collections import Counter
from typing import Final

from veilwatch.detection.alerting.ports import Clock, Note
from veilwatch.errors import VeilwatchError, described

REPEAT_S: Final = 60.0
"""How often the same fault is noted while it lasts: every second it would fill a log that may lie
on the disk that is full."""


class FaultLog:
    """Count faults, and note them.

    Parameters
    ----------
    clock
        Tells how long ago a fault was noted.
    note
        Takes the line.

    Attributes
    ----------
    counts
        Faults of the `store` (the spool's with them), and `events_lost` with them.
    """

    def __init__(self, clock: Clock, note: Note) -> None:
        self._clock, self.note = clock, note
        self._noted, self._noted_s = "", 0.0
        self.counts: Counter[str] = Counter()

    def add(self, error: Exception) -> None:
        """Take in one fault."""
        self.counts["store"] += 1
        known = isinstance(error, VeilwatchError)
        text = str(error) if known else f"unexpected {described(error)}"
        now_s = self._clock.monotonic_s()
        if text != self._noted or now_s - self._noted_s >= REPEAT_S:
            self._noted, self._noted_s = text, now_s
            self.note(text)

    def lost(self, events: int) -> None:
        """Count events that nothing could be done for."""
        self.counts["events_lost"] += events
