"""Scored channels and windows, and what they say of hosts; bounds are in `test_crowd`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from tests.known import known
from tests.learning.features import naive_evidence
from tests.learning.training.factory import attentive, make_model
from veilwatch.detection.scoring.parts import (
    HostParts,
    ScoredUnits,
    host_reasons,
    ordinary_channels,
)
from veilwatch.learning.checks.units import random_channels, random_windows
from veilwatch.learning.features.flow_class import FLOW_CLASSES
from veilwatch.learning.features.host_evidence import FLOW_EVIDENCE
from veilwatch.learning.models import BenignRange, Model
from veilwatch.schema.features import FeatureFrame

HOSTS = 6
ODDS = np.random.default_rng(6).normal(0, 4, 40)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return attentive(make_model(tmp_path_factory.mktemp("corpus"))[0])


@pytest.fixture(scope="module")
def channels(model: Model) -> FeatureFrame:
    """Forty channels of hosts of very different size."""
    drawn = model.channel_features(random_channels(40, seed=1))
    host = np.random.default_rng(2).choice(HOSTS - 1, 40, p=[0.6, 0.2, 0.1, 0.05, 0.05])
    flow_class = np.random.default_rng(3).integers(0, len(FLOW_CLASSES), 40)
    keys = drawn.keys.with_columns(
        src_ip=pl.format("10.0.0.{}", pl.Series(host)),
        flow_class=pl.Series(flow_class, dtype=pl.UInt8),
    )
    return replace(drawn, keys=keys)


@pytest.fixture(scope="module")
def windows(model: Model) -> FeatureFrame:
    drawn = model.window_features(random_windows(40, seed=1))
    host = np.random.default_rng(4).integers(0, HOSTS - 1, 40)
    keys = drawn.keys.with_columns(src_ip=pl.format("10.0.0.{}", pl.Series(host)))
    return replace(drawn, keys=keys)


def probability(odds: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-odds)))


def hosts() -> pl.DataFrame:
    """Hosts in an order of their own; of one of them nothing was judged."""
    order = [4, 0, HOSTS - 1, 2, 1, 3]
    return pl.DataFrame({"src_ip": [f"10.0.0.{k}" for k in order]}).select(
        "src_ip", subscriber=pl.lit(""), host_index=pl.int_range(HOSTS, dtype=pl.Int64)
    )


def test_evidence_is_of_the_hosts_that_are_asked_for(
    channels: FeatureFrame, windows: FeatureFrame
) -> None:
    parts = HostParts(
        ScoredUnits.of(channels, probability(ODDS), np.zeros(5)),
        ScoredUnits.of(windows, probability(-ODDS)),
    )
    found = parts.evidence(hosts())
    for number, (address, _, _) in enumerate(hosts().iter_rows()):
        of_channels, of_windows = (
            [
                (odds, flow_class)
                for odds, flow_class, host in zip(said, classes, frame.keys["src_ip"], strict=True)
                if host == address
            ]
            for frame, said, classes in (
                (channels, ODDS, channels.keys["flow_class"].to_list()),
                (windows, -ODDS, [0] * 40),
            )
        )
        wanted = naive_evidence.evidence([], of_channels, of_windows)[FLOW_EVIDENCE:]
        if not of_channels:
            wanted = [np.nan] * len(wanted)
        np.testing.assert_allclose(found[number], wanted, atol=1e-4)
    assert np.isnan(found[2]).all()
    some = parts.evidence(hosts().head(2))
    np.testing.assert_array_equal(some, found[:2])  # others are left out


def test_the_strongest_is_the_one_farthest_above_what_is_ordinary_in_its_class(
    channels: FeatureFrame,
) -> None:
    ordinary = np.array([5.0, -9.0, 0.0, 2.0, 1.0])
    units = ScoredUnits.of(channels, probability(ODDS), ordinary)
    above = ODDS - ordinary[channels.keys["flow_class"].to_numpy()]
    for address, value, strength in zip(
        units.strongest.keys["src_ip"], units.strongest.values, units.strength, strict=True
    ):
        mine = np.flatnonzero((channels.keys["src_ip"] == address).to_numpy())
        best = mine[np.argmax(above[mine])]
        assert strength == pytest.approx(above[best], abs=1e-4)
        np.testing.assert_array_equal(value, channels.values[best])
    assert units.strength.tolist() == sorted(units.strength, reverse=True)
    # Windows have no class, and are as strong as they are.
    plain = ScoredUnits.of(channels, probability(ODDS))
    assert plain.strength[0] == pytest.approx(ODDS.max(), abs=1e-4)
    assert set(plain.flow_class) == {0}


def test_parts_of_hosts_join_to_what_the_whole_is(channels: FeatureFrame) -> None:
    ordinary, score = np.array([5.0, -9.0, 0.0, 2.0, 1.0]), probability(ODDS)
    whole = ScoredUnits.of(channels, score, ordinary)
    first = (channels.keys["src_ip"] == "10.0.0.0").to_numpy()
    one, two = (
        ScoredUnits.of(channels.take(np.flatnonzero(rows)), score[rows], ordinary)
        for rows in (first, ~first)
    )
    joined = one.join(two)
    np.testing.assert_array_equal(joined.strength, whole.strength)
    assert joined.strongest.keys.equals(whole.strongest.keys)
    np.testing.assert_array_equal(joined.strongest.values, whole.strongest.values)
    ours, theirs = joined.evidence(hosts()), whole.evidence(hosts())
    assert sorted(zip(ours.host, ours.odds, ours.flow_class, strict=True)) == sorted(
        zip(theirs.host, theirs.odds, theirs.flow_class, strict=True)
    )


def test_what_is_ordinary_is_what_benign_hosts_reach(model: Model) -> None:
    card = known(model.manifest.hosts)
    ranges = {"channel_names_top": BenignRange(low=-3, median=-2, high=-1.5)}
    changed = card.model_copy(update={"benign_ranges": ranges})
    manifest = model.manifest.model_copy(update={"hosts": changed})
    found = ordinary_channels(replace(model, manifest=manifest))
    # A class that no benign host of the corpus had is judged as it is.
    assert found.tolist() == [0, -1.5, 0, 0, 0]
    of_model = ordinary_channels(model)
    for name, value in zip(FLOW_CLASSES, of_model, strict=True):
        known_range = card.benign_ranges.get(f"channel_{name}_top")
        assert value == (known_range.high if known_range else 0.0)


def test_a_host_without_a_judged_channel_has_no_reasons(
    model: Model, channels: FeatureFrame, windows: FeatureFrame
) -> None:
    parts = HostParts(
        ScoredUnits.of(channels, probability(ODDS), np.zeros(5)),
        ScoredUnits.of(windows, probability(ODDS)),
    )
    told = pl.DataFrame(
        {
            "host": ["10.0.0.0", "10.0.0.1", f"10.0.0.{HOSTS - 1}"],
            "subscriber": [""] * 3,
            "score": [0.9, 0.8, 0.99],
            "alert": [True, False, True],
        }
    )
    assert set(host_reasons(model, parts, told)) == {("10.0.0.0", "")}
