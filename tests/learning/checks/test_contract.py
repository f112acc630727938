"""The rules of detectors find those who break them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.learning.checks.broken import Careless, Credulous, Deaf, Framed, Nearby, Raising, Sure
from tests.learning.training.factory import QUICK
from veilwatch.errors import PluginError
from veilwatch.learning.checks import CHECKS, Candidate, check_detector
from veilwatch.learning.checks import contract as rules
from veilwatch.learning.checks.units import draw_training_set, random_flows
from veilwatch.learning.detectors.lightgbm import LightGBMDetector


@pytest.mark.parametrize(
    ("kind", "rule"),
    [
        (Deaf, rules.weights_matter),
        (Deaf, rules.fitting_changes_nothing_that_it_is_given),
        (Sure, rules.an_untrained_detector_says_so),
        (Sure, rules.scores_are_probabilities_that_tell_classes_apart),
        (Sure, rules.another_schema_is_refused_on_scoring),
        (Credulous, rules.damaged_files_are_refused),
        (Credulous, rules.another_schema_is_refused_on_loading),
        (Raising, rules.no_rows_give_no_scores),
        (Careless, rules.a_saved_detector_scores_the_same),
        (Nearby, rules.rows_are_scored_one_by_one),
        (Framed, rules.scoring_needs_no_training_framework),
    ],
)
def test_a_broken_rule_is_found(kind: type[LightGBMDetector], rule: Any) -> None:
    with pytest.raises((AssertionError, ZeroDivisionError)):
        rule(Candidate(kind, QUICK))


def test_everything_that_is_broken_is_named() -> None:
    with pytest.raises(PluginError) as caught:
        check_detector(Sure, QUICK)
    said = str(caught.value)
    assert said.startswith("lightgbm: breaks ")
    assert f"of {len(CHECKS)} rules" in said
    assert "an untrained detector says so: scored before fit: no ModelError" in said
    assert "saved detector" not in said and "\n" not in said
    with pytest.raises(PluginError, match=r"explain.*ZeroDivisionError: in vain"):
        check_detector(Raising, QUICK)


def test_one_that_keeps_them_passes() -> None:
    check_detector("lightgbm", QUICK)
    with pytest.raises(PluginError, match="no detector is called 'none'"):
        check_detector("none")


def test_units_can_be_told_apart_and_are_drawn_anew_by_seed() -> None:
    first, again = draw_training_set(LightGBMDetector), draw_training_set(LightGBMDetector)
    np.testing.assert_array_equal(first.features.values, again.features.values)
    other = draw_training_set(LightGBMDetector, seed=1)
    assert not np.array_equal(first.features.values, other.features.values, equal_nan=True)
    assert sorted(set(first.malicious)) == [False, True]
    sizes = random_flows(40, malicious=np.arange(40) >= 20).frame["fwd_first_payload"].to_numpy()
    assert sizes[20:].mean() > 1.5 * sizes[:20].mean()
