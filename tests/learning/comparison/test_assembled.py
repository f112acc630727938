"""The ensemble put together from its members' results, beside the ensemble that was trained."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.learning.training.factory import QUICK_BY_DETECTOR, own_features, own_training_set
from veilwatch.learning.comparison.assembled import assemble, is_assembled
from veilwatch.learning.comparison.jobs import Outcome
from veilwatch.learning.detectors import DETECTORS
from veilwatch.learning.detectors.ensemble import MEMBERS, measure_scale

TWO = ("lightgbm", "catboost")


def outcome(score: np.ndarray, scale: dict[str, float], rate: float = 100.0) -> Outcome:
    facts = {
        "train_seconds": 2.0,
        "train_cpu_seconds": 1.5,
        "peak_memory": int(rate),
        "trained_units": 7,
        "units_per_second": rate,
        "bytes": 10,
        "scale": scale,
    }
    rows = np.arange(len(score))
    return Outcome(rows, score, facts, rows[:1], score[:1], rows[:2], score[:2])


def test_it_scores_as_the_trained_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("veilwatch.learning.comparison.assembled.MEMBERS", TWO)
    parameters = {name: QUICK_BY_DETECTOR[name].parameters for name in TWO}
    settings = replace(
        QUICK_BY_DETECTOR["ensemble"], parameters={"members": list(TWO), **parameters}
    )
    whole = DETECTORS["ensemble"]()
    whole.fit(own_training_set("ensemble"), settings)
    features = own_features("ensemble", 40, seed=5)
    parts = {}
    for name in TWO:
        training = own_training_set(name)
        member = DETECTORS[name]()
        member.fit(training, QUICK_BY_DETECTOR[name])
        scale = measure_scale(member.predict_proba(training.features), training)
        score = member.predict_proba(own_features(name, 40, seed=5))
        parts[name, "group", 0] = outcome(score, scale.model_dump())
    found = assemble(parts)["ensemble", "group", 0]
    np.testing.assert_allclose(found.score, whole.predict_proba(features), rtol=1e-9)
    np.testing.assert_array_equal(found.kept_score, found.score[:1])
    np.testing.assert_array_equal(found.trial_score, found.score[:2])


def test_its_cost_is_that_of_all_members() -> None:
    scale = {"middle": 0.0, "half": 1.0}
    score = np.array([0.2, 0.8])
    parts = {(name, "group", 1): outcome(score, scale, rate=100.0 * 2**k)
             for k, name in enumerate(MEMBERS)}  # fmt: skip
    facts = assemble(parts)["ensemble", "group", 1].facts
    assert (facts["train_seconds"], facts["bytes"], facts["peak_memory"]) == (6.0, 30, 400)
    assert facts["units_per_second"] == pytest.approx(1 / (1 / 100 + 1 / 200 + 1 / 400))


def test_a_fold_that_a_member_could_not_be_trained_on_is_left_out() -> None:
    scale = {"middle": 0.0, "half": 1.0}
    parts = {(name, "source", k): outcome(np.array([0.5]), scale)
             for name in MEMBERS for k in (0, 1)}  # fmt: skip
    del parts["lstm", "source", 1]
    assert list(assemble(parts)) == [("ensemble", "source", 0)]


def test_only_with_all_members() -> None:
    assert is_assembled(["ensemble", "host_window", *MEMBERS])
    assert not is_assembled(["ensemble", "lightgbm"]) and not is_assembled(MEMBERS)
