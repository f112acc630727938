"""Runs of an array that are copied and cleared."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest

from veilwatch.traffic.flow.copying import clear_run, copy_run


@numba.njit  # type: ignore[untyped-decorator]
def copied(target: Any, at: int, source: Any, start: int, count: int) -> None:
    """Call what only kernels can."""
    copy_run(target, at, source, start, count)


@numba.njit  # type: ignore[untyped-decorator]
def cleared(target: Any, at: int, count: int) -> None:
    """Call what only kernels can."""
    clear_run(target, at, count)


@pytest.mark.parametrize(
    ("at", "start", "count"),
    [(0, 0, 200), (3, 5, 70), (199, 0, 9), (0, 190, 99), (7, 7, 0), (1, 0, -3)],
)
def test_a_run_ends_with_its_arrays(at: int, start: int, count: int) -> None:
    source = np.arange(200, dtype=np.uint8)
    target = np.full(200, 255, np.uint8)
    copied(target, at, source, start, count)
    length = max(0, min(count, 200 - at, 200 - start))
    expected = np.full(200, 255, np.uint8)
    expected[at : at + length] = source[start : start + length]
    assert target.tolist() == expected.tolist()


def test_what_is_cleared_is_cleared_alone() -> None:
    target = np.ones(100, np.uint64)
    cleared(target, 40, 30)
    assert np.flatnonzero(target == 0).tolist() == list(range(40, 70))
