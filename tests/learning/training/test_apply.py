"""A model held against a corpus, of which it may have learned from a part."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from tests.known import known
from tests.learning.training.factory import make_corpus, make_model
from veilwatch.corpus.catalogue import Corpus
from veilwatch.detection.scoring import FlowScorer
from veilwatch.errors import TrainingError
from veilwatch.learning.models import Model
from veilwatch.learning.training.apply import evaluate_model
from veilwatch.schema.flows import FlowTable


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Corpus]:
    return make_model(tmp_path_factory.mktemp("trained"))


def fresh() -> Corpus:
    """Twelve captures of the same kind whose content the model has never seen."""
    corpus = make_corpus(captures=12, seed=9, used=True)
    return Corpus(corpus.entries, corpus.flows, {name: f"new {name}" for name in corpus.hashes}, {})


def test_a_model_is_measured_at_its_own_thresholds(trained: tuple[Model, Corpus]) -> None:
    model, _ = trained
    figures = evaluate_model(model, fresh())
    assert figures["set_aside"] == 0
    assert (figures["flow"]["n_positive"], figures["flow"]["n_negative"]) == (180, 180)
    assert figures["flow"]["threshold"] == model.manifest.thresholds.unit
    assert figures["capture"]["threshold"] == model.manifest.thresholds.group
    assert figures["capture_with_windows"]["threshold"] == known(model.manifest.hosts).threshold
    assert figures["capture_with_windows"]["n_positive"] == figures["capture"]["n_positive"] == 6
    assert figures["flow"]["roc_auc"] > 0.9
    for size in (1, 3):
        used = figures[f"used_host_x{size}"]
        assert used["threshold"] == known(model.manifest.hosts).threshold
        assert (used["n_positive"], used["n_negative"], used["benign_blends"]) == (6, 6, 6)
        assert 0 <= used["benign_blends_alerted"] <= 1
        assert used["roc_auc"] > 0.9


def test_captures_are_decided_about_as_the_scorer_of_a_file_decides(
    trained: tuple[Model, Corpus],
) -> None:
    """Each capture is one host here; a capture with one host is scored the same by `detect`."""
    model, _ = trained
    corpus = fresh()
    one = corpus.flows.with_columns(src_ip=pl.lit("10.0.0.1"), subscriber=pl.lit(""))
    alone = Corpus(corpus.entries, one, corpus.hashes, {})
    figures = evaluate_model(model, alone)["capture_with_windows"]
    found = []
    for k in range(12):
        scorer = FlowScorer(model)
        scorer.add(FlowTable(one.filter(pl.col("capture") == k).drop("capture")))
        found.append(scorer.finish().hosts["alert"].item())
    benign, malicious = found[::2], found[1::2]
    assert figures["detection_rate"] == pytest.approx(np.mean(malicious))
    assert figures["false_positive_rate"] == pytest.approx(np.mean(benign))
    assert 0 < np.mean(found) < 1


def test_captures_it_learned_from_do_not_count(trained: tuple[Model, Corpus]) -> None:
    """Known by their content, under whatever name they come."""
    model, known = trained
    corpus = fresh()
    old = iter(known.hashes.values())
    hashes = {
        item.name: next(old) if k < 4 else corpus.hashes[item.name]
        for k, item in enumerate(corpus.entries)
    }
    figures = evaluate_model(model, Corpus(corpus.entries, corpus.flows, hashes, {}))
    assert figures["set_aside"] == 4
    for level in ("capture", "capture_with_windows"):
        assert figures[level]["n_positive"] + figures[level]["n_negative"] == 8
    for size in (1, 3):  # neither merged with others, nor others with them
        assert figures[f"used_host_x{size}"]["n_positive"] == 4
        assert figures[f"used_host_x{size}"]["n_negative"] == 4
    assert figures["flow"]["n_positive"] + figures["flow"]["n_negative"] == 8 * 30


def test_nothing_left(trained: tuple[Model, Corpus]) -> None:
    with pytest.raises(TrainingError, match="trained on every capture"):
        evaluate_model(*trained)
