"""The contract of a detector, rule by rule.

Our own detectors and those of other packages are run through the same rules
(`veilwatch.learning.detectors.base` says what each member is for).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np

from veilwatch.errors import ModelError, PluginError, TrainingError
from veilwatch.learning.checks.units import draw_features, draw_training_set, widened
from veilwatch.learning.detectors import DETECTORS, Detector, DetectorSettings, TrainingSet
from veilwatch.learning.detectors.base import Scores
from veilwatch.learning.detectors.evidence import log_odds
from veilwatch.schema.features import FeatureFrame, Values

LEAST_AUC: Final = 0.9
"""What a detector has to reach on drawn units of two classes that differ in plain sight."""

UNDECIDED: Final = 0.05
"""How far from 0.5 a detector may score where its inputs say nothing and both classes weigh
alike."""

SUBPROCESS_S: Final = 300.0
"""Longest time that loading and scoring in a process of its own may take: libraries load slowly on
a machine that has other work."""

MAX_REASON: Final = 200
"""Characters kept of why a rule was broken; NumPy prints whole arrays."""

FRAMEWORKS: Final = ("torch", "onnx", "tensorflow", "keras", "jax", "gensim")
"""What trains models. A sensor has none of it."""


@dataclass(frozen=True)
class Candidate:
    """A detector on trial, and what all rules share.

    Attributes
    ----------
    kind
        Its class.
    settings
        Settings with which it is quick to train.
    """

    kind: type[Detector]
    settings: DetectorSettings

    @cached_property
    def training(self) -> TrainingSet:
        """Labelled units of the detector's own kind; no rule changes them."""
        return draw_training_set(self.kind)

    @cached_property
    def fitted(self) -> Detector:
        """The detector trained on `training`."""
        return self.fit(self.training)

    @cached_property
    def unseen(self) -> FeatureFrame:
        """Units that it never saw."""
        return draw_features(self.kind, 200, seed=99)

    def fit(self, training: TrainingSet, seed: int | None = None) -> Detector:
        """Return a new detector trained on some units."""
        detector = self.kind()
        seed = self.settings.seed if seed is None else seed
        detector.fit(training, replace(self.settings, seed=seed))
        return detector


def _require(holds: object, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)


@contextmanager
def _refused(error: type[Exception], what: str) -> Iterator[None]:
    """Expect an error of a kind."""
    try:
        yield
    except error:
        return
    except Exception as other:
        raise AssertionError(
            f"{what}: {type(other).__name__} instead of {error.__name__}: {other}"
        ) from other
    raise AssertionError(f"{what}: no {error.__name__}")


def _with_values(features: FeatureFrame, values: Values) -> FeatureFrame:
    return replace(features, values=values.astype(features.values.dtype))


def _rank_quality(score: Scores, malicious: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> float:
    """Return the area under the ROC curve: how often a malicious unit outscores a benign one."""
    bad, good = score[malicious][:, None], score[~malicious][None, :]
    return float(np.mean((bad > good) + 0.5 * (bad == good)))


def keeps_the_protocol(on: Candidate) -> None:
    """It has every member of `Detector`."""
    _require(isinstance(on.fitted, Detector), "a member of Detector is missing")
    _require(on.fitted.name == on.kind.name, "an object has another name than its class")


def scores_are_probabilities_that_tell_classes_apart(on: Candidate) -> None:
    """Scores are float64 in 0…1, one a unit, and rank malicious units above benign ones."""
    other = draw_training_set(on.kind, seed=5)
    score = on.fitted.predict_proba(other.features)
    _require(score.shape == (len(other.features),), f"scores of shape {score.shape}")
    _require(score.dtype == np.float64, f"scores are {score.dtype}, not float64")
    _require(((score >= 0) & (score <= 1)).all(), "scores outside 0…1")
    quality = _rank_quality(score, other.malicious)
    _require(quality > LEAST_AUC, f"classes in plain sight are told apart with AUC {quality:.3f}")


def equal_seeds_give_equal_scores(on: Candidate) -> None:
    """The same units and seed give the same scores."""
    again = on.fit(on.training)
    np.testing.assert_array_equal(
        on.fitted.predict_proba(on.unseen), again.predict_proba(on.unseen)
    )


def fitting_again_forgets_the_first_time(on: Candidate) -> None:
    """A second `fit` begins anew."""
    detector = on.fit(draw_training_set(on.kind, seed=8))
    detector.fit(on.training, on.settings)
    np.testing.assert_array_equal(
        detector.predict_proba(on.unseen), on.fitted.predict_proba(on.unseen)
    )


def fitting_changes_nothing_that_it_is_given(on: Candidate) -> None:
    """`fit` leaves values and weights as they were."""
    training = on.training
    values, weight = training.features.values.copy(), training.weight.copy()
    on.fit(training)
    np.testing.assert_array_equal(training.features.values, values)
    np.testing.assert_array_equal(training.weight, weight)


def weights_matter(on: Candidate) -> None:
    """A class that weighs a hundred times more draws all scores towards it."""
    malicious = on.training.malicious
    heavy = replace(on.training, weight=np.where(malicious, 100.0, 1.0))
    light = replace(on.training, weight=np.where(malicious, 0.01, 1.0))
    up, down = (log_odds(on.fit(item).predict_proba(on.unseen)) for item in (heavy, light))
    _require(np.median(up) > np.median(down) + 1, "weights of units are not heeded")


def a_saved_detector_scores_the_same(on: Candidate) -> None:
    """`load` gives what `save` was given, and `save` names every file it wrote."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        files = on.fitted.save(folder)
        _require(
            sorted(files) == sorted(path.name for path in folder.iterdir()),
            "save does not name the files that it wrote",
        )
        loaded = on.kind.load(folder, on.unseen.schema)
        for asked in ("predict_proba", "explain"):
            np.testing.assert_array_equal(
                getattr(loaded, asked)(on.unseen), getattr(on.fitted, asked)(on.unseen)
            )


def another_schema_is_refused_on_loading(on: Candidate) -> None:
    """A saved detector is not loaded for other features, or the same in another order."""
    schema = on.unseen.schema
    first, second, *rest = schema.features
    with TemporaryDirectory() as name:
        on.fitted.save(Path(name))
        for features in ((second, first, *rest), (second, *rest), (first, first, second, *rest)):
            with _refused(ModelError, "loaded for other features"):
                on.kind.load(Path(name), replace(schema, features=features))


def another_schema_is_refused_on_scoring(on: Candidate) -> None:
    """Features of another schema are not scored."""
    schema = on.unseen.schema
    wider = widened(on.unseen)
    newer = replace(on.unseen, schema=replace(schema, version=schema.version + 1))
    for features in (wider, newer):
        with _refused(ModelError, "features of another schema are scored"):
            on.fitted.predict_proba(features)
        with _refused(ModelError, "features of another schema are explained"):
            on.fitted.explain(features)


def damaged_files_are_refused(on: Candidate) -> None:
    """A file that is missing, empty, cut or of other content is a `ModelError`."""
    for damage in ("missing", "empty", "cut", "binary"):
        with TemporaryDirectory() as name:
            path = Path(name) / on.fitted.save(Path(name))[0]
            content = path.read_bytes()
            damaged = {
                "empty": b"",
                "cut": content[: len(content) // 2],
                "binary": b"\xff\xfe\0" * 99,
            }
            if damage == "missing":
                path.unlink()
            else:
                path.write_bytes(damaged[damage])
            with _refused(ModelError, f"a file that is {damage}"):
                on.kind.load(Path(name), on.unseen.schema)


def an_untrained_detector_says_so(on: Candidate) -> None:
    """Before `fit` nothing is scored, explained or written."""
    detector = on.kind()
    with _refused(ModelError, "scored before fit"):
        detector.predict_proba(on.unseen)
    with _refused(ModelError, "explained before fit"):
        detector.explain(on.unseen)
    with TemporaryDirectory() as name:
        with _refused(ModelError, "saved before fit"):
            detector.save(Path(name))
        _require(not list(Path(name).iterdir()), "files of an untrained detector")


def one_class_cannot_be_learned_from(on: Candidate) -> None:
    """Units of one class, or none, are a `TrainingError` that names the class and the unit."""
    for rows in (
        np.flatnonzero(on.training.malicious),
        np.flatnonzero(~on.training.malicious),
        np.zeros(0, np.intp),
    ):
        with _refused(TrainingError, "one class is learned from"):
            on.fit(on.training.take(rows))


def two_units_are_enough_to_fit(on: Candidate) -> None:
    """One unit of each class gives finite scores."""
    small = on.training.take(np.array([0, 1]))
    _require(np.isfinite(on.fit(small).predict_proba(small.features)).all(), "scores not finite")


def rows_are_scored_one_by_one(on: Candidate) -> None:
    """What stands beside a unit does not change its score."""
    whole, explained = on.fitted.predict_proba(on.unseen), on.fitted.explain(on.unseen)
    for row in (0, 57):
        one = on.unseen.take(np.array([row]))
        np.testing.assert_allclose(on.fitted.predict_proba(one), whole[row : row + 1], rtol=1e-12)
        np.testing.assert_allclose(on.fitted.explain(one), explained[row : row + 1], atol=1e-12)


def no_rows_give_no_scores(on: Candidate) -> None:
    """An empty frame is scored and explained."""
    none = on.unseen.take(np.zeros(0, np.intp))
    _require(on.fitted.predict_proba(none).shape == (0,), "scores of no units")
    columns = len(on.unseen.schema.features)
    _require(on.fitted.explain(none).shape == (0, columns), "explanations of no units")


def constant_rows_are_scored(on: Candidate) -> None:
    """Missing, zero and enormous values give finite numbers."""
    for value in (np.nan, 0.0, 3e38, -3e38):
        odd = _with_values(on.unseen, np.full_like(on.unseen.values, value))
        _require(np.isfinite(on.fitted.predict_proba(odd)).all(), f"scores of {value:g}")
        _require(np.isfinite(on.fitted.explain(odd)).all(), f"explanations of {value:g}")


def columns_that_tell_nothing_decide_nothing(on: Candidate) -> None:
    """Half of the columns, and then all of them, are constant or missing."""
    features = on.training.features
    for value in (np.nan, 1.0):
        values = features.values.copy()
        values[:, ::2] = value
        half = replace(on.training, features=_with_values(features, values))
        score = on.fit(half).predict_proba(half.features)
        _require(np.isfinite(score).all(), f"scores where half of the columns are {value:g}")
        same = _with_values(features, np.full_like(features.values, value))
        score = on.fit(replace(on.training, features=same)).predict_proba(same)
        np.testing.assert_allclose(score, 0.5, atol=UNDECIDED)


def explanations_have_a_number_for_each_feature(on: Candidate) -> None:
    """Explanations are finite float64 of shape (units, features), and not all zero."""
    parts = on.fitted.explain(on.unseen)
    _require(parts.shape == on.unseen.values.shape, f"explanations of shape {parts.shape}")
    _require(parts.dtype == np.float64, f"explanations are {parts.dtype}, not float64")
    _require(np.isfinite(parts).all() and parts.any(), "explanations are not finite, or all zero")


def threads_get_the_same_scores(on: Candidate) -> None:
    """Threads may score and explain at one time."""
    score, parts = on.fitted.predict_proba(on.unseen), on.fitted.explain(on.unseen)
    with ThreadPoolExecutor(2) as pool:
        scores = [pool.submit(on.fitted.predict_proba, on.unseen) for _ in range(8)]
        explained = [pool.submit(on.fitted.explain, on.unseen) for _ in range(4)]
    for future in scores:
        np.testing.assert_array_equal(future.result(), score)
    for future in explained:
        np.testing.assert_array_equal(future.result(), parts)


_SCORE_ELSEWHERE: Final = """
import importlib, json, operator, sys
job = json.load(sys.stdin)
sys.path[:] = job["path"]
from pathlib import Path
from veilwatch.learning.checks.units import draw_features
kind = operator.attrgetter(job["class"])(importlib.import_module(job["module"]))
frame = draw_features(kind, 3)
detector = kind.load(Path(job["folder"]), frame.schema)
detector.predict_proba(frame), detector.explain(frame)
print(json.dumps(sorted(set(job["frameworks"]) & set(sys.modules))))
"""


def scoring_needs_no_training_framework(on: Candidate) -> None:
    """A process that loads and scores imports no training framework."""
    with TemporaryDirectory() as folder:
        on.fitted.save(Path(folder))
        job = {
            "module": on.kind.__module__,
            "class": on.kind.__qualname__,
            "folder": folder,
            "path": sys.path,
            "frameworks": FRAMEWORKS,
        }
        done = subprocess.run(  # noqa: S603 - our own interpreter and text
            [sys.executable, "-c", _SCORE_ELSEWHERE],
            input=json.dumps(job),
            capture_output=True,
            text=True,
            check=False,
            timeout=SUBPROCESS_S,
        )
    last = (done.stderr.strip().splitlines() or ["no output"])[-1]
    _require(done.returncode == 0, f"cannot be loaded in a process of its own: {last}")
    loaded = json.loads(done.stdout)
    _require(not loaded, f"scoring imports {', '.join(loaded)}")


CHECKS: Final[tuple[Callable[[Candidate], None], ...]] = (
    keeps_the_protocol,
    scores_are_probabilities_that_tell_classes_apart,
    equal_seeds_give_equal_scores,
    fitting_again_forgets_the_first_time,
    fitting_changes_nothing_that_it_is_given,
    weights_matter,
    a_saved_detector_scores_the_same,
    another_schema_is_refused_on_loading,
    another_schema_is_refused_on_scoring,
    damaged_files_are_refused,
    an_untrained_detector_says_so,
    one_class_cannot_be_learned_from,
    two_units_are_enough_to_fit,
    rows_are_scored_one_by_one,
    no_rows_give_no_scores,
    constant_rows_are_scored,
    columns_that_tell_nothing_decide_nothing,
    explanations_have_a_number_for_each_feature,
    threads_get_the_same_scores,
    scoring_needs_no_training_framework,
)
"""Every rule; each raises AssertionError where it is broken."""


def check_detector(
    detector: str | type[Detector], settings: DetectorSettings | None = None
) -> None:
    """Run a detector through every rule of the contract.

    Parameters
    ----------
    detector
        Its class, or the name of one that is installed.
    settings
        Settings with which it trains quickly: it is trained some twenty times.

    Raises
    ------
    PluginError
        If there is none of that name, or it breaks a rule; all that it breaks are named.
    """
    if isinstance(detector, str) and detector not in DETECTORS:
        known = ", ".join(DETECTORS)
        raise PluginError(f"no detector is called {detector[:40]!r}", hint=f"known: {known}")
    kind = DETECTORS[detector] if isinstance(detector, str) else detector
    on = Candidate(kind, settings or DetectorSettings(threads=1))
    broken = []
    for check in CHECKS:
        try:
            check(on)
        except Exception as error:  # whatever a detector raises where it should not
            said = " ".join(str(error).split())[:MAX_REASON]
            kind_of = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
            broken.append(f"{check.__name__.replace('_', ' ')}: {kind_of}{said}")
    if broken:
        raise PluginError(
            f"breaks {len(broken)} of {len(CHECKS)} rules of a detector: {'; '.join(broken)}",
            where=kind.name,
        )
