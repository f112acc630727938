"""The detector of channels, from a corpus to figures and a model on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.learning.training.factory import QUICK, make_corpus
from veilwatch.detection.scoring import FlowScorer
from veilwatch.errors import ModelError
from veilwatch.learning.models import load_model, save_model
from veilwatch.learning.training import TrainingOptions, cross_validate, train_model
from veilwatch.learning.training.units import read_units
from veilwatch.schema.flows import FlowTable

OPTIONS = TrainingOptions(detector="channel", folds=2, settings=QUICK)


def test_it_is_trained_and_measured_by_channel(tmp_path: Path) -> None:
    corpus = make_corpus(captures=12, used=True)
    labels = read_units(corpus, "channel").labels
    assert labels.unit == "channel"
    service = ["capture", "src_ip", "subscriber", "dst_ip", "dst_port", "protocol"]
    assert len(labels.capture) == corpus.flows.select(service).n_unique()
    (tmp_path / "MANIFEST.csv").write_text("made by the test\n")
    model = train_model(corpus, tmp_path / "MANIFEST.csv", OPTIONS)
    assert model.unit == "channel" and model.manifest.hosts is None
    assert model.manifest.corpus.malicious_units == labels.malicious.sum()
    loaded = load_model(save_model(tmp_path / "model", model))
    features = loaded.features(FlowTable(corpus.flows.filter(pl.col("capture") == 3)))
    np.testing.assert_array_equal(loaded.score(features), model.score(features))
    assert {"dst_ip", "dst_port", "protocol", "flow_class"} <= set(features.keys.columns)
    for found in (model.manifest.held_out, cross_validate(corpus, "group", OPTIONS)):
        assert "flow" not in found and found["capture"]["n_positive"] == 6
    with pytest.raises(ModelError, match="channel judges channels, not flows"):
        FlowScorer(model)
