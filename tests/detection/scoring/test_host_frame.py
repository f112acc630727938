"""Hosts as they are shown: scores, alerts and what they mean."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import polars as pl
import pytest

from tests.known import known
from tests.learning.training.factory import attentive, make_model
from veilwatch.detection.scoring.host_frame import host_frame
from veilwatch.detection.scoring.hosts import HostSums
from veilwatch.learning.checks.units import random_evidence
from veilwatch.learning.features.host_evidence import (
    EVIDENCE_SCHEMA,
    FLOW_EVIDENCE,
    evidence_frame,
    heard_early,
)
from veilwatch.learning.models import Model
from veilwatch.schema.scores import HostFacts

COUNT = 40
HOSTS = [(f"10.0.0.{k}", "") for k in range(COUNT)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return attentive(make_model(tmp_path_factory.mktemp("corpus"))[0])


@pytest.fixture(scope="module")
def evidence() -> np.ndarray:
    drawn = random_evidence(COUNT, seed=4, malicious=np.arange(COUNT) % 2 == 1)
    return drawn.values.astype(np.float64)


def sums(evidence: np.ndarray) -> HostSums:
    ones = np.ones(COUNT, np.int64)
    return HostSums(
        ones * 9, ones, np.linspace(0, 1, COUNT), ones, ones * 2, evidence[:, :FLOW_EVIDENCE]
    )


def probability(odds: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-odds)))


def test_the_decision_is_of_all_that_is_heard(model: Model, evidence: np.ndarray) -> None:
    parts = evidence[:, FLOW_EVIDENCE:].copy()
    parts[::3] = np.nan
    frame = host_frame(model, HOSTS, sums(evidence), parts, None)
    assert frame.columns == [field.name for field in fields(HostFacts)]
    whole = np.hstack([evidence[:, :FLOW_EVIDENCE], parts])
    wanted = model.decide(evidence_frame(heard_early(whole)))
    np.testing.assert_allclose(frame["score"].to_numpy(), wanted, rtol=1e-6)
    np.testing.assert_array_equal(frame["alert"].to_numpy(), wanted >= 0.5)
    assert 0 < frame["alert"].sum() < COUNT
    np.testing.assert_allclose(frame["flow_score"].to_numpy(), np.linspace(0, 1, COUNT), rtol=1e-6)
    # What was not judged says nothing alone.
    for name in ("channel_score", "window_score"):
        assert frame[name].is_null().to_list() == [k % 3 == 0 for k in range(COUNT)]
    names = EVIDENCE_SCHEMA.names
    tops = [k for k, n in enumerate(names) if n.startswith("channel_") and n.endswith("_top")]
    heard = [k for k in range(COUNT) if k % 3]
    strongest = np.nanmax(whole[heard][:, tops], axis=1)
    np.testing.assert_allclose(
        frame["channel_score"].to_numpy()[heard], probability(strongest), rtol=1e-4
    )
    window = whole[heard, names.index("window_upper_0")]
    np.testing.assert_allclose(
        frame["window_score"].to_numpy()[heard], probability(window), rtol=1e-4
    )


def test_a_probability_is_of_the_decision_and_rises_with_it(
    model: Model, evidence: np.ndarray
) -> None:
    frame = host_frame(model, HOSTS, sums(evidence), evidence[:, FLOW_EVIDENCE:], None)
    ranked = frame.sort("score")["probability"]
    assert ranked.is_sorted() and 0 <= ranked.min() < ranked.max() <= 1  # type: ignore[operator]
    card = known(model.manifest.hosts).calibration
    odds = frame["score"].to_numpy().astype(np.float64)
    ratio = card.slope * np.log(odds / (1 - odds)) + card.intercept
    prior = np.log(card.prior / (1 - card.prior))
    np.testing.assert_allclose(
        frame["probability"].to_numpy(), probability(ratio + prior), rtol=1e-4, atol=1e-6
    )


def test_flows_alone_decide_where_the_model_hears_nothing_else(
    model: Model, evidence: np.ndarray
) -> None:
    frame = host_frame(model, HOSTS, sums(evidence), None, None)
    assert frame["score"].equals(frame["flow_score"].rename("score"))
    for name in ("channel_score", "window_score"):
        assert frame[name].null_count() == COUNT


def test_no_hosts(model: Model, evidence: np.ndarray) -> None:
    none = np.zeros(0, np.int64)
    empty = HostSums(none, none, np.zeros(0), none, none, np.zeros((0, FLOW_EVIDENCE)))
    full = host_frame(model, HOSTS, sums(evidence), evidence[:, FLOW_EVIDENCE:], None)
    for parts in (None, np.zeros((0, len(EVIDENCE_SCHEMA.names) - FLOW_EVIDENCE))):
        frame = host_frame(model, [], empty, parts, None)
        assert frame.height == 0 and frame.schema == full.schema
    assert full.schema["channel_score"] == pl.Float32
