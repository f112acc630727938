"""A step of the clock, or one wrong stamp of a packet, moves nothing that lasts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from veilwatch.detection.alerting.site import QuietPeriod
from veilwatch.schema.units import HOUR_NS
from veilwatch.sensor import score_history
from veilwatch.sensor.clock import ADOPT_NS, AGREE_NS, STEP_NS, SteadyClock, TrafficClock
from veilwatch.sensor.score_history import ScoreHistory, read_scores
from veilwatch.store import Store

SECOND = 10**9
START_NS = 1_780_303_200 * SECOND
YEAR_2100_NS = 4_102_444_800 * SECOND


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(str(tmp_path / "store.db")) as opened:
        yield opened


class Clocks:
    """A wall clock that can be set, and a steady one."""

    def __init__(self) -> None:
        self.steady_ns, self.offset_ns = 0, START_NS
        self.clock = SteadyClock(
            wall_ns=lambda: self.steady_ns + self.offset_ns, steady_ns=lambda: self.steady_ns
        )

    def after(self, seconds: float) -> float:
        """Let time pass; return what the clock says, in seconds since the start."""
        self.steady_ns += int(seconds * SECOND)
        return (self.clock.now_ns() - START_NS) / SECOND


def test_a_clock_set_forward_and_back_is_not_followed() -> None:
    clocks = Clocks()
    assert clocks.after(10) == 10
    clocks.offset_ns = YEAR_2100_NS
    assert clocks.after(10) == 20
    clocks.offset_ns = START_NS - 3600 * SECOND
    assert clocks.after(10) == 30
    clocks.offset_ns = START_NS
    assert clocks.after(10) == 40


def test_a_clock_that_stays_is_believed_after_a_day() -> None:
    clocks = Clocks()
    clocks.offset_ns = START_NS + 7200 * SECOND
    day = ADOPT_NS // SECOND
    assert clocks.after(1) == 1
    assert clocks.after(day - 1) == day
    assert clocks.after(1) == day + 1 + 7200
    # What drifts is followed at once.
    clocks.offset_ns += STEP_NS // 2
    assert clocks.after(1) == day + 2 + 7200 + STEP_NS / 2 / SECOND


@given(st.lists(st.integers(-(10**10), 10**10), max_size=30))
def test_no_run_of_steps_moves_it_before_one_has_lasted(steps: list[int]) -> None:
    clocks = Clocks()
    for step in steps:
        clocks.offset_ns = START_NS + step * SECOND
        clocks.after(60)
    assert abs(clocks.after(0) - 60 * len(steps)) <= 2 * len(steps)


def test_traffic_time_takes_two_witnesses() -> None:
    clock = TrafficClock()
    near = [START_NS, START_NS - 60 * SECOND]
    assert clock.advance(START_NS, near) == START_NS
    # A clock that was set forward, and a table with stamps from another time.
    assert clock.advance(YEAR_2100_NS, near) == START_NS - 60 * SECOND
    assert clock.advance(START_NS, [YEAR_2100_NS]) == START_NS
    assert clock.advance(START_NS + SECOND, []) == START_NS + SECOND
    # Traffic that is of another time, such as of another capture.
    old = START_NS - 9 * 365 * 86_400 * SECOND
    assert clock.advance(old + AGREE_NS, [old]) == old + AGREE_NS
    assert clock.advance(0, [START_NS]) == START_NS
    assert TrafficClock().advance(0, []) == 0


def flows(*last_ns: int) -> pl.DataFrame:
    score = [0.1 + 0.01 * n for n in range(len(last_ns))]
    return pl.DataFrame({"last_ns": last_ns, "score": pl.Series(score, dtype=pl.Float32)})


def hosts(*names: str, last_ns: int) -> pl.DataFrame:
    count = len(names)
    return pl.DataFrame(
        {"host": names, "subscriber": [""] * count, "source": [0] * count}
        | {"last_ns": [last_ns] * count, "score": [0.5] * count}
    )


def seen(store: Store, hour_ns: int) -> tuple[int, int]:
    """Return how many flows and hosts the book has of an hour."""
    begins = hour_ns // HOUR_NS * HOUR_NS
    period = QuietPeriod(name="q", begins_ns=begins, ends_ns=begins + HOUR_NS)
    units, groups, _ = read_scores(store, "ward", period)
    return units.units, groups.units


def test_scores_count_for_the_hour_of_their_flows(store: Store) -> None:
    book = ScoreHistory(store, "ward")
    book.add(flows(START_NS, START_NS + SECOND), hosts("a", "b", last_ns=START_NS), START_NS)
    book.add(flows(YEAR_2100_NS), hosts("a", last_ns=YEAR_2100_NS), START_NS)
    for _ in range(3):
        book.add(flows(START_NS, START_NS - HOUR_NS), hosts("b", last_ns=START_NS), START_NS)
    book.close()
    assert seen(store, START_NS) == (5, 2)
    assert seen(store, START_NS - HOUR_NS) == (3, 0)
    assert seen(store, YEAR_2100_NS) == (1, 1)
    # A restart goes on with the hour.
    book = ScoreHistory(store, "ward")
    book.add(flows(START_NS), hosts("c", last_ns=START_NS), START_NS)
    book.close()
    assert seen(store, START_NS) == (6, 3)


def test_hours_that_come_and_go_are_bounded_and_lose_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_history, "OPEN_HOURS", 2)
    book = ScoreHistory(store, "ward")
    for turn in range(3):
        for hour in range(5):
            at_ns = START_NS + hour * HOUR_NS
            book.add(flows(at_ns, at_ns), hosts(f"{turn}", last_ns=at_ns), START_NS)
    many = [START_NS + hour * HOUR_NS for hour in range(5)]
    book.add(flows(*many, *many[:2]), hosts("x", last_ns=0), START_NS)
    book.close()
    assert book.left_out == 3
    found = [seen(store, START_NS + hour * HOUR_NS) for hour in range(5)]
    assert found == [(8, 3), (8, 3), (6, 3), (6, 3), (6, 3)]
