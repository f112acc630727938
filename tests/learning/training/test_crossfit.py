"""No flow is scored by a member that learned from its fold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

import numpy as np
import pytest

from tests.learning.training.factory import QUICK, entry, make_corpus, make_training_set
from veilwatch.corpus.catalogue import Corpus
from veilwatch.errors import TrainingError
from veilwatch.learning.detectors import DETECTORS, DetectorSettings, TrainingSet
from veilwatch.learning.evaluation.labelled import read_labels
from veilwatch.learning.evaluation.splits import assign_folds
from veilwatch.learning.training import TrainingOptions, cross_validate, crossvalidate, train_model
from veilwatch.learning.training.crossfit import cross_fit
from veilwatch.schema.features import FeatureFrame, FeatureSchema


class Witness:
    """Remembers which flows it learned from, and which it scored."""

    name: ClassVar[str] = "witness"
    feature_sets: ClassVar[Sequence[str]] = ("sequence",)
    unit: ClassVar[str] = "flow"
    made: ClassVar[list[Witness]] = []

    def __init__(self) -> None:
        self.learned: set[int] = set()
        self.captures: set[int] = set()
        self.scored: list[int] = []
        self.made.append(self)

    def fit(
        self, training: TrainingSet, settings: DetectorSettings, progress: object = None
    ) -> None:
        self.learned = set(training.features.keys["flow_id"].to_list())
        self.captures = set(training.capture.tolist())

    def predict_proba(self, features: FeatureFrame) -> Any:
        flows = features.keys["flow_id"].to_list()
        self.scored += flows
        return np.array([(flow % 97) / 97 for flow in flows])

    def explain(self, features: FeatureFrame) -> Any:
        return np.zeros(features.values.shape)

    def save(self, folder: Path) -> list[str]:
        return []

    @classmethod
    def load(cls, folder: Path, schema: FeatureSchema) -> Witness:
        return cls()


@pytest.fixture(autouse=True)
def witness(monkeypatch: pytest.MonkeyPatch) -> type[Witness]:
    monkeypatch.setitem(DETECTORS, "witness", Witness)
    monkeypatch.setattr(Witness, "made", [])
    return Witness


def test_each_flow_is_scored_once_and_from_outside() -> None:
    training = make_training_set(200)
    fold = training.capture % 4
    fit = cross_fit("witness", training, fold, DetectorSettings())
    assert len(fit.members) == len(Witness.made) == 4
    everything = set(range(200))
    for number, member in enumerate(Witness.made):
        inside = set(np.flatnonzero(fold == number).tolist())
        assert set(member.scored) == inside
        assert member.learned == everything - inside
    assert sorted(flow for member in Witness.made for flow in member.scored) == sorted(everything)
    np.testing.assert_array_equal(fit.score, np.arange(200) % 97 / 97)


@pytest.mark.parametrize("by", ["group", "source"])
def test_training_never_scores_a_capture_it_learned_from(by: Any, tmp_path: Path) -> None:
    corpus = make_corpus(captures=24, flows=5)
    manifest = tmp_path / "MANIFEST.csv"
    manifest.touch()
    options = TrainingOptions(detector="witness", folds=3, split=by)
    train_model(corpus, manifest, options)
    keys = [item.group if by == "group" else item.source_repo for item in corpus.entries]
    capture = corpus.flows["capture"].to_list()
    for member in Witness.made:
        learned = {keys[k] for k in member.captures}
        assert learned.isdisjoint(keys[capture[flow]] for flow in member.scored)
        assert learned | {keys[capture[flow]] for flow in member.scored} == set(keys)


@pytest.mark.parametrize("by", ["group", "source", "flow"])
def test_cross_validation_scores_every_flow_from_outside(by: Any) -> None:
    corpus = make_corpus(captures=18, flows=10)
    options = TrainingOptions(detector="witness", folds=3)
    figures = cross_validate(corpus, by, options)
    assert (figures["split"], figures["folds"]) == (by, 3)
    scored = [flow for member in Witness.made for flow in member.scored]
    assert sorted(scored) == list(range(180))
    for member in Witness.made:
        assert member.learned.isdisjoint(member.scored)
    assert figures["flow"]["n_positive"] + figures["flow"]["n_negative"] == 180
    assert figures["capture"]["n_positive"] + figures["capture"]["n_negative"] == 18
    means = figures["mean_of_folds"]
    assert means["flow"]["n_positive"] + means["flow"]["n_negative"] == 180
    assert means["capture"]["folds"] == (0 if by == "flow" else 3)


def test_thresholds_of_a_fold_come_from_the_other_folds() -> None:
    """Where one fold's benign scores are high, only the other folds' thresholds follow them."""
    corpus = make_corpus(captures=12, flows=40)
    labels = read_labels(corpus)
    options = TrainingOptions(detector="witness", folds=3, target_rate=0.1)
    fold = assign_folds(corpus.entries, "group", folds=3, seed=options.settings.seed)
    loud = fold[labels.capture] == 0

    def predict(self: Witness, features: FeatureFrame) -> Any:
        return np.where(loud[features.keys["flow_id"].to_numpy()], 0.9, 0.1)

    with patch.object(Witness, "predict_proba", predict):
        figures = cross_validate(corpus, "group", options)
    # The loud fold passes thresholds set by two quiet ones; no quiet flow passes one set by
    # folds of which one is loud.
    share = float(loud[~labels.malicious].mean())
    assert figures["flow"]["false_positive_rate"] == pytest.approx(share)


def test_captures_without_flows_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where all captures of the last fold are empty."""
    corpus = make_corpus(captures=8, flows=6)
    empty = [entry(9, "malicious"), entry(8, "benign")]
    fold = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2])
    monkeypatch.setattr(crossvalidate, "assign_folds", lambda *args, **kwargs: fold)
    padded = Corpus([*corpus.entries, *empty], corpus.flows, corpus.hashes, {})
    figures = cross_validate(padded, "group", TrainingOptions(detector="witness", folds=3))
    assert figures["capture"]["n_positive"] == figures["capture"]["n_negative"] == 4
    assert sum(family["n"] for family in figures["families"].values()) == 4


def test_one_class_outside_a_fold() -> None:
    training = make_training_set(40)
    fold = training.malicious.astype(np.int64)
    with pytest.raises(TrainingError, match="fall into fold 1 of 2"):
        cross_fit("witness", training, fold, QUICK)
