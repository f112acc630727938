"""A clock that cannot be right is told of."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from veilwatch.sensor.clock import EARLIEST_S, clock_cautions

NOW_S = EARLIEST_S + 3 * 365 * 86_400.0


@pytest.mark.parametrize("now_s", [0.0, -5.0, EARLIEST_S - 1.0])
def test_a_time_before_this_program_cannot_be(now_s: float) -> None:
    (caution,) = clock_cautions([], now_s)
    assert "cannot be" in caution


def test_a_good_clock_is_not_spoken_of(tmp_path: Path) -> None:
    file = tmp_path / "status.json"
    file.write_text("{}")
    os.utime(file, (NOW_S, NOW_S))
    assert list(clock_cautions([file, tmp_path / "none"], NOW_S)) == []
    assert list(clock_cautions([file], NOW_S - 59)) == []


@pytest.mark.parametrize(
    ("by_s", "told"), [(90, "90 seconds"), (7200, "2 hours"), (3 * 86_400, "3 days")]
)
def test_a_clock_that_went_back_is_told_of(tmp_path: Path, by_s: int, told: str) -> None:
    file = tmp_path / "status.json"
    file.write_text("{}")
    os.utime(file, (NOW_S, NOW_S))
    (caution,) = clock_cautions([file], NOW_S - by_s)
    assert f"{told} behind the last write of status.json" in caution
