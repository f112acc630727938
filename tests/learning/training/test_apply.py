"""A model held against a corpus, of which it may have learned from a part."""

from __future__ import annotations

import pytest

from tests.learning.training.factory import make_corpus, make_model
from veilwatch.corpus.catalogue import Corpus
from veilwatch.errors import TrainingError
from veilwatch.learning.models import Model
from veilwatch.learning.training.apply import evaluate_model


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Corpus]:
    return make_model(tmp_path_factory.mktemp("trained"))


def fresh() -> Corpus:
    """Twelve captures of the same kind whose content the model has never seen."""
    corpus = make_corpus(captures=12, seed=9)
    return Corpus(corpus.entries, corpus.flows, {name: f"new {name}" for name in corpus.hashes}, {})


def test_a_model_is_measured_at_its_own_thresholds(trained: tuple[Model, Corpus]) -> None:
    model, _ = trained
    figures = evaluate_model(model, fresh())
    assert figures["set_aside"] == 0
    assert (figures["flow"]["n_positive"], figures["flow"]["n_negative"]) == (180, 180)
    assert figures["flow"]["threshold"] == model.manifest.thresholds.unit
    assert figures["capture"]["threshold"] == model.manifest.thresholds.group
    assert figures["capture_with_windows"]["threshold"] == model.manifest.windows.group
    assert figures["capture_with_windows"]["n_positive"] == figures["capture"]["n_positive"] == 6
    assert figures["flow"]["roc_auc"] > 0.9


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
    assert figures["flow"]["n_positive"] + figures["flow"]["n_negative"] == 8 * 30


def test_nothing_left(trained: tuple[Model, Corpus]) -> None:
    with pytest.raises(TrainingError, match="trained on every capture"):
        evaluate_model(*trained)
