"""What is special to the trees."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.learning.training.factory import QUICK, make_training_set
from veilwatch.errors import ModelError, TrainingError
from veilwatch.learning.detectors.evidence import log_odds
from veilwatch.learning.detectors.lightgbm import LightGBMDetector
from veilwatch.learning.features import feature_schema


@pytest.fixture(scope="module")
def fitted() -> LightGBMDetector:
    detector = LightGBMDetector()
    detector.fit(make_training_set(), QUICK)
    return detector


def test_contributions_and_expected_value_add_up_to_the_log_odds(fitted: LightGBMDetector) -> None:
    features = make_training_set(seed=2).features
    rest = log_odds(fitted.predict_proba(features)) - fitted.explain(features).sum(axis=1)
    assert np.ptp(log_odds(fitted.predict_proba(features))) > 1
    np.testing.assert_allclose(rest, rest[0], atol=1e-9)  # the expected value


def test_contributions_go_to_the_features_that_tell(fitted: LightGBMDetector) -> None:
    training = make_training_set(seed=2)
    names = training.features.schema.names
    mean = np.abs(fitted.explain(training.features)).mean(axis=0)
    telling = {names[k] for k in np.argsort(-mean)[:3]}
    assert telling & {"fwd_first_payload", "pause_std", "pause_regularity"}
    importance = fitted.importance()
    assert importance.shape == mean.shape
    assert importance.sum() == pytest.approx(1)
    assert names[int(importance.argmax())] in telling


def test_parameters_of_the_user_replace_its_own() -> None:
    settings = replace(QUICK, parameters={"num_boost_round": 2, "num_leaves": 3})
    detector = LightGBMDetector()
    detector.fit(make_training_set(), settings)
    score = detector.predict_proba(make_training_set(seed=1).features)
    assert len(np.unique(score)) <= 3**2


def test_a_parameter_that_it_refuses_is_one_line() -> None:
    settings = replace(QUICK, parameters={"num_leaves": -4})
    with pytest.raises(TrainingError, match="LightGBM") as caught:
        LightGBMDetector().fit(make_training_set(), settings)
    assert "\n" not in str(caught.value)


def test_the_file_is_text(fitted: LightGBMDetector, tmp_path: Path) -> None:
    assert fitted.save(tmp_path) == ["lightgbm.txt"]
    assert (tmp_path / "lightgbm.txt").read_text().startswith("tree\n")
    with pytest.raises(ModelError):
        LightGBMDetector.load(tmp_path, feature_schema(["sequence"]))


def test_trees_cut_anywhere_are_refused(fitted: LightGBMDetector, tmp_path: Path) -> None:
    """LightGBM itself would end the process at some of these places."""
    (name,) = fitted.save(tmp_path)
    content = (tmp_path / name).read_bytes()
    last = content.index(b"end of parameters")
    for length in range(0, last, last // 200):
        (tmp_path / name).write_bytes(content[:length])
        with pytest.raises(ModelError, match="not whole"):
            LightGBMDetector.load(tmp_path, feature_schema())
    # A hole in the middle, with both ends there.
    hole = content.index(b"Tree=2") + 100
    (tmp_path / name).write_bytes(content[:hole] + content[hole + 40 :])
    with pytest.raises(ModelError, match="not whole"):
        LightGBMDetector.load(tmp_path, feature_schema())


def test_a_single_leaf_can_be_saved(tmp_path: Path) -> None:
    """Flows that tell nothing give trees without a split."""
    training = make_training_set(20)
    features = replace(training.features, values=np.zeros_like(training.features.values))
    detector = LightGBMDetector()
    detector.fit(replace(training, features=features), QUICK)
    detector.save(tmp_path)
    loaded = LightGBMDetector.load(tmp_path, features.schema)
    np.testing.assert_array_equal(loaded.predict_proba(features), detector.predict_proba(features))
