"""Why the meter keeps one row for each flow and not one array for each field.

A packet changes some two dozen fields of one flow, and the next packet belongs to another flow.
Kept together, these fields take a few cache lines in a row; kept in columns, one line each::

    python benchmarks/layout.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import numba
import numpy as np

FIELDS: Final = 24  # that one packet changes
RECORD_FIELDS: Final = 128  # of a record, 1 KiB
PACKETS: Final = 1_000_000
LIVE_FLOWS: Final = (500, 12_000, 120_000)
RUNS: Final = 5


@numba.njit(boundscheck=True)  # type: ignore[untyped-decorator]
def update_rows(rows: Any, slots: Any) -> None:
    """Add to the fields of one flow after another; `rows` has shape (flows, fields)."""
    for slot in slots:
        for field in range(FIELDS):
            rows[slot, field] += 1


@numba.njit(boundscheck=True)  # type: ignore[untyped-decorator]
def update_columns(columns: Any, slots: Any) -> None:
    """Do the same; `columns` has shape (fields, flows)."""
    for slot in slots:
        for field in range(FIELDS):
            columns[field, slot] += 1


def nanoseconds(update: Callable[[Any, Any], None], table: Any, slots: Any) -> float:
    """Return the best CPU time of several passes, ns a packet."""
    update(table, slots)
    best = float("inf")
    for _ in range(RUNS):
        began = time.process_time()
        update(table, slots)
        best = min(best, time.process_time() - began)
    return best / len(slots) * 1e9


def main() -> None:
    """Compare both layouts at several numbers of live flows."""
    rng = np.random.default_rng(7)
    print(f"{'live flows':>12}{'rows':>12}{'columns':>12}   ns for {FIELDS} fields of one flow")
    for flows in LIVE_FLOWS:
        slots = rng.integers(0, flows, PACKETS)
        rows = nanoseconds(update_rows, np.zeros((flows, RECORD_FIELDS), np.int64), slots)
        columns = nanoseconds(update_columns, np.zeros((FIELDS, flows), np.int64), slots)
        print(f"{flows:12,}{rows:12.0f}{columns:12.0f}   {columns / rows:.1f} ×")


if __name__ == "__main__":
    main()
