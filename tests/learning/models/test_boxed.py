"""The model that ships with the package."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.learning.features.factory import random_flows
from veilwatch.detection.scoring import FlowScorer
from veilwatch.errors import ModelError
from veilwatch.files import BOXED_MODEL
from veilwatch.learning.models import boxed, load_boxed_model

MOST_BYTES = 8 * 1024 * 1024
"""Who installs the package takes no more than this with it."""


def test_it_decides_about_hosts() -> None:
    model = load_boxed_model()
    assert model.unit == "flow" and model.manifest.hosts is not None
    assert not model.manifest.corpus.emulated
    assert model.manifest.hosts.blends.malicious > 0
    scorer = FlowScorer(model)
    scorer.add(random_flows(60))
    hosts = scorer.finish().hosts
    assert hosts["channel_score"].null_count() == hosts["window_score"].null_count() == 0


def test_it_is_small_and_nothing_but_data() -> None:
    files = [path for path in BOXED_MODEL.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".txt", ".json"}
    assert sum(path.stat().st_size for path in files) <= MOST_BYTES


def test_a_damaged_package_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = shutil.copytree(BOXED_MODEL, tmp_path / "boxed")
    monkeypatch.setattr(boxed, "BOXED_MODEL", copy)
    load_boxed_model()
    trees = copy / "host-0" / "lightgbm.txt"
    trees.write_text(trees.read_text().replace("leaf_value=", "leaf_value=0.", 1))
    with pytest.raises(ModelError, match="changed after training"):
        load_boxed_model()
    shutil.rmtree(copy)
    with pytest.raises(ModelError, match="no model here"):
        load_boxed_model()
