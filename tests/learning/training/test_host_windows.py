"""A detector of host windows from a corpus to figures, a model on disk and the page about it."""

from __future__ import annotations

import hashlib

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from tests.learning.features.factory import random_windows
from tests.learning.training.factory import QUICK, entry
from veilwatch.cli import figures as console_figures
from veilwatch.corpus.catalogue import Corpus
from veilwatch.detection.scoring import FlowScorer
from veilwatch.errors import ModelError
from veilwatch.learning.models import Model, load_model, save_model
from veilwatch.learning.training import TrainingOptions, cross_validate, evaluate_model, train_model
from veilwatch.learning.training.units import read_units
from veilwatch.report.evaluation.page import render_evaluation
from veilwatch.schema.flows import FlowTable

CAPTURES, HOSTS = 12, 15
OPTIONS = TrainingOptions(detector="host_window", folds=2, settings=QUICK)


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    """Captures of a few hosts, each with one window; the same addresses in every capture."""
    entries = [entry(k, "malicious" if k % 2 else "benign") for k in range(CAPTURES)]
    capture = np.repeat(np.arange(CAPTURES), HOSTS)
    frame = random_windows(len(capture), seed=1, malicious=capture % 2 == 1).frame
    window = frame["place"]
    frame = frame.drop("place").with_columns(
        src_ip=pl.format("10.0.0.{}", window % HOSTS),
        capture=window // HOSTS,
    )
    hashes = {item.name: hashlib.sha256(item.name.encode()).hexdigest() for item in entries}
    return Corpus(entries, frame, hashes, {})


@pytest.fixture(scope="module")
def model(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("windows")
    (folder / "MANIFEST.csv").write_text("made by the test\n")
    trained = train_model(corpus, folder / "MANIFEST.csv", OPTIONS)
    save_model(folder / "model", trained)
    return load_model(folder / "model")


def test_the_same_address_in_two_captures_is_two_hosts(corpus: Corpus) -> None:
    labels = read_units(corpus, "host_window").labels
    assert labels.unit == "host_window"
    np.testing.assert_array_equal(np.bincount(labels.capture), np.full(CAPTURES, HOSTS))
    np.testing.assert_array_equal(labels.malicious, labels.capture % 2 == 1)


def test_the_model_judges_windows(model: Model, corpus: Corpus) -> None:
    assert model.unit == "host_window"
    assert model.manifest.corpus.malicious_units == CAPTURES * HOSTS // 2
    one = corpus.flows.filter(pl.col("capture") == 3)
    features = model.features(FlowTable(one))
    score = model.score(features)
    assert score.shape == (HOSTS,) == model.explain(features).shape[:1]
    benign = model.score(model.features(FlowTable(corpus.flows.filter(pl.col("capture") == 2))))
    assert np.median(score) > np.median(benign)


def test_figures_are_of_windows_and_captures(model: Model, corpus: Corpus) -> None:
    other = Corpus(corpus.entries, corpus.flows, dict.fromkeys(corpus.hashes, "new"), {})
    for found in (
        model.manifest.held_out,
        evaluate_model(model, other),
        cross_validate(corpus, "group", OPTIONS),
        cross_validate(corpus, "flow", OPTIONS),
    ):
        assert "flow" not in found and "flow_tls" not in found
        assert found["host_window"]["n_positive"] == CAPTURES * HOSTS // 2
        assert found["capture"]["n_positive"] == CAPTURES // 2
        assert found["host_window"]["roc_auc"] > 0.8


def test_figures_are_shown(
    model: Model, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console_figures, "console", Console(width=120))
    console_figures.print_figures(model.manifest.held_out, title="Held out", emulated=False)
    shown = capsys.readouterr().out
    assert "windows" in shown and "captures" in shown and "all flows" not in shown
    page = render_evaluation(model.manifest.held_out)
    assert "Host windows" in page and "TLS and QUIC flows" not in page


def test_a_scorer_of_flows_refuses_it(model: Model) -> None:
    with pytest.raises(ModelError, match="host_window judges host windows, not flows"):
        FlowScorer(model)
