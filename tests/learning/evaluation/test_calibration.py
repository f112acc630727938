"""Thresholds keep the promise of split conformal prediction, by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from veilwatch.learning.evaluation.calibration import conformal_threshold, supported_rate


@pytest.mark.parametrize(("units", "rate"), [(19, 0.05), (50, 0.1), (99, 0.01), (150, 0.02)])
@pytest.mark.parametrize("decimals", [None, 1], ids=["distinct", "ties"])
def test_a_new_benign_unit_passes_with_the_rate_at_most(
    units: int, rate: float, decimals: int | None
) -> None:
    rng = np.random.default_rng(units)
    trials = 20_000
    scores = rng.random((trials, units + 1))
    if decimals is not None:
        scores = scores.round(decimals)
    passed = np.mean([row[-1] >= conformal_threshold(row[:-1], rate) for row in scores])
    noise = 4 * np.sqrt(rate * (1 - rate) / trials)
    assert passed <= rate + noise
    if decimals is None:  # and it is no stricter than it must be
        assert passed >= rate - 1 / (units + 1) - noise


@pytest.mark.parametrize("units", [1, 5, 98])
def test_with_too_few_units_nothing_seen_would_alert(units: int) -> None:
    benign = np.random.default_rng(units).random(units)
    threshold = conformal_threshold(benign, 0.01)
    assert threshold > benign.max()
    assert threshold == pytest.approx(benign.max(), rel=1e-12)


def test_the_order_of_scores_does_not_matter() -> None:
    benign = np.random.default_rng(0).random(500)
    before = benign.copy()
    assert conformal_threshold(benign, 0.03) == conformal_threshold(np.sort(benign)[::-1], 0.03)
    np.testing.assert_array_equal(benign, before)


def test_rank_by_hand() -> None:
    # ⌈(99 + 1)(1 - 0.1)⌉ = 90: the 90th smallest of 0.01 … 0.99, and just past it.
    benign = np.arange(1, 100) / 100
    assert conformal_threshold(benign, 0.1) == np.nextafter(0.90, 1)
    assert (benign >= conformal_threshold(benign, 0.1)).sum() == 9


def test_rule_of_three() -> None:
    assert supported_rate(30_000) == pytest.approx(1e-4)
    assert supported_rate(0) == 1.0
    assert supported_rate(2) == 1.0  # a rate, never more
    # Without an error in n units a rate of 3/n would have shown one with 95 %.
    assert (1 - supported_rate(300)) ** 300 == pytest.approx(0.05, abs=0.002)
