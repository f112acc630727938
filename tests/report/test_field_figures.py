"""Figures of a field report against plain arithmetic and published values."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2

from veilwatch.report.field.figures import (
    MIN_DAYS,
    MIN_VERDICTS,
    false_per_day,
    memory_trend,
    poisson,
    quantile,
    wilson,
)

MB = 10**6


@pytest.mark.parametrize(
    ("hits", "of", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17, 1998, table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_intervals(hits: int, of: int, low: float, high: float) -> None:
    found = wilson(hits, of)
    assert found.value == hits / of
    assert found.low == pytest.approx(low, abs=5e-5)
    assert found.high == pytest.approx(high, abs=5e-5)


def test_nothing_is_estimated_from_nothing() -> None:
    assert wilson(0, 0).value is wilson(0, 0).low is None
    assert false_per_day(0, 0, 12, 3.0).value is None
    assert false_per_day(1, 2, 12, 0.0).value is None


@given(st.integers(1, 10**6), st.data())
def test_wilson_solves_its_equation(of: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, of))
    found = wilson(hits, of)
    assert found.value is not None and found.low is not None and found.high is not None
    assert 0 <= found.low <= found.value <= found.high <= 1
    # The bounds are where the share lies 1.96 standard errors away, taken at the bound.
    for bound in (found.low, found.high):
        if 0 < bound < 1:
            away = abs(found.value - bound) / math.sqrt(bound * (1 - bound) / of)
            assert away == pytest.approx(1.959963984540054, rel=1e-3)


@pytest.mark.parametrize("count", [0, 1, 2, 5, 10, 50, 400])
def test_poisson_is_near_the_exact_interval(count: int) -> None:
    # Garwood, Biometrika 28, 1936: quantiles of chi-squared.
    low, high = poisson(count)
    exact_low = chi2.ppf(0.025, 2 * count) / 2 if count else 0.0
    exact_high = chi2.ppf(0.975, 2 * count + 2) / 2
    assert low == pytest.approx(exact_low, rel=0.2, abs=0.02)
    assert high == pytest.approx(exact_high, rel=0.01)


@given(st.integers(0, 500), st.integers(0, 500), st.integers(0, 500), st.floats(1, 1000))
def test_false_alerts_a_day_lie_between_those_known_and_all(
    false: int, true: int, open_: int, days: float
) -> None:
    alerts = false + true + open_
    found = false_per_day(false, false + true, alerts, days)
    if false + true == 0 or false + true < min(MIN_VERDICTS, alerts):
        assert found.value is None
        return
    assert found.value is not None and found.low is not None and found.high is not None
    slack = 1 + 1e-9
    assert false / days <= found.value * slack and found.value <= (alerts - true) / days * slack
    # Chance adds to what is not known of the others: the interval is never narrower than either.
    share = wilson(false, false + true)
    assert share.low is not None and share.high is not None
    assert found.low <= poisson(found.value * days)[0] / days * slack
    assert found.low <= (false + share.low * open_) / days * slack
    assert found.high * slack >= (false + share.high * open_) / days
    if open_ == 0:
        assert found.value == false / days
        assert (found.low, found.high) == tuple(bound / days for bound in poisson(false))
    assert false_per_day(false, false + true, alerts, MIN_DAYS * 0.99).value is None


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=200), st.sampled_from([0.5, 0.9, 1.0]))
def test_quantile_is_the_smallest_that_enough_do_not_exceed(values: list[float], q: float) -> None:
    ordered = sorted(values)
    found = quantile(ordered, q)
    enough = [v for v in ordered if sum(w <= v for w in ordered) >= q * len(ordered) - 1e-9]
    assert found == enough[0]


def test_memory_that_leaks_grows_and_memory_that_jumps_about_is_flat() -> None:
    hour = 3600.0
    leak = [(k * hour, 300 * MB + k * 5 * MB) for k in range(48)]
    trend, growth = memory_trend(leak)
    assert trend == "growing" and growth == pytest.approx(24 * 5 * MB)
    noise = [(k * hour, 300 * MB + (k * 37 % 11) * MB) for k in range(48)]
    assert memory_trend(noise)[0] == "flat"
    warm = [(k * hour, (300 if k > 3 else 90) * MB) for k in range(48)]
    assert memory_trend(warm)[0] == "flat"
    falls = [(at, 900 * MB - size) for at, size in leak]
    assert memory_trend(falls)[0] == "shrinking"
    assert memory_trend(leak[:8]) == ("short", None) and memory_trend([]) == ("short", None)


def test_a_peak_or_a_restart_does_not_bend_the_trend() -> None:
    points = [(k * 1200.0, 200 * MB + (800 * MB if k in (20, 21, 60) else 0)) for k in range(90)]
    assert memory_trend([(at / 20, size) for at, size in points]) == ("short", None)
    assert memory_trend(points)[0] == "flat"
    slopes = [
        (points[j][1] - points[i][1]) / (points[j][0] - points[i][0])
        for i in range(9, 90)
        for j in range(i + 1, 90)
    ]
    growth = memory_trend(points)[1]
    assert growth == pytest.approx(statistics.median(slopes) * 86_400)
