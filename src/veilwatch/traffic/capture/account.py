"""Book-keeping that every format shares."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from veilwatch.schema.captures import FileReport
from veilwatch.traffic.capture import times
from veilwatch.traffic.capture.times import TimeWatch


class Account:
    """Add the records of a file, or of a part of it, to its report.

    Parameters
    ----------
    report
        The file's; the parts of a file share it.
    """

    def __init__(self, report: FileReport) -> None:
        self._report = report
        self._watch = TimeWatch()
        self._shown = self._watch.tally(over=False)

    def add(self, records: npt.NDArray[np.void]) -> npt.NDArray[np.int64]:
        """Take in `records` (at least one); return the clock at each, see `TimeWatch.take`."""
        clocks = self._watch.take(records)
        self._report.packets += len(records)
        self._show(over=False)
        return clocks

    def close(self) -> None:
        """Settle what a later record could have settled."""
        self._show(over=True)

    def _show(self, *, over: bool) -> None:
        report, tally, shown = self._report, self._watch.tally(over=over), self._shown
        if not tally[times.SEEN]:
            return
        low, high = int(tally[times.LOW]), int(tally[times.HIGH])
        report.first_ns = low if report.first_ns is None else min(report.first_ns, low)
        report.last_ns = high if report.last_ns is None else max(report.last_ns, high)
        if tally[times.BAD] and tally[times.FIRST_BAD] == tally[times.OPENING]:
            # What the first stamps said was shown before they were found wrong.
            report.first_ns, report.last_ns = low, high
        report.time_back += int(tally[times.BACKS] - shown[times.BACKS])
        report.time_back_most_ns = max(report.time_back_most_ns, int(tally[times.MOST]))
        if tally[times.BACKS] and not report.time_back_first:
            report.time_back_first = int(tally[times.FIRST_BACK])
        report.bad_stamps += int(tally[times.BAD] - shown[times.BAD])
        if tally[times.BAD] and not report.bad_stamp_first:
            report.bad_stamp_first = int(tally[times.FIRST_BAD])
            report.bad_stamp_ns = int(tally[times.FIRST_BAD_NS])
        self._shown = tally
