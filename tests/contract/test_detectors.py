"""What every detector must keep to, whatever is inside it."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tests.conftest import ROOT
from tests.learning.training.factory import QUICK_BY_DETECTOR, own_features, own_training_set
from veilwatch.errors import ModelError, TrainingError
from veilwatch.learning.detectors import DETECTORS, Detector, TrainingSet
from veilwatch.learning.detectors.evidence import log_odds
from veilwatch.schema.features import FeatureFrame

pytestmark = pytest.mark.parametrize("name", DETECTORS)


def fit(name: str, training: TrainingSet, seed: int = 3) -> Detector:
    detector = DETECTORS[name]()
    detector.fit(training, replace(QUICK_BY_DETECTOR[name], seed=seed))
    return detector


@pytest.fixture
def training(name: str) -> TrainingSet:
    return own_training_set(name)


@cache
def fitted_once(name: str) -> Detector:
    """Return the detector trained on `training`; made once, since nothing here changes it."""
    return fit(name, own_training_set(name))


@pytest.fixture
def fitted(name: str) -> Detector:
    return fitted_once(name)


@pytest.fixture
def unseen(name: str) -> FeatureFrame:
    return own_features(name, 64, seed=99)


def other_values(features: FeatureFrame, values: np.ndarray) -> FeatureFrame:
    return replace(features, values=values.astype(features.values.dtype))


def test_it_keeps_the_protocol(name: str, fitted: Detector) -> None:
    assert isinstance(fitted, Detector)
    assert fitted.name == name


def test_scores_are_probabilities_that_tell_classes_apart(name: str, fitted: Detector) -> None:
    other = own_training_set(name, seed=5)
    score = fitted.predict_proba(other.features)
    assert score.shape == (len(other.features),) and score.dtype == np.float64
    assert ((score >= 0) & (score <= 1)).all()
    assert roc_auc_score(other.malicious, score) > 0.9


def test_the_seed_decides(name: str, training: TrainingSet, unseen: FeatureFrame) -> None:
    first, again, other = (fit(name, training, seed).predict_proba(unseen) for seed in (11, 11, 12))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_fitting_again_forgets_the_first_time(
    name: str, training: TrainingSet, unseen: FeatureFrame
) -> None:
    detector = fit(name, own_training_set(name, seed=8))
    detector.fit(training, QUICK_BY_DETECTOR[name])
    fresh = fit(name, training, QUICK_BY_DETECTOR[name].seed)
    np.testing.assert_array_equal(detector.predict_proba(unseen), fresh.predict_proba(unseen))


def test_fitting_does_not_change_what_it_is_given(name: str, training: TrainingSet) -> None:
    values, weight = training.features.values.copy(), training.weight.copy()
    fit(name, training)
    np.testing.assert_array_equal(training.features.values, values)
    np.testing.assert_array_equal(training.weight, weight)


def test_weights_matter(name: str, training: TrainingSet) -> None:
    """A class that weighs a hundred times more draws all scores towards it."""
    unseen = own_features(name, 200, seed=99)
    heavy = replace(training, weight=np.where(training.malicious, 100.0, 1.0))
    light = replace(training, weight=np.where(training.malicious, 0.01, 1.0))
    up, down = (log_odds(fit(name, item).predict_proba(unseen)) for item in (heavy, light))
    assert np.median(up) > np.median(down) + 1


def test_a_saved_detector_scores_the_same(
    name: str, fitted: Detector, unseen: FeatureFrame, tmp_path: Path
) -> None:
    files = fitted.save(tmp_path)
    assert sorted(files) == sorted(path.name for path in tmp_path.iterdir())
    loaded = DETECTORS[name].load(tmp_path, unseen.schema)
    np.testing.assert_array_equal(loaded.predict_proba(unseen), fitted.predict_proba(unseen))
    np.testing.assert_array_equal(loaded.explain(unseen), fitted.explain(unseen))


def test_a_loaded_detector_is_saved_as_the_same_bytes(
    name: str, fitted: Detector, unseen: FeatureFrame, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    files = fitted.save(first)
    assert DETECTORS[name].load(first, unseen.schema).save(second) == files
    for file in files:
        assert (first / file).read_bytes() == (second / file).read_bytes(), file


def test_another_schema_is_refused_on_loading(
    name: str, fitted: Detector, unseen: FeatureFrame, tmp_path: Path
) -> None:
    fitted.save(tmp_path)
    schema = unseen.schema
    first, second, *rest = schema.features
    for features in ((second, first, *rest), (second, *rest), (first, first, second, *rest)):
        with pytest.raises(ModelError, match="other features"):
            DETECTORS[name].load(tmp_path, replace(schema, features=features))


def test_another_schema_is_refused_on_scoring(
    name: str, fitted: Detector, unseen: FeatureFrame
) -> None:
    wider = own_features(name, 3, shortcuts=True)
    newer = replace(unseen, schema=replace(unseen.schema, version=unseen.schema.version + 1))
    for features in (wider, newer):
        with pytest.raises(ModelError, match="schema"):
            fitted.predict_proba(features)
        with pytest.raises(ModelError, match="schema"):
            fitted.explain(features)


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "binary"])
def test_damaged_files_are_refused(
    name: str, damage: str, fitted: Detector, unseen: FeatureFrame, tmp_path: Path
) -> None:
    path = tmp_path / fitted.save(tmp_path)[0]
    content = path.read_bytes()
    damaged = {"empty": b"", "cut": content[: len(content) // 2], "binary": b"\xff\xfe\0" * 99}
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(damaged[damage])
    with pytest.raises(ModelError):
        DETECTORS[name].load(tmp_path, unseen.schema)


def test_an_untrained_detector_says_so(name: str, unseen: FeatureFrame, tmp_path: Path) -> None:
    detector = DETECTORS[name]()
    with pytest.raises(ModelError, match="not been trained"):
        detector.predict_proba(unseen)
    with pytest.raises(ModelError, match="not been trained"):
        detector.explain(unseen)
    with pytest.raises(ModelError, match="not been trained"):
        detector.save(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kept", ["malicious", "benign", "nothing"])
def test_one_class_cannot_be_learned_from(name: str, kept: str, training: TrainingSet) -> None:
    rows = {
        "malicious": np.flatnonzero(training.malicious),
        "benign": np.flatnonzero(~training.malicious),
        "nothing": np.zeros(0, np.intp),
    }[kept]
    unit = DETECTORS[name].unit.replace("_", " ")
    with pytest.raises(TrainingError, match=rf"no (malicious|benign) {unit}"):
        fit(name, training.take(rows))


def test_two_units_are_enough_to_fit(name: str, training: TrainingSet) -> None:
    small = training.take(np.array([0, 1]))
    assert sorted(small.malicious) == [False, True]
    assert np.isfinite(fit(name, small).predict_proba(small.features)).all()


def test_rows_are_scored_one_by_one(fitted: Detector, unseen: FeatureFrame) -> None:
    whole, explained = fitted.predict_proba(unseen), fitted.explain(unseen)
    for row in (0, 57):
        one = FeatureFrame(unseen.schema, unseen.values[row : row + 1], unseen.keys[row : row + 1])
        np.testing.assert_allclose(fitted.predict_proba(one), whole[row : row + 1], rtol=1e-12)
        np.testing.assert_allclose(fitted.explain(one), explained[row : row + 1], atol=1e-12)


def test_no_rows(fitted: Detector, unseen: FeatureFrame) -> None:
    none = FeatureFrame(unseen.schema, unseen.values[:0], unseen.keys[:0])
    assert fitted.predict_proba(none).shape == (0,)
    assert fitted.explain(none).shape == (0, len(unseen.schema.features))


@pytest.mark.parametrize("value", [np.nan, 0.0, 3e38, -3e38])
def test_constant_rows_are_scored(value: float, fitted: Detector, unseen: FeatureFrame) -> None:
    odd = other_values(unseen, np.full_like(unseen.values, value))
    assert np.isfinite(fitted.predict_proba(odd)).all()
    assert np.isfinite(fitted.explain(odd)).all()


@pytest.mark.parametrize("value", [np.nan, 1.0])
def test_columns_that_tell_nothing(name: str, value: float, training: TrainingSet) -> None:
    """Half of the columns, and then all of them, are constant or missing."""
    features = training.features
    values = features.values.copy()
    values[:, ::2] = value
    half = replace(training, features=other_values(features, values))
    assert np.isfinite(fit(name, half).predict_proba(half.features)).all()
    nothing = replace(
        training, features=other_values(features, np.full_like(features.values, value))
    )
    score = fit(name, nothing).predict_proba(nothing.features)
    np.testing.assert_allclose(score, 0.5, atol=0.05)


def test_explanations_have_a_number_for_each_feature(
    fitted: Detector, unseen: FeatureFrame
) -> None:
    parts = fitted.explain(unseen)
    assert parts.shape == unseen.values.shape and parts.dtype == np.float64
    assert np.isfinite(parts).all() and parts.any()


def test_threads_get_the_same_scores(fitted: Detector, unseen: FeatureFrame) -> None:
    score, parts = fitted.predict_proba(unseen), fitted.explain(unseen)
    with ThreadPoolExecutor(2) as pool:
        scores = [pool.submit(fitted.predict_proba, unseen) for _ in range(8)]
        explained = [pool.submit(fitted.explain, unseen) for _ in range(4)]
    for future in scores:
        np.testing.assert_array_equal(future.result(), score)
    for future in explained:
        np.testing.assert_array_equal(future.result(), parts)


LOADED = """
import json, sys
from pathlib import Path
from tests.conftest import ROOT
from tests.learning.training.factory import own_features
from veilwatch.learning.detectors import DETECTORS
found = {}
for name in DETECTORS:
    frame = own_features(name, 3)
    detector = DETECTORS[name].load(Path(sys.argv[1]) / name, frame.schema)
    detector.predict_proba(frame); detector.explain(frame)
    frameworks = {"torch", "onnx", "tensorflow", "keras", "jax", "gensim"}
    found[name] = sorted(frameworks & set(sys.modules))
print(json.dumps(found))
"""
"""Loads every detector and scores with it; prints which frameworks are there after each."""


@pytest.fixture(scope="module")
def frameworks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Which frameworks a process has loaded that scores, by detector; one process for all."""
    folder = tmp_path_factory.mktemp("saved")
    for name in DETECTORS:
        (folder / name).mkdir()
        fitted_once(name).save(folder / name)
    words = [sys.executable, "-c", LOADED, str(folder)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


def test_scoring_needs_no_training_framework(name: str, frameworks: dict[str, list[str]]) -> None:
    assert frameworks[name] == []
