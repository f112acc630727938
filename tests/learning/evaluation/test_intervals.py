"""Exact intervals beside their definition by the binomial distribution."""

from __future__ import annotations

import pytest
from scipy.stats import binom

from tests.known import known
from veilwatch.learning.evaluation.intervals import class_figures, interval_text, proportion


@pytest.mark.parametrize(("hits", "of"), [(0, 12), (1, 12), (11, 12), (12, 12), (61, 62), (3, 7)])
def test_each_end_is_where_the_count_becomes_a_surprise(hits: int, of: int) -> None:
    found = proportion(hits, of)
    assert found.low is not None and found.high is not None
    if hits:
        assert binom.sf(hits - 1, of, found.low) == pytest.approx(0.025)
    else:
        assert found.low == 0
    if hits < of:
        assert binom.cdf(hits, of, found.high) == pytest.approx(0.025)
    else:
        assert found.high == 1


def test_nothing_counted_says_nothing() -> None:
    found = proportion(0, 0)
    assert found.value is found.low is found.high is None
    assert interval_text(found) == "–"


def test_f1_is_that_of_its_precision_and_recall() -> None:
    found = class_figures(true=11, missed=1, false=2)
    precision, recall = known(found.precision.value), known(found.recall.value)
    assert precision == pytest.approx(11 / 13) and recall == pytest.approx(11 / 12)
    assert found.f1 == pytest.approx(2 * precision * recall / (precision + recall))
    assert known(found.f1_low) < known(found.f1) < known(found.f1_high)


def test_a_class_that_nobody_was_taken_for_has_no_precision() -> None:
    found = class_figures(true=0, missed=4, false=0)
    assert found.precision.value is None
    assert (found.recall.value, found.f1) == (0, 0)
