"""Which packet times to believe: a clock that one bad stamp does not move.

A stamp near the clock moves it. One that is farther away is doubted until stamps after it agree:
they follow one another, while none falls back to the old time. So a stray stamp (0, the year 2100,
a time that an interface made up) changes nothing, whereas a clock that was truly set, or a second
capture joined to the first, is followed a few packets later. At the start, while hardly any packet
has confirmed the clock, the majority decides.

One judge serves the meter, the merging of files, what is said of a file, control messages and live
scoring, so that they agree.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from veilwatch.jit import inner_kernel, kernel
from veilwatch.schema.units import DAY_NS

FAR_NS: Final = DAY_NS
"""A stamp within a day of the clock may well be the next packet after a quiet night: packets keep
it, only what it would do to others waits. What is farther away is rather a broken stamp, which
packets do not keep before it is confirmed. Stamps of one doubted run are no farther apart."""

CONFIRM: Final = 4
"""Stamps in a row, each later than the one before, that confirm a time. Strays come one by one or
as a constant, and few captures lose three flows' worth of packets by waiting for a fourth."""

MANY: Final = 64
"""Doubted stamps in a row after which the latest is believed whatever it is: flows must end some
time even where the stamps are rubbish."""

STEADY: Final = 0
DOUBTED: Final = 1
TURNED: Final = 2

# Cells of the judge.
NOW: Final = 0  # the time that is believed
SURE: Final = 1  # packets that confirmed it, up to CONFIRM; 0 before the first packet
CANDIDATE: Final = 2  # the latest time of the doubted run
AGREE: Final = 3  # stamps of the run that followed one another, 0 without a run
RUN: Final = 4  # doubted stamps in a row, whether they agree or not
SHIFT: Final = 5  # from the clock to where the run began, 0 if that is within FAR_NS
BEGAN: Final = 6  # whether the latest stamp began a run
CELLS: Final = 7


def new_clock() -> npt.NDArray[np.int64]:
    """Return the cells of a judge that has seen nothing."""
    return np.zeros(CELLS, np.int64)


@inner_kernel
def judge(cells: Any, time: Any, near: Any) -> Any:
    """Take in the next packet's time; return STEADY, DOUBTED or TURNED.

    After TURNED the clock has moved to `time`, and `cells[SHIFT]` still says how far away it was.

    Parameters
    ----------
    cells
        int64 array of CELLS.
    time
        ns since the epoch.
    near
        How far the clock moves without a doubt, ns.
    """
    if cells[SURE] == 0 or abs(time - cells[NOW]) <= near:
        cells[NOW] = time
        cells[AGREE] = cells[RUN] = 0
        if cells[SURE] < CONFIRM:
            cells[SURE] += 1
        return STEADY
    step = time - cells[CANDIDATE]
    follows = cells[AGREE] > 0 and step >= -near and step <= FAR_NS
    cells[BEGAN] = not follows
    if not follows:
        away = time - cells[NOW]
        cells[AGREE] = 1
        cells[CANDIDATE] = time
        cells[SHIFT] = away if abs(away) > max(FAR_NS, near) else 0
    elif step > 0:
        cells[AGREE] += 1
        cells[CANDIDATE] = time
    cells[RUN] += 1
    if cells[AGREE] < CONFIRM and cells[AGREE] <= cells[SURE] and cells[RUN] < MANY:
        return DOUBTED
    believe(cells, time, min(cells[AGREE], CONFIRM))
    return TURNED


@inner_kernel
def believe(cells: Any, time: Any, sure: Any) -> Any:
    """Set the clock to a time that was confirmed."""
    cells[NOW] = time
    cells[SURE] = sure
    cells[AGREE] = cells[RUN] = 0


@kernel
def follow(cells: Any, times: Any, near: Any) -> Any:
    """Judge times one after another; return the latest of those that are believed."""
    latest = cells[NOW]
    for time in times:
        kind = judge(cells, time, near)
        if kind == TURNED:
            latest = cells[NOW]
        elif kind == STEADY:
            latest = max(latest, cells[NOW])
    return latest


class PacketClock:
    """The judge for code that is no kernel.

    Parameters
    ----------
    near_ns
        How far the clock moves without a doubt, ns.

    Examples
    --------
    >>> clock = PacketClock(near_ns=60)
    >>> [clock.follow(np.array([time])) for time in (100, 110, 4_000, 120, 130, 140)]
    [100, 110, 110, 120, 130, 140]
    """

    def __init__(self, near_ns: int) -> None:
        self._cells = new_clock()
        self._near_ns = near_ns

    def follow(self, times: npt.NDArray[np.int64]) -> int:
        """Take in times, ns since the epoch; return how late it is, 0 before the first."""
        return int(follow(self._cells, times, self._near_ns))
