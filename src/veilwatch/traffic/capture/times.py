"""The packet times of a file as they come: which of them can be right, and where they run back."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from veilwatch.jit import kernel
from veilwatch.traffic.packet_time import (
    AGREE,
    BEGAN,
    CONFIRM,
    DOUBTED,
    NOW,
    SHIFT,
    STEADY,
    SURE,
    judge,
    new_clock,
)

NEAR_NS: Final = 120 * 1_000_000_000
"""How far the clock of a file moves without a doubt: as long as flows wait for a packet."""

# Cells of a tally.
LOW: Final = 0  # earliest and latest time that was believed
HIGH: Final = 1
BACKS: Final = 2  # steps back, the largest in ns, the record number of the first
MOST: Final = 3
FIRST_BACK: Final = 4
BAD: Final = 5  # stamps not believed; number and time of the first
FIRST_BAD: Final = 6
FIRST_BAD_NS: Final = 7
PENDING: Final = 8  # stamps that are doubted now, and those of them that are of the present run
RUN_PENDING: Final = 9
PENDING_NUMBER: Final = 10  # of the first of them
PENDING_NS: Final = 11
RUN_NUMBER: Final = 12  # of the first of the run; its earliest and latest time
RUN_LOW: Final = 13
RUN_HIGH: Final = 14
OPENING: Final = 15  # number of the first record, and its time
OPENING_NS: Final = 16
SEEN: Final = 17  # records
TALLY: Final = 18


@kernel
def follow_times(cells: Any, tally: Any, times: Any, numbers: Any, clocks: Any) -> None:
    """Judge the times of consecutive records and add them to the tally.

    Parameters
    ----------
    cells
        Of `packet_time.judge`.
    tally
        int64 array of TALLY.
    times, numbers
        int64 arrays, one value a record.
    clocks
        int64 array to fill: the time believed at each record, that of the record itself where it
        is believed, or comes to be within these records.
    """
    run = 0  # first record here of the present run
    for i in range(len(times)):
        time = times[i]
        if tally[SEEN] == 0:
            tally[OPENING], tally[OPENING_NS] = numbers[i], time
            tally[LOW] = tally[HIGH] = time
        tally[SEEN] += 1
        before, sure = cells[NOW], cells[SURE]
        kind = judge(cells, time, NEAR_NS)
        clocks[i] = time
        if kind == STEADY:
            if tally[PENDING] > 0:
                reject(tally)
            if sure > 0 and time < before:
                step_back(tally, before - time, numbers[i])
            tally[LOW], tally[HIGH] = min(tally[LOW], time), max(tally[HIGH], time)
            continue
        if cells[BEGAN]:
            run = i
            tally[RUN_PENDING] = 0
            tally[RUN_NUMBER], tally[RUN_LOW], tally[RUN_HIGH] = numbers[i], time, time
        if tally[PENDING] == 0:
            tally[PENDING_NUMBER], tally[PENDING_NS] = numbers[i], time
        tally[PENDING] += 1
        tally[RUN_PENDING] += 1
        tally[RUN_LOW], tally[RUN_HIGH] = min(tally[RUN_LOW], time), max(tally[RUN_HIGH], time)
        if kind == DOUBTED:
            clocks[i] = before
            continue
        for k in range(run, i):
            clocks[k] = times[k]
        if sure < CONFIRM and cells[SHIFT] != 0:
            # The majority holds the first stamps of the file for wrong.
            for k in range(run):
                clocks[k] = times[run]
            accept(tally, before, True)
        else:
            accept(tally, before, False)


@kernel
def accept(tally: Any, before: Any, majority: Any) -> None:
    """Believe the present run; `majority` says that what came before it is not believed."""
    tally[PENDING] -= tally[RUN_PENDING]
    if majority:
        tally[BAD] = tally[SEEN] - tally[RUN_PENDING]
        tally[FIRST_BAD], tally[FIRST_BAD_NS] = tally[OPENING], tally[OPENING_NS]
        tally[BACKS] = tally[MOST] = tally[FIRST_BACK] = 0
        tally[LOW], tally[HIGH] = tally[RUN_LOW], tally[RUN_HIGH]
    else:
        if tally[PENDING] > 0:
            reject(tally)
        if tally[RUN_LOW] < before:
            step_back(tally, before - tally[RUN_LOW], tally[RUN_NUMBER])
        tally[LOW] = min(tally[LOW], tally[RUN_LOW])
        tally[HIGH] = max(tally[HIGH], tally[RUN_HIGH])
    tally[PENDING] = tally[RUN_PENDING] = 0


@kernel
def reject(tally: Any) -> None:
    """Hold the doubted stamps for wrong."""
    if tally[BAD] == 0:
        tally[FIRST_BAD], tally[FIRST_BAD_NS] = tally[PENDING_NUMBER], tally[PENDING_NS]
    tally[BAD] += tally[PENDING]
    tally[PENDING] = tally[RUN_PENDING] = 0


@kernel
def step_back(tally: Any, by: Any, number: Any) -> None:
    """Count a step back of the clock."""
    if tally[BACKS] == 0:
        tally[FIRST_BACK] = number
    tally[BACKS] += 1
    tally[MOST] = max(tally[MOST], by)


def opening_time(records: npt.NDArray[np.void]) -> int:
    """Return when a capture begins, by its first records."""
    return int(TimeWatch().take(records)[0])


class TimeWatch:
    """Follow the packet times of one file, or of a part of it, from its first record on."""

    def __init__(self) -> None:
        self._cells = new_clock()
        self._tally = np.zeros(TALLY, np.int64)

    def take(self, records: npt.NDArray[np.void]) -> npt.NDArray[np.int64]:
        """Take in the next records; return the clock at each, which never runs back among them."""
        clocks = np.empty(len(records), np.int64)
        follow_times(
            self._cells,
            self._tally,
            records["ts_ns"],
            np.ascontiguousarray(records["number"]),
            clocks,
        )
        return np.maximum.accumulate(clocks)

    def tally(self, *, over: bool) -> npt.NDArray[np.int64]:
        """Return what was found; `over` says that no stamp comes that could settle a doubt."""
        tally = self._tally.copy()
        if over and tally[PENDING]:
            cells = self._cells
            if cells[SHIFT] == 0 or cells[AGREE] > 1 or cells[SURE] < CONFIRM:
                accept(tally, cells[NOW], False)
            else:
                reject(tally)
        return tally
