"""What MobileNetV2 sees of packets, and how it explains itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.learning.training.factory import QUICK_MOBILENET, own_training_set
from veilwatch.learning.detectors import TrainingSet
from veilwatch.learning.detectors.evidence import log_odds
from veilwatch.learning.detectors.mobilenet import MobileNetDetector
from veilwatch.learning.features.flowpic import CELLS, CHANNEL, SIDE
from veilwatch.learning.features.informative import NETWORK_PACKETS

pytest.importorskip("torch")
pytest.importorskip("onnx")


@pytest.fixture(scope="module")
def training() -> TrainingSet:
    return own_training_set("mobilenet", rows=120)


@pytest.fixture(scope="module")
def fitted(training: TrainingSet) -> MobileNetDetector:
    detector = MobileNetDetector()
    detector.fit(training, QUICK_MOBILENET)
    return detector


def naive_picture(cells: list[float]) -> np.ndarray:
    """Packets in a cell for each direction, then those at least so large until then."""
    out = np.zeros((4, SIDE, SIDE))
    for cell in cells:
        if not 0 <= cell < CELLS:  # not a number, or no cell
            continue
        side, row, column = int(cell) // CHANNEL, int(cell) // SIDE % SIDE, int(cell) % SIDE
        out[side, row, column] += 1
        for r in range(row + 1):
            for c in range(column, SIDE):
                out[2 + side, r, c] += 1
    return np.log2(1 + out)


def test_pictures_cell_by_cell() -> None:
    rng = np.random.default_rng(2)
    values = rng.integers(0, CELLS, (9, NETWORK_PACKETS)).astype(np.float32)
    values[np.arange(NETWORK_PACKETS) >= rng.integers(0, NETWORK_PACKETS + 1, (9, 1))] = np.nan
    values[0] = 77  # 64 packets in one cell
    values[1, :3] = CELLS, -1, 3e38
    (pictures,) = MobileNetDetector().inputs(values)
    assert pictures.dtype == np.float32
    for picture, cells in zip(pictures, values, strict=True):
        np.testing.assert_allclose(picture, naive_picture(cells.tolist()), rtol=1e-6)


def test_the_order_of_packets_within_a_picture_does_not_matter() -> None:
    values = np.full((4, NETWORK_PACKETS), np.nan, np.float32)
    values[0, :3] = 5, 6, 6
    values[1, 2:5] = 6, 5, 6
    values[2, :3] = 5, 5, 6
    first, which = MobileNetDetector().distinct(values)
    assert len(first) == 3
    assert which[0] == which[1] and len(set(which.tolist())) == 3
    assert (first[which] == [0, 0, 2, 3]).all()


def test_a_contribution_is_what_the_log_odds_lose_with_a_cell(
    fitted: MobileNetDetector, training: TrainingSet
) -> None:
    values = training.features.values[:4].copy()
    values[:, 9] = values[:, 3]  # two packets in one cell, at least
    features = replace(training.features, values=values, keys=training.features.keys[:4])
    parts = fitted.explain(features)
    whole = log_odds(fitted.predict_proba(features))
    for packet in (0, 3, 50):
        same = values == values[:, [packet]]
        lacking = replace(features, values=np.where(same, np.float32(np.nan), values))
        lost = whole - log_odds(fitted.predict_proba(lacking))
        np.testing.assert_allclose((parts * same).sum(axis=1), lost, atol=1e-4)
    np.testing.assert_array_equal(parts[:, 3], parts[:, 9])


def test_what_is_not_there_brings_nothing(fitted: MobileNetDetector, training: TrainingSet) -> None:
    values = training.features.values[:4].copy()
    values[:, 20:] = np.nan
    values[3] = np.nan
    features = replace(training.features, values=values, keys=training.features.keys[:4])
    parts = fitted.explain(features)
    assert parts[:3, :20].any() and not parts[:, 20:].any() and not parts[3].any()
