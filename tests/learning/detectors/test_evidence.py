"""From flow scores to one score for a group, against a loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from veilwatch.learning.detectors.evidence import (
    EPSILON,
    UPPER_SHARES,
    group_scores,
    log_odds,
    probability,
)

flows = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 5)), max_size=60)


def one_group(scores: list[float], share: float) -> float:
    if not scores:
        return math.nan
    upper = sorted(scores, reverse=True)[: max(1, math.ceil(len(scores) * share))]
    clipped = [min(max(score, EPSILON), 1 - EPSILON) for score in upper]
    mean = sum(math.log(p / (1 - p)) for p in clipped) / len(clipped)
    return 1 / (1 + math.exp(-mean))


@given(flows, st.sampled_from(UPPER_SHARES))
def test_as_a_loop_over_groups(pairs: list[tuple[float, int]], share: float) -> None:
    score = np.array([score for score, _ in pairs], np.float64)
    group = np.array([group for _, group in pairs], np.int64)
    wanted = [one_group([s for s, g in pairs if g == number], share) for number in range(7)]
    found = group_scores(score, group, 7, upper_share=share)
    np.testing.assert_allclose(found, wanted, rtol=1e-9)


def test_order_of_flows_does_not_matter() -> None:
    rng = np.random.default_rng(1)
    score, group = rng.random(500), rng.integers(0, 9, 500)
    order = rng.permutation(500)
    first = group_scores(score, group, 9, upper_share=0.25)
    other = group_scores(score[order], group[order], 9, upper_share=0.25)
    np.testing.assert_allclose(first, other, rtol=1e-12)


def test_no_flows_and_no_groups() -> None:
    none = np.zeros(0)
    assert np.isnan(group_scores(none, none.astype(np.int64), 3, upper_share=0.5)).all()
    assert group_scores(none, none.astype(np.int64), 0, upper_share=0.5).shape == (0,)


def group_of(scores: list[float], share: float) -> float:
    return float(
        group_scores(np.array(scores), np.zeros(len(scores), int), 1, upper_share=share)[0]
    )


def test_a_beacon_is_not_hidden_by_harmless_flows() -> None:
    assert group_of([0.95] * 400 + [0.01] * 1000, 0.25) > 0.9


@pytest.mark.parametrize("share", UPPER_SHARES)
def test_one_odd_flow_does_not_condemn_a_busy_host(share: float) -> None:
    assert group_of([0.95] + [0.01] * 1000, share) < 0.05
    assert group_of([0.95], share) == pytest.approx(0.95)


def test_certainty_stays_finite() -> None:
    odds = log_odds(np.array([0.0, 1.0]))
    assert odds.tolist() == pytest.approx([-13.8155, 13.8155], abs=1e-4)
    np.testing.assert_allclose(probability(log_odds(np.array([0.2, 0.7]))), [0.2, 0.7])
