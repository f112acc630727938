"""Training end to end on a small synthetic corpus."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.learning.features.factory import random_flows
from tests.learning.training.factory import QUICK, entry, make_corpus, make_model
from veilwatch.corpus.catalogue import Corpus
from veilwatch.errors import TrainingError
from veilwatch.learning.detectors.evidence import UPPER_SHARES
from veilwatch.learning.evaluation.labelled import read_labels
from veilwatch.learning.features import feature_schema
from veilwatch.learning.models import Model
from veilwatch.learning.training import TrainingOptions, cross_validate, train_model
from veilwatch.learning.training.calibrate import calibrate, capture_scores
from veilwatch.schema.flows import FlowTable


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Corpus, Path]:
    folder = tmp_path_factory.mktemp("trained")
    return *make_model(folder), folder / "MANIFEST.csv"


def test_the_manifest_says_what_the_model_is(trained: tuple[Model, Corpus, Path]) -> None:
    model, corpus, path = trained
    manifest = model.manifest
    assert manifest.detector == "lightgbm" and manifest.seed == QUICK.seed
    assert len(model.members) == len(manifest.members) == manifest.parameters["folds"] == 2
    assert manifest.features.names == feature_schema().names
    assert manifest.features.hash == feature_schema().hash
    card = manifest.corpus
    assert card.manifest_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert card.captures == corpus.hashes
    assert (card.malicious_captures, card.benign_captures) == (6, 6)
    assert (card.malicious_units, card.benign_units) == (180, 180)
    assert card.sources == [f"source-{k}" for k in range(6)]
    assert not card.emulated
    assert manifest.held_out["split"] == "group"
    assert manifest.held_out["flow"]["n_positive"] == 180
    assert manifest.held_out["flow"]["roc_auc"] > 0.9


def test_benign_ranges_are_of_benign_flows(trained: tuple[Model, Corpus, Path]) -> None:
    model, corpus, _ = trained
    features = model.features(FlowTable(corpus.flows))
    benign = features.values[~read_labels(corpus).malicious]
    ranges = model.manifest.benign_ranges
    for k, name in enumerate(features.schema.names):
        column = benign[~np.isnan(benign[:, k]), k]
        assert (name in ranges) == (len(column) > 0)
        if len(column):
            found = ranges[name]
            wanted = np.quantile(column, [0.05, 0.5, 0.95])
            np.testing.assert_allclose([found.low, found.median, found.high], wanted, rtol=1e-6)


def test_thresholds_keep_the_target_on_the_flows_they_were_set_on(
    trained: tuple[Model, Corpus, Path],
) -> None:
    thresholds = trained[0].manifest.thresholds
    assert thresholds.target_false_positive_rate == 0.05
    assert thresholds.upper_share in UPPER_SHARES
    assert (thresholds.benign_units, thresholds.benign_captures) == (180, 6)
    held_out = trained[0].manifest.held_out
    assert held_out["flow"]["false_positive_rate"] <= 0.05
    assert held_out["capture"]["false_positive_rate"] == 0.0


@pytest.mark.slow
def test_the_target_rate_holds_on_benign_captures_never_seen(tmp_path: Path) -> None:
    """Conformal coverage is a promise on average: over corpora, and not for each of them."""
    (tmp_path / "MANIFEST.csv").touch()
    options = TrainingOptions(folds=3, target_rate=0.05, settings=QUICK)
    false_alerts, found = [], []
    for seed in range(12):
        corpus = make_corpus(captures=24, flows=60, seed=seed)
        model = train_model(corpus, tmp_path / "MANIFEST.csv", options)
        fresh = make_corpus(captures=40, flows=50, seed=1000 + seed)
        malicious = read_labels(fresh).malicious
        score = model.score(model.features(FlowTable(fresh.flows)))
        alert = score >= model.manifest.thresholds.unit
        false_alerts.append(alert[~malicious].mean())
        found.append(alert[malicious].mean())
    noise = 3 * np.std(false_alerts, ddof=1) / np.sqrt(len(false_alerts))
    assert noise < 0.03, "too few corpora to tell"
    assert abs(np.mean(false_alerts) - 0.05) <= noise
    assert min(found) > 0.5


def test_the_same_seed_gives_the_same_model(tmp_path: Path) -> None:
    (first, corpus), (second, _) = make_model(tmp_path), make_model(tmp_path)
    features = first.features(FlowTable(corpus.flows))
    np.testing.assert_array_equal(first.score(features), second.score(features))
    assert first.manifest.thresholds == second.manifest.thresholds
    assert first.manifest.held_out == second.manifest.held_out


def test_the_model_averages_its_members_in_log_odds(trained: tuple[Model, Corpus, Path]) -> None:
    model, corpus, _ = trained
    features = model.features(FlowTable(corpus.flows.head(50)))
    one, two = (member.predict_proba(features) for member in model.members)
    odds = np.sqrt(one / (1 - one) * two / (1 - two))
    np.testing.assert_allclose(model.score(features), odds / (1 + odds), rtol=1e-9)
    parts = [member.explain(features) for member in model.members]
    np.testing.assert_allclose(model.explain(features), (parts[0] + parts[1]) / 2)
    score = model.score(features)
    rest = np.log(score / (1 - score)) - model.explain(features).sum(axis=1)
    np.testing.assert_allclose(rest, rest[0], atol=1e-9)


def test_calibration_uses_benign_scores_only() -> None:
    corpus = make_corpus(captures=20, flows=50)
    labels = read_labels(corpus)
    score = np.random.default_rng(0).random(len(labels.malicious)) * 0.5
    quiet = calibrate(score, labels, 0.1)
    loud = calibrate(np.where(labels.malicious, 0.99, score), labels, 0.1)
    assert quiet.unit == loud.unit
    assert np.mean(score[~labels.malicious] >= quiet.unit) == pytest.approx(0.1, abs=0.004)


def test_calibration_chooses_the_share_that_tells_captures_apart() -> None:
    """Infected captures with one bad flow in ten need a small share; benign ones are noisy."""
    corpus = make_corpus(captures=40, flows=40)
    labels = read_labels(corpus)
    first = np.tile(np.arange(40) < 10, 40)
    few = np.where(first & labels.malicious, 0.9, 0.2)
    assert calibrate(few, labels, 0.1).upper_share == 0.25
    # Every flow of an infected capture a little odd; benign ones have some very odd flows.
    spread = np.where(labels.malicious, 0.4, np.where(first, 0.9, 0.05))
    assert calibrate(spread, labels, 0.1).upper_share == 1.0
    captures = capture_scores(spread, labels, 1.0)
    assert captures[labels.capture_malicious].min() > captures[~labels.capture_malicious].max()


def test_calibration_without_benign_flows() -> None:
    corpus = make_corpus(captures=4, flows=5)
    labels = read_labels(corpus)
    score = np.where(labels.malicious, 0.5, np.nan)
    with pytest.raises(TrainingError, match="no benign flow is left"):
        calibrate(score, labels, 0.1)


def one_class(label: str) -> Corpus:
    entries = [entry(k, label) for k in range(6)]
    capture = np.repeat(np.arange(6), 4)
    frame = random_flows(24).frame.with_columns(pl.Series("capture", capture, pl.UInt32))
    return Corpus(entries, frame, {item.name: "0" for item in entries}, {})


@pytest.mark.parametrize(
    ("corpus", "options", "message"),
    [
        (one_class("benign"), TrainingOptions(), "no malicious flow"),
        (one_class("malicious"), TrainingOptions(), "no benign flow"),
        (make_corpus(captures=4), TrainingOptions(folds=5), "4 groups cannot fill 5 folds"),
        (
            make_corpus(),
            TrainingOptions(split="source", folds=7),
            "6 sources cannot fill 7 folds",
        ),
        (make_corpus(), TrainingOptions(detector="oracle"), "unknown detector 'oracle'"),
        (make_corpus(captures=2), TrainingOptions(folds=2), "all captures of one class"),
    ],
)
def test_what_cannot_be_trained_on(
    corpus: Corpus, options: TrainingOptions, message: str, tmp_path: Path
) -> None:
    (tmp_path / "MANIFEST.csv").touch()
    quick = replace(options, settings=QUICK)
    with pytest.raises(TrainingError, match=message) as caught:
        train_model(corpus, tmp_path / "MANIFEST.csv", quick)
    assert caught.value.hint
    with pytest.raises(TrainingError, match=message):
        cross_validate(corpus, quick.split, quick)


def test_an_emulated_corpus_marks_its_model(tmp_path: Path) -> None:
    corpus = make_corpus(captures=8, flows=10)
    entries = [replace(item, extra={"emulated": "1"}) for item in corpus.entries]
    (tmp_path / "MANIFEST.csv").touch()
    marked = Corpus(entries, corpus.flows, corpus.hashes, {})
    options = TrainingOptions(folds=2, settings=QUICK, shortcuts=True)
    model = train_model(marked, tmp_path / "MANIFEST.csv", options, name="a name")
    assert model.manifest.corpus.emulated
    assert model.manifest.name == "a name"
    assert model.manifest.features.shortcuts
    assert "dst_port" in model.manifest.features.names
