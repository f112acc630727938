"""What waits to be sent, within bounds: what does not fit is dropped and counted."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from dataclasses import replace
from typing import Final

from veilwatch.schema.flows import FlowTable
from veilwatch.sensor.link.parcel import Kind, Parcel

MAX_WAITING: Final = 65_536
"""Most rows that wait for the receiver, some 100 MiB: ten seconds of 6,500 flows a second."""

MAX_WAITING_BYTES: Final = 256 * 1024 * 1024
"""Most bytes that wait for the receiver: twice what `MAX_WAITING` rows usually take. Names in a
row are as long as strangers make them."""

MAX_PARCEL_BYTES: Final = 32 * 1024 * 1024
"""Largest table that is sent as one, estimated: 16,384 flows take some 25 MiB. Larger ones go in
parts, so that no message takes the receiver longer than others."""


class Outbox:
    """What waits to be sent. Offering never blocks.

    Parameters
    ----------
    max_rows, max_bytes
        Most rows that wait, and what they may take; see `MAX_WAITING` and `MAX_WAITING_BYTES`.

    Attributes
    ----------
    dropped
        Rows by what became of them, each in one place: `early` and `ended` were not sent, `archive`
        was sent but not for the archive, `refused` the receiver would not take.
    """

    def __init__(self, max_rows: int = MAX_WAITING, *, max_bytes: int = MAX_WAITING_BYTES) -> None:
        self._max_rows, self._max_bytes = max_rows, max_bytes
        self._waiting: deque[Parcel] = deque()
        self._rows = self._bytes = 0
        self._changed = threading.Condition()
        self._closed = False
        self.dropped: Counter[str] = Counter()

    @property
    def rows(self) -> int:
        """Rows that wait, those on their way included."""
        return self._rows

    @property
    def bytes(self) -> int:
        """What they take, estimated."""
        return self._bytes

    def offer(self, kind: Kind, table: FlowTable, now_ns: int) -> None:
        """Have a table sent, or dropped: the oldest early reports first, then the oldest records.

        What comes is worth more than what has waited: its alert is not late yet.
        """
        size = int(table.frame.estimated_size())
        whole = Parcel(kind, table, now_ns, time.time_ns(), True, size)
        count = -(-size // MAX_PARCEL_BYTES)
        for parcel in whole.parts(count) if count > 1 else (whole,):
            self._offer(parcel)

    def _offer(self, parcel: Parcel) -> None:
        kind, rows = parcel.kind, len(parcel.table)
        with self._changed:
            crowded = not self._fits(2 * rows, 2 * parcel.bytes, share=2)
            self._make_room(parcel)
            if not self._fits(rows, parcel.bytes):
                self.dropped[kind.name.lower()] += rows
                return
            self._waiting.append(replace(parcel, archive=kind is Kind.ENDED and not crowded))
            self._rows += rows
            self._bytes += parcel.bytes
            self._changed.notify()

    def _fits(self, rows: int, size: int, share: int = 1) -> bool:
        """Whether so much more fits into the bounds, or into a share of them."""
        return (
            self._rows * share + rows <= self._max_rows
            and self._bytes * share + size <= self._max_bytes
        )

    def take(self, timeout_s: float) -> Parcel | None:
        """Return what has waited longest, None if nothing comes within a time.

        Its rows count as waiting until `done`.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed, timeout_s)
            return self._waiting.popleft() if self._waiting else None

    def done(self, parcel: Parcel, *, refused: bool = False) -> None:
        """Say that a parcel has arrived, or that the receiver will not take it."""
        rows = len(parcel.table)
        with self._changed:
            self._rows -= rows
            self._bytes -= parcel.bytes
            if refused:
                self.dropped["refused"] += rows
            elif parcel.kind is Kind.ENDED and not parcel.archive:
                self.dropped["archive"] += rows

    def parted(self, parcel: Parcel, count: int) -> list[Parcel]:
        """Return a parcel that is on its way in parts, which count as waiting in its place."""
        parts = list(parcel.parts(count))
        with self._changed:
            self._bytes += sum(part.bytes for part in parts) - parcel.bytes
        return parts

    def close(self) -> None:
        """Have nobody wait for more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits and nothing is on its way."""
        return self._rows == 0 and not self._waiting

    def _make_room(self, coming: Parcel) -> None:
        rows, size = len(coming.table), coming.bytes
        for sort in (Kind.EARLY, Kind.ENDED):
            # Interim reports make no room for themselves by ending records.
            if sort > coming.kind or self._fits(rows, size):
                return
            kept: deque[Parcel] = deque()
            for parcel in self._waiting:
                if parcel.kind is sort and not self._fits(rows, size):
                    self._rows -= len(parcel.table)
                    self._bytes -= parcel.bytes
                    self.dropped[sort.name.lower()] += len(parcel.table)
                else:
                    kept.append(parcel)
            self._waiting = kept
