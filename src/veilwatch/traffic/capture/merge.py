"""Several captures as one, in time order.

The clock of a capture is the latest packet time that its present block has shown so far and that
can be right (`times.TimeWatch`): a record that is older than its predecessor stays behind it, so
that the records of one capture keep their order, and one bad stamp moves nothing but itself.
A stretch of time that only one capture covers passes through untouched; where several overlap,
their bytes are gathered in one buffer and their records sorted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from veilwatch.errors import CaptureError
from veilwatch.schema.packets import BLOCK_RECORDS, RECORD_DTYPE, RawBlock
from veilwatch.traffic.capture.times import TimeWatch

MAX_OVERLAP: Final = 512
"""Most captures that may be open at one time, well below the usual limit of 1024 open files.
Each holds a window of some hundred KiB."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A capture whose turn has not come.

    Attributes
    ----------
    first_ns
        Time of its first packet.
    open
        Opens it and gives its blocks.
    """

    first_ns: int
    open: Callable[[], Iterator[RawBlock]]


class _Lane:
    """An open capture and what is left of its present block."""

    def __init__(self, blocks: Iterator[RawBlock]) -> None:
        self._blocks = blocks
        self._watch = TimeWatch()
        self.block = RawBlock(np.empty(0, np.uint8), np.empty(0, RECORD_DTYPE))
        self.clocks: npt.NDArray[np.int64] = np.empty(0, np.int64)
        self._at = 0

    def fill(self) -> bool:
        """Have at least one record; False at the end of the capture."""
        while self._at == len(self.clocks):
            block = next(self._blocks, None)
            if block is None:
                return False
            self.block, self._at = block, 0
            self.clocks = self._watch.take(block.records)
        return True

    @property
    def clock(self) -> int:
        """Clock at the next record."""
        return int(self.clocks[self._at])

    @property
    def horizon(self) -> int:
        """Clock at the last record of the present block."""
        return int(self.clocks[-1])

    def take(self, limit: int) -> tuple[npt.NDArray[np.void], npt.NDArray[np.int64]]:
        """Take the records with a clock up to `limit`, and their clocks."""
        stop = int(np.searchsorted(self.clocks, limit, side="right"))
        start, self._at = self._at, max(stop, self._at)
        return self.block.records[start : self._at], self.clocks[start : self._at]


def merge(captures: list[Waiting]) -> Iterator[RawBlock]:
    """Yield the records of all `captures` by time, at most `BLOCK_RECORDS` in a block.

    Raises
    ------
    CaptureError
        If more than `MAX_OVERLAP` captures cover one moment.
    """
    waiting = sorted(captures, key=lambda capture: capture.first_ns)
    waiting.reverse()  # the next one is the last, where it is cheap to take
    lanes: list[_Lane] = []
    arena = np.empty(0, np.uint8)
    while True:
        lanes = [lane for lane in lanes if lane.fill()]
        clock = min((lane.clock for lane in lanes), default=None)
        while waiting and (clock is None or waiting[-1].first_ns <= clock):
            if len(lanes) == MAX_OVERLAP:
                raise CaptureError(
                    f"more than {MAX_OVERLAP} captures overlap in time",
                    hint="name fewer at once, or merge some with mergecap first",
                )
            lane = _Lane(waiting.pop().open())
            if lane.fill():
                lanes.append(lane)
                clock = lane.clock if clock is None else min(clock, lane.clock)
        if not lanes:
            return
        limit = min(lane.horizon for lane in lanes)
        if waiting:
            limit = min(limit, waiting[-1].first_ns)
        taken = [(lane.block.buffer, *lane.take(limit)) for lane in lanes]
        taken = [part for part in taken if len(part[1])]
        if len(taken) == 1:
            yield RawBlock(taken[0][0], taken[0][1])
            continue
        need = sum(_extent(records)[1] for _, records, _ in taken)
        if need > len(arena):
            arena = np.empty(need, np.uint8)
        records = _gather([part[:2] for part in taken], arena)
        order = np.argsort(np.concatenate([clocks for _, _, clocks in taken]), kind="stable")
        records = records[order]
        for start in range(0, len(records), BLOCK_RECORDS):
            yield RawBlock(arena, records[start : start + BLOCK_RECORDS])


def _extent(records: npt.NDArray[np.void]) -> tuple[int, int]:
    """Return where the bytes of consecutive `records` begin and how many they span."""
    first, last = records[0], records[-1]
    start = int(first["offset"])
    return start, int(last["offset"]) + int(last["captured"]) - start


def _gather(
    parts: list[tuple[npt.NDArray[np.uint8], npt.NDArray[np.void]]], arena: npt.NDArray[np.uint8]
) -> npt.NDArray[np.void]:
    """Copy the bytes of all parts into `arena`; return their records, pointing into it."""
    moved = []
    at = 0
    for buffer, records in parts:
        start, span = _extent(records)
        arena[at : at + span] = buffer[start : start + span]
        copy = records.copy()
        copy["offset"] += at - start
        moved.append(copy)
        at += span
    return np.concatenate(moved)
