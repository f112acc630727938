"""Scores by hour: what is kept of them, and how far they have moved."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sensor.stubs import stand_in
from veilwatch.detection.alerting.site import QuietPeriod
from veilwatch.errors import StoreError, VeilwatchError
from veilwatch.schema.units import HOUR_NS
from veilwatch.sensor import score_history
from veilwatch.sensor.score_history import (
    KEPT,
    MAX_HOURS,
    ScoreHistory,
    read_scores,
    stability_index,
    state_name,
)
from veilwatch.store import Store

HOUR = 490_000
"""Number of an hour of traffic."""

HISTOGRAM = st.lists(st.integers(0, 10**6), min_size=10, max_size=10).map(
    lambda counts: np.array(counts, np.int64)
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(str(tmp_path / "store.db")) as opened:
        yield opened


def flows(*scores: float, hour: int = HOUR) -> pl.DataFrame:
    return pl.DataFrame(
        {"score": scores, "last_ns": [hour * HOUR_NS] * len(scores)},
        schema={"score": pl.Float64, "last_ns": pl.Int64},
    )


def hosts(hour: int = HOUR, **scores: float) -> pl.DataFrame:
    count = len(scores)
    return pl.DataFrame(
        {
            "host": list(scores),
            "subscriber": [""] * count,
            "last_ns": [hour * HOUR_NS] * count,
            "score": list(scores.values()),
        },
        schema={
            "host": pl.String,
            "subscriber": pl.String,
            "last_ns": pl.Int64,
            "score": pl.Float64,
        },
    )


def read(store: Store, hours: int = 1) -> tuple[Any, Any, int]:
    period = QuietPeriod(name="q", begins_ns=HOUR * HOUR_NS, ends_ns=(HOUR + hours) * HOUR_NS)
    return read_scores(store, "ward", period)


def test_of_flows_every_score_counts_and_of_hosts_the_highest(store: Store) -> None:
    history = ScoreHistory(store, "ward")
    history.add(flows(0.1, 0.4), hosts(a=0.2, b=0.3), HOUR * HOUR_NS)
    history.add(flows(0.2), hosts(a=0.9, b=0.1), HOUR * HOUR_NS)
    history.close()
    units, groups, seen = read(store)
    assert seen == 1
    assert units.highest().tolist() == [0.1, 0.2, 0.4]
    assert groups.highest().tolist() == [0.3, 0.9]


def test_the_highest_are_kept_with_how_many_there_were(store: Store) -> None:
    scores = np.linspace(0, 1, 2 * KEPT)
    history = ScoreHistory(store, "ward")
    history.add(flows(*scores), hosts(), HOUR * HOUR_NS)
    history.close()
    units, _, _ = read(store)
    assert units.units == 2 * KEPT
    assert np.allclose(units.highest(), scores[-KEPT:])


def test_hosts_of_an_hour_are_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_history, "MAX_HOSTS", 2)
    history = ScoreHistory(store, "ward")
    history.add(flows(0.1), hosts(a=0.2, b=0.3, c=0.9), HOUR * HOUR_NS)
    history.add(flows(0.1), hosts(a=0.5), HOUR * HOUR_NS)
    history.close()
    assert read(store)[1].highest().tolist() == [0.3, 0.5]


def test_hours_are_saved_once_a_minute(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    history = ScoreHistory(store, "ward")
    history.add(flows(0.1), hosts(), HOUR * HOUR_NS)
    history.tick()
    assert read(store)[2] == 0
    now[0] += score_history.SAVE_S
    history.tick()
    assert read(store)[2] == 1


def test_an_hour_that_could_not_be_saved_is_saved_later() -> None:
    class Away:
        saved: dict[str, Any] = {}
        away = True

        def load_state(self, name: str) -> Any:
            return None

        def save_state(self, values: dict[str, Any]) -> None:
            if self.away:
                raise StoreError("away")
            self.saved |= values

    store = Away()
    history = ScoreHistory(stand_in(store), "ward")
    history.add(flows(0.1), hosts(), HOUR * HOUR_NS)
    history.close()
    store.away = False
    history.close()
    assert store.saved.keys() == {state_name("ward", HOUR)}


def test_a_period_is_read_hour_by_hour_and_only_of_its_sensor(store: Store) -> None:
    for sensor, hour in (("ward", HOUR), ("ward", HOUR + 2), ("other", HOUR + 1)):
        history = ScoreHistory(store, sensor)
        history.add(flows(0.1, hour=hour), hosts(hour, a=0.2), hour * HOUR_NS)
        history.close()
    store.save_state({state_name("ward", HOUR + 1): "damaged"})
    units, groups, seen = read(store, hours=3)
    assert (units.units, groups.units, seen) == (2, 2, 2)
    assert read(store, hours=2)[2] == 1  # the end is outside


def test_a_period_that_is_too_long_is_refused(store: Store) -> None:
    with pytest.raises(VeilwatchError, match="longer than 90 days"):
        read(store, hours=MAX_HOURS + 1)


@given(HISTOGRAM, HISTOGRAM)
def test_the_index_is_none_for_the_same_and_grows_the_same_way_from_either_side(
    one: np.ndarray, other: np.ndarray
) -> None:
    assert stability_index(one, one) == 0
    assert stability_index(one, one * 3) == pytest.approx(0, abs=1e-9)
    found = stability_index(one, other)
    assert found >= 0 and found == pytest.approx(stability_index(other, one))


def test_the_index_is_that_of_the_book() -> None:
    # Two bins, a half each against a quarter and three quarters.
    expected = -0.25 * np.log(0.25 / 0.5) + 0.25 * np.log(0.75 / 0.5)
    assert stability_index(np.array([2, 2]), np.array([1, 3])) == pytest.approx(expected)
    assert stability_index(np.array([0, 0]), np.array([1, 3])) == 0


def test_drift_waits_for_enough_flows(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nothing:
        def load_state(self, name: str) -> None: ...
        def save_state(self, states: Any) -> None: ...

    history = ScoreHistory(stand_in(Nothing()), "ward")

    def add(score: float, count: int, hour: int) -> float | None:
        history.add(flows(*[score] * count), hosts(), hour * HOUR_NS + 1)
        return history.drift

    assert add(0.1, 1000, 5) is None  # nothing before it
    assert add(0.9, 999, 6) is None
    drift = add(0.9, 1, 6)
    assert drift is not None and drift > 1
    assert add(0.1, 999, 7) == drift  # one flow more, and it is told anew
    assert add(0.1, 1, 7) != drift
