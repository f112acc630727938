"""Book-keeping that every format shares."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from veilwatch.schema.captures import FileReport


def account(report: FileReport, records: npt.NDArray[np.void]) -> None:
    """Add `records` (at least one) to `report`."""
    first, last = int(records["ts_ns"].min()), int(records["ts_ns"].max())
    report.first_ns = first if report.first_ns is None else min(report.first_ns, first)
    report.last_ns = last if report.last_ns is None else max(report.last_ns, last)
    report.packets += len(records)
