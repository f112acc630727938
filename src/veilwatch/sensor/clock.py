"""The clocks of a sensor; which part goes by which is told in docs/architecture.md.

Alerts without the right time cannot be laid beside what others saw, so a clock that cannot be right
is told of. And nothing that is deleted, held back or closed may hang on one wrong time: neither on
a packet's stamp nor on a clock that is set forward and back.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from veilwatch.schema.units import DAY_NS, MINUTE_NS, SECOND_NS

EARLIEST_S: Final = 1_704_067_200
"""Beginning of 2024: this program did not exist before. A machine without a battery for its clock
starts in 1970 or at the time of its system's image."""

BACK_S: Final = 60.0
"""A clock that is so far behind what was written earlier was set back."""

STEP_NS: Final = 2 * SECOND_NS
"""Difference between the wall clock and a steady one that is a step; what is less is drift."""

ADOPT_NS: Final = DAY_NS
"""How long a wall clock that was set must stay so until it is believed: what is deleted by age is
gone for good, and limits and repeats need spans only, never the date."""

AGREE_NS: Final = 30 * MINUTE_NS
"""How far two tellers of traffic time may lie apart and still mean the same: half of the hour for
which flows speak of their host, and more than a flow's idle timeout."""


class SteadyClock:
    """Time since the epoch that does not follow a step of the wall clock before it has lasted.

    Parameters
    ----------
    wall_ns, steady_ns
        The system's clocks; others for tests.

    Examples
    --------
    >>> wall, steady = [10**18], [0]
    >>> clock = SteadyClock(wall_ns=lambda: wall[0], steady_ns=lambda: steady[0])
    >>> wall[0], steady[0] = 4 * 10**18, 10**9
    >>> clock.now_ns() - 10**18
    1000000000
    """

    def __init__(
        self,
        *,
        wall_ns: Callable[[], int] = lambda: time.time_ns(),
        steady_ns: Callable[[], int] = lambda: time.monotonic_ns(),
    ) -> None:
        self._wall_ns, self._steady_ns = wall_ns, steady_ns
        self._offset_ns = wall_ns() - steady_ns()
        self._step: tuple[int, int] | None = None  # the offset after a step, and since when

    def now_ns(self) -> int:
        """Return the time."""
        steady = self._steady_ns()
        offset = self._wall_ns() - steady
        if abs(offset - self._offset_ns) < STEP_NS:
            self._offset_ns, self._step = offset, None
        elif self._step is None or abs(offset - self._step[0]) >= STEP_NS:
            self._step = offset, steady
        elif steady - self._step[1] >= ADOPT_NS:
            self._offset_ns, self._step = offset, None
        return steady + self._offset_ns

    def wall_ns(self) -> int:
        """Return the wall clock as it is, ns since the epoch."""
        return self._wall_ns()

    def monotonic_s(self) -> float:
        """Return seconds that never run back, since some moment."""
        return self._steady_ns() / 1e9


class TrafficClock:
    """How late it is in the traffic, told by two of which either may be wrong.

    The time up to which packets were taken follows a wall clock that is set, or a bad stamp; the
    flows of a table are of their packets alone. Where both disagree, the one counts that lies
    nearer to what was before; a traffic time that has truly moved is told by both.
    """

    def __init__(self) -> None:
        self._now_ns = 0

    def advance(self, taken_ns: int, flow_ns: Iterable[int]) -> int:
        """Return the time of a table, ns since the epoch; 0 while nothing is known.

        Parameters
        ----------
        taken_ns
            Time up to which packets had been taken when it was made, 0 unknown.
        flow_ns
            Time of the last packet of each of its flows.
        """
        last = list(flow_ns)
        median_ns = int(statistics.median_low(last)) if last else 0
        told = [ns for ns in (taken_ns, median_ns) if ns]
        if not told:
            return self._now_ns
        if not self._now_ns or len(told) < 2 or abs(taken_ns - median_ns) <= AGREE_NS:
            self._now_ns = told[0]
        else:
            self._now_ns = min(told, key=lambda ns: abs(ns - self._now_ns))
        return self._now_ns


def clock_cautions(files: Iterable[Path], now_s: float | None = None) -> Iterator[str]:
    """Yield what speaks against the clock.

    Parameters
    ----------
    files
        Written by earlier runs; those that are not there are passed over.
    now_s
        The time, seconds since the epoch; by default the clock's.
    """
    now_s = time.time() if now_s is None else now_s
    if now_s < EARLIEST_S:
        shown = time.strftime("%Y-%m-%d %H:%M", time.gmtime(max(0.0, now_s)))
        yield f"the clock says {shown} UTC, which cannot be: alerts would have wrong times"
        return
    latest_s, latest = max(((_written_s(path), path.name) for path in files), default=(0.0, ""))
    if latest_s - now_s > BACK_S:
        yield (
            f"the clock is {_span(latest_s - now_s)} behind the last write of {latest}: it was "
            "wrong then or is wrong now"
        )


def _written_s(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _span(seconds: float) -> str:
    for size, name in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} seconds"
