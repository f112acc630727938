"""What the LSTM sees of packets, and how it explains itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.learning.features.factory import LATE
from tests.learning.training.factory import QUICK_LSTM, own_training_set
from veilwatch.learning.detectors import TrainingSet
from veilwatch.learning.detectors.evidence import log_odds
from veilwatch.learning.detectors.lstm import (
    CHANNELS,
    GAP_EDGES,
    MAX_SIZE,
    SIZE_EDGES,
    LSTMDetector,
)
from veilwatch.learning.detectors.nets.piecewise import piecewise
from veilwatch.learning.features.informative import NETWORK_PACKETS

pytest.importorskip("torch")
pytest.importorskip("onnx")

SIZE, GAP, FLAGS = (slice(k * NETWORK_PACKETS, (k + 1) * NETWORK_PACKETS) for k in range(3))


@pytest.fixture(scope="module")
def training() -> TrainingSet:
    return own_training_set("lstm")


@pytest.fixture(scope="module")
def fitted(training: TrainingSet) -> LSTMDetector:
    detector = LSTMDetector()
    detector.fit(training, QUICK_LSTM)
    return detector


def flow(*packets: tuple[float, float, float]) -> np.ndarray:
    """Values of one flow with these sizes, gaps and flags."""
    values = np.full((1, 3 * NETWORK_PACKETS), np.nan, np.float32)
    for k, packet in enumerate(packets):
        values[0, k], values[0, NETWORK_PACKETS + k], values[0, 2 * NETWORK_PACKETS + k] = packet
    return values


def code(value: float, edges: np.ndarray) -> list[float]:
    """Piecewise linear code of one number, range by range."""
    pairs = zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
    return [min(max((value - low) / (high - low), 0.0), 1.0) for low, high in pairs]


def test_a_packet_number_by_number() -> None:
    packets = [(0, 0, 2), (0, 0.02, 18), (517, 0.3, 8), (-1460, 700, 24)]
    steps, length = LSTMDetector().inputs(flow(*packets))
    assert steps.shape == (1, 4, CHANNELS) and length.tolist() == [4]
    for found, (size, gap, flags) in zip(steps[0], packets, strict=True):
        wanted = code(gap, GAP_EDGES) + code(size, SIZE_EDGES) + code(-size, SIZE_EDGES)
        wanted += [1.0, float(flags & 16 > 0)] + [float(flags & bit > 0) for bit in (1, 2, 4, 8)]
        np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_sizes_are_told_apart_and_never_fall() -> None:
    sizes = np.arange(MAX_SIZE + 100, dtype=np.float32)
    codes = piecewise(sizes, SIZE_EDGES)
    assert (np.diff(codes, axis=0) >= 0).all()
    assert len(np.unique(codes[: MAX_SIZE + 1], axis=0)) == MAX_SIZE + 1
    np.testing.assert_array_equal(codes[MAX_SIZE], codes[-1])


def test_a_packet_that_is_missing_is_not_there() -> None:
    """Those behind it move up, and time goes on."""
    whole = flow((100, 0, 8), (200, 0.5, 8), (-300, 0.25, 24))
    lacking = whole.copy()
    lacking[0, 1] = np.nan
    steps, length = LSTMDetector().inputs(lacking)
    wanted, _ = LSTMDetector().inputs(flow((100, 0, 8), (-300, 0.75, 24)))
    np.testing.assert_array_equal(steps, wanted)
    assert length.tolist() == [2]


def test_padding_is_zero_and_follows_the_longest() -> None:
    values = np.concatenate([flow(), flow((9, 0, 0)), flow((9, 0, 0), (8, 1, 0), (7, 1, 0))])
    steps, length = LSTMDetector().inputs(values)
    assert steps.shape == (3, 3, CHANNELS) and length.tolist() == [1, 1, 3]
    assert not steps[0].any() and not steps[1, 1:].any() and steps[2].any(axis=1).all()


def test_a_score_does_not_depend_on_the_flows_beside_it(
    fitted: LSTMDetector, training: TrainingSet
) -> None:
    """Whatever the order, however long the others are."""
    values = training.features.values.copy()
    rng = np.random.default_rng(0)
    values[:, SIZE][
        np.arange(NETWORK_PACKETS) >= rng.integers(0, NETWORK_PACKETS + 1, (len(values), 1))
    ] = np.nan
    features = replace(training.features, values=values)
    whole = fitted.predict_proba(features)
    order = rng.permutation(len(values))
    np.testing.assert_array_equal(fitted.predict_proba(features.take(order)), whole[order])
    few = order[:3]
    np.testing.assert_array_equal(fitted.predict_proba(features.take(few)), whole[few])


def test_a_contribution_is_what_the_log_odds_lose(
    fitted: LSTMDetector, training: TrainingSet
) -> None:
    features = training.features.take(np.arange(3))
    parts = fitted.explain(features)
    whole = log_odds(fitted.predict_proba(features))
    for packet in (0, 10, 50):
        values = features.values.copy()
        values[:, packet] = np.nan
        lost = whole - log_odds(fitted.predict_proba(replace(features, values=values)))
        np.testing.assert_allclose(parts[:, packet], lost, atol=1e-4)
    assert not parts[:, NETWORK_PACKETS:].any()


def test_contributions_go_to_the_packets_that_tell(
    fitted: LSTMDetector, training: TrainingSet
) -> None:
    mean = np.abs(fitted.explain(training.features)[:, :NETWORK_PACKETS]).mean(axis=0)
    assert mean[LATE:].mean() > 2 * mean[:LATE].mean()
