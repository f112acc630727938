"""Scores as probabilities at a prior."""

from __future__ import annotations

import numpy as np
import pytest

from veilwatch.learning.detectors.evidence import probability
from veilwatch.learning.evaluation.posterior import STEEPEST, Platt, fit_platt


def drawn(size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores whose log-odds are normal around ±2: their likelihood ratio is known."""
    rng = np.random.default_rng(seed)
    malicious = rng.random(size) < 0.3
    return probability(rng.normal(np.where(malicious, 2.0, -2.0), 2.0)), malicious


def test_the_likelihood_ratio_is_found() -> None:
    # Of two normal distributions with means ±m and deviation s it is 2m/s² times the value.
    platt = fit_platt(*drawn(40_000))
    assert platt.slope == pytest.approx(1.0, abs=0.05)
    assert platt.intercept == pytest.approx(0.0, abs=0.05)


@pytest.mark.parametrize("prior", [0.3, 0.01])
def test_probabilities_come_true_at_their_prior(prior: float) -> None:
    score, malicious = drawn(400_000, seed=1)
    rng = np.random.default_rng(2)
    # Drop malicious units until their share is the prior.
    keep = ~malicious | (rng.random(len(score)) < prior / (1 - prior) * 0.7 / 0.3)
    found = Platt(1.0, 0.0).posterior(score[keep], prior)
    for low, high in ((0.0, 0.05), (0.05, 0.3), (0.3, 1.0)):
        mine = (found >= low) & (found < high)
        assert malicious[keep][mine].mean() == pytest.approx(found[mine].mean(), rel=0.15)


def test_scores_that_mislead_are_not_read_backwards() -> None:
    score, malicious = drawn(1000)
    assert fit_platt(1 - score, malicious).slope == 0.0


def test_perfect_separation_stays_finite() -> None:
    score = np.repeat([1e-6, 1 - 1e-6], 20)
    platt = fit_platt(score, score > 0.5)
    assert 0 < platt.slope <= STEEPEST
    assert 0 < platt.posterior(np.array([1 - 1e-6]), 1e-3)[0] < 1
