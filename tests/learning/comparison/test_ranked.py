"""Weighted rates beside their plain definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from veilwatch.learning.comparison.ranked import Ranked
from veilwatch.learning.evaluation.metrics import detection_rate_at


@given(st.integers(0, 10_000), st.integers(2, 60), st.sampled_from([0.001, 0.01, 0.1, 0.5]))
def test_whole_weights_are_repetitions(seed: int, units: int, rate: float) -> None:
    rng = np.random.default_rng(seed)
    malicious = rng.random(units) < 0.5
    malicious[:2] = [True, False]
    score = np.round(rng.random(units), 1)  # ties
    weight = rng.integers(0, 4, units)
    weight[:2] = 1
    again = np.repeat(np.arange(units), weight)
    ranked = Ranked(score, malicious)
    assert ranked.both
    assert ranked.roc_auc(weight.astype(float)) == pytest.approx(
        roc_auc_score(malicious[again], score[again])
    )
    assert ranked.detection_rate(weight.astype(float), rate) == pytest.approx(
        detection_rate_at(score[again], malicious[again], rate)
    )


def test_one_class_has_no_rates() -> None:
    ranked = Ranked(np.array([0.1, 0.2]), np.array([True, True]))
    assert not ranked.both
    assert np.isnan(ranked.roc_auc(np.ones(2))) and np.isnan(ranked.detection_rate(np.ones(2), 0.1))
