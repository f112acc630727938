"""Figures of a corpus without a second one, used hosts among them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.learning.training.factory import QUICK, make_corpus
from veilwatch.corpus.catalogue import Corpus
from veilwatch.learning.training import TrainingOptions, cross_validate
from veilwatch.learning.training.crossvalidate import CrossSplit
from veilwatch.learning.training.hosts import BLENDED

CAPTURES = 16


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return make_corpus(captures=CAPTURES, used=True)


@pytest.mark.parametrize("by", ["group", "flow"])
def test_used_hosts_are_cross_validated_where_captures_lie_whole_in_folds(
    corpus: Corpus, by: CrossSplit
) -> None:
    options = TrainingOptions(folds=2, target_rate=0.05, settings=QUICK)
    found = cross_validate(corpus, by, options)
    levels = [f"used_host_x{size}" for size in BLENDED]
    if by == "flow":
        assert not {"capture_with_windows", *levels} & set(found)
        return
    for level in levels:
        infected, benign = found[level]["n_positive"], found[level]["n_negative"]
        assert infected > 0 and benign == CAPTURES // 2
        assert found[level]["roc_auc"] > 0.8
        mean = found["mean_of_folds"][level]
        assert (mean["n_positive"], mean["n_negative"]) == (infected, benign)
    alone = cross_validate(corpus, "group", replace(options, hosts=False))
    assert not {"capture_with_windows", *levels} & set(alone)
    assert alone["flow"] == found["flow"] and alone["capture"] == found["capture"]


def test_a_detector_of_other_units_decides_alone(corpus: Corpus) -> None:
    """Channels and windows are heard beside flows only."""
    found = cross_validate(
        corpus, "group", TrainingOptions(detector="host_window", folds=2, settings=QUICK)
    )
    assert found["capture"]["n_positive"] == CAPTURES // 2
    assert not {"capture_with_windows", "used_host_x1"} & set(found)
