"""Distances are near zero between samples of one kind, and large between others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.learning.comparison.factory import capture_corpus
from veilwatch.corpus.catalogue import Corpus, load_corpus
from veilwatch.learning.evaluation.realism import _distance, measure_realism


def sample(rng: np.random.Generator, captures: int, mean: float) -> tuple[np.ndarray, np.ndarray]:
    """Flows whose captures differ, some of which have a hundred times as many as others."""
    sizes = rng.choice([1, 3, 100], captures)
    numbers = np.repeat(np.arange(captures), sizes)
    return rng.normal(mean + rng.normal(0, 1, captures)[numbers], 0.1), numbers


@pytest.mark.parametrize(("shift", "near"), [(0.0, True), (4.0, False)])
def test_distance_of_captures_and_not_of_flows(shift: float, near: bool) -> None:
    rng = np.random.default_rng(1)
    first, second = sample(rng, 150, 0.0), sample(rng, 150, shift)
    found = _distance("x", [first[0], second[0]], [first[1], second[1]], rng)
    assert found is not None
    assert found.low <= found.distance <= found.high + 0.05
    assert (found.distance < 0.2) == near
    assert found.among_real < 0.25
    assert (abs(found.emulated - found.real) < 0.6) == near


def test_missing_values_are_a_difference() -> None:
    rng = np.random.default_rng(2)
    whole, numbers = np.ones(400), np.repeat(np.arange(20), 20)
    holes = np.where(rng.random(400) < 0.5, np.nan, 1.0)
    found = _distance("x", [whole, holes], [numbers, numbers], rng)
    assert found is not None and 0.3 < found.distance < 0.7
    assert _distance("x", [whole, whole], [numbers, numbers], rng) is None
    assert _distance("x", [whole * np.nan] * 2, [numbers, numbers], rng) is None


def corpus(folder: Path, *, captures: int = 24) -> Corpus:
    folder.mkdir()
    return load_corpus(capture_corpus(folder, captures=captures), workers=1)


def test_what_one_hand_made_is_not_told_apart_and_too_little_is_not_compared(
    tmp_path: Path,
) -> None:
    one, other = corpus(tmp_path / "one", captures=40), corpus(tmp_path / "two", captures=40)
    samples = measure_realism(one, other, threads=1)
    assert {item.label for item in samples} == {"malicious", "benign"}
    for item in samples:
        assert item.emulated == item.real == 20
        assert item.auc < 0.7 and item.median_distance < 0.1
        distances = [feature.distance for feature in item.features]
        assert distances == sorted(distances, reverse=True)
        assert item.document()["features"][0]["feature"] == item.features[0].feature
    few = corpus(tmp_path / "few", captures=6)
    assert measure_realism(few, other, threads=1) == []
