"""Figures of merit against a sweep over every threshold, and against scikit-learn."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn import metrics

from veilwatch.learning.evaluation.metrics import CURVE_POINTS, RATES, detection_rate_at, measure

# Few distinct values, so that ties are the rule.
units = st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=2, max_size=120)


def arrays(pairs: list[tuple[int, bool]]) -> tuple[np.ndarray, np.ndarray]:
    score = np.array([value / 12 for value, _ in pairs])
    malicious = np.array([label for _, label in pairs])
    assume(malicious.any() and not malicious.all())
    return score, malicious


def sweep(score: np.ndarray, malicious: np.ndarray, rate: float) -> float:
    """The best detection rate of all thresholds that keep the false-positive rate."""
    best = 0.0
    for threshold in [*np.unique(score), np.inf]:
        alert = score >= threshold
        if alert[~malicious].mean() <= rate:
            best = max(best, alert[malicious].mean())
    return best


@given(units, st.sampled_from([0.0, 0.001, 0.01, 0.1, 0.25, 0.5, 0.9999, 1.0]))
def test_detection_rate_as_a_sweep(pairs: list[tuple[int, bool]], rate: float) -> None:
    score, malicious = arrays(pairs)
    assert detection_rate_at(score, malicious, rate) == pytest.approx(sweep(score, malicious, rate))


@pytest.mark.parametrize("benign", [10, 99, 100, 101, 1000, 2999])
def test_detection_rate_at_every_size_of_the_benign_sample(benign: int) -> None:
    rng = np.random.default_rng(benign)
    score = np.concatenate([rng.random(benign), rng.random(200) + 0.4])
    malicious = np.arange(benign + 200) >= benign
    for rate in (0.1, 0.01, 0.001):
        assert detection_rate_at(score, malicious, rate) == sweep(score, malicious, rate)


def test_ties_with_a_benign_score_do_not_count_as_found() -> None:
    score = np.array([0.9] * 5 + [0.9] * 10 + [0.1] * 90)
    malicious = np.arange(105) < 5
    assert detection_rate_at(score, malicious, 0.01) == 0.0
    assert detection_rate_at(score, malicious, 0.1) == 1.0  # ten of a hundred are allowed


@given(units, st.integers(0, 13))
def test_measure_as_scikit_learn(pairs: list[tuple[int, bool]], step: int) -> None:
    score, malicious = arrays(pairs)
    found = measure(score, malicious, step / 12)
    alert = score >= step / 12
    assert found["n_positive"] == malicious.sum()
    assert found["n_negative"] == (~malicious).sum()
    assert found["roc_auc"] == pytest.approx(metrics.roc_auc_score(malicious, score))
    assert found["average_precision"] == pytest.approx(
        metrics.average_precision_score(malicious, score)
    )
    matrix = metrics.confusion_matrix(malicious, alert)
    assert found["detection_rate"] == pytest.approx(matrix[1, 1] / matrix[1].sum())
    assert found["false_positive_rate"] == pytest.approx(matrix[0, 1] / matrix[0].sum())
    assert list(found["detection_rate_at_fpr"]) == list(RATES) == ["0.1", "0.01", "0.001"]
    area = metrics.auc(found["curve"]["false_positive_rate"], found["curve"]["detection_rate"])
    assert area == pytest.approx(found["roc_auc"], abs=1e-4)


@given(units)
def test_one_threshold_for_each_unit(pairs: list[tuple[int, bool]]) -> None:
    score, malicious = arrays(pairs)
    limit = np.linspace(0, 1, len(score))
    found = measure(score, malicious, limit)
    caught = [s >= t for s, t, bad in zip(score, limit, malicious, strict=True) if bad]
    assert found["detection_rate"] == pytest.approx(np.mean(caught))
    assert found["threshold"] == pytest.approx(np.median(limit))


@pytest.mark.parametrize(("positive", "negative"), [(0, 0), (3, 0), (0, 3)])
@pytest.mark.parametrize("many", [False, True])
def test_what_cannot_be_said_is_none(positive: int, negative: int, many: bool) -> None:
    malicious = np.arange(positive + negative) < positive
    score = np.full(len(malicious), 0.7)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = measure(score, malicious, np.full(len(score), 0.5) if many else 0.5)
    assert (found["n_positive"], found["n_negative"]) == (positive, negative)
    assert found["roc_auc"] is found["average_precision"] is None
    assert found["detection_rate_at_fpr"] == dict.fromkeys(RATES)
    assert found["detection_rate"] == (1.0 if positive else None)
    assert found["false_positive_rate"] == (1.0 if negative else None)
    assert "curve" not in found
    json.dumps(found, allow_nan=False)


def test_the_curve_is_bounded_and_keeps_its_left_end() -> None:
    rng = np.random.default_rng(0)
    score = rng.random(20_000)
    malicious = rng.random(20_000) < score
    curve = measure(score, malicious, 0.5)["curve"]
    false, true = curve["false_positive_rate"], curve["detection_rate"]
    assert len(false) == len(true) <= CURVE_POINTS + 2
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    assert false == sorted(false) and true == sorted(true)
    assert sum(rate <= 0.01 for rate in false) > 50
