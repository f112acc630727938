"""What a flow weighs."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from veilwatch.learning.training.weights import unit_weights

sizes = st.lists(st.tuples(st.integers(1, 400), st.booleans()), min_size=2, max_size=20)


@given(sizes)
def test_classes_balance_and_captures_are_damped(drawn: list[tuple[int, bool]]) -> None:
    drawn[0], drawn[1] = (drawn[0][0], True), (drawn[1][0], False)
    capture = np.repeat(np.arange(len(drawn)), [size for size, _ in drawn])
    malicious = np.array([label for _, label in drawn])[capture]
    weight = unit_weights(capture, malicious)
    assert (weight > 0).all()
    np.testing.assert_allclose(weight.mean(), 1)
    np.testing.assert_allclose(weight[malicious].sum(), weight[~malicious].sum())
    totals = np.bincount(capture, weight)
    for label in (True, False):
        mine = [k for k, (_, found) in enumerate(drawn) if found == label]
        roots = np.sqrt([drawn[k][0] for k in mine])
        np.testing.assert_allclose(totals[mine] / totals[mine].sum(), roots / roots.sum())


def test_a_sweep_does_not_outvote_a_family() -> None:
    capture = np.repeat([0, 1, 2], [80_000, 60, 500])
    weight = unit_weights(capture, capture < 2)
    sweep, family = (weight[capture == k].sum() for k in (0, 1))
    assert 30 < sweep / family < 40  # the root of 80,000 / 60 instead of 1,333
