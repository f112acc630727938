"""What is bounded where hosts or flows are many, and that what is left out is counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from tests.learning.features.factory import random_flows
from tests.learning.training.factory import make_model
from veilwatch.detection.scoring import FlowScorer, naming, windows
from veilwatch.learning.detectors.evidence import fused_scores
from veilwatch.learning.features.windows import HOST
from veilwatch.learning.models import Model
from veilwatch.schema.features import FeatureFrame
from veilwatch.schema.flows import FlowTable
from veilwatch.schema.scores import ScoreFrame

FLOWS = 300
SIZES = (60, 50, 40, 30, 20, 15, 10, 5)
"""Flows of the first hosts; every other host has one."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model to which every host is an alert."""
    made = make_model(tmp_path_factory.mktemp("corpus"))[0]
    card = made.manifest.windows.model_copy(update={"group": 0.0})
    return replace(made, manifest=made.manifest.model_copy(update={"windows": card}))


@pytest.fixture(scope="module")
def table() -> FlowTable:
    """Flows of hosts of very different size, over an hour, in no order."""
    hosts = [f"10.0.0.{k}" for k, size in enumerate(SIZES) for _ in range(size)]
    hosts += [f"10.1.{k // 250}.{k % 250}" for k in range(FLOWS - len(hosts))]
    order = np.random.default_rng(4).permutation(FLOWS)
    frame = random_flows(FLOWS, seed=22, malicious=order % 4 == 0).frame
    first = 1_700_000_000 * 10**9 + np.arange(FLOWS) * 12 * 10**9
    return FlowTable(
        frame.with_columns(
            pl.Series("src_ip", [hosts[k] for k in order]),
            first_ns=pl.Series(first),
            subscriber=pl.lit(""),
            last_ns=pl.Series(first + 10**9),
        )
    )


def score(model: Model, table: FlowTable) -> ScoreFrame:
    scorer = FlowScorer(model)
    for start in range(0, FLOWS, 70):
        scorer.add(FlowTable(table.frame[start : start + 70]))
    return scorer.finish()


def as_text(found: dict[Any, Any]) -> list[str]:
    return sorted(map(repr, found.items()))  # NaN is not equal to itself


@pytest.mark.parametrize("at_once", [1, 33, 70, 299])
def test_windows_made_part_by_part_are_those_of_the_whole(
    model: Model, table: FlowTable, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    whole = score(model, table)
    sizes = []
    made = Model.window_features
    monkeypatch.setattr(windows, "FLOWS_AT_ONCE", at_once)
    monkeypatch.setattr(Model, "window_features", lambda m, f: sizes.append(len(f)) or made(m, f))
    parts = score(model, table)
    assert len(sizes) > 1 and sum(sizes) == FLOWS
    assert max(sizes) < at_once + max(SIZES)
    np.testing.assert_allclose(
        parts.hosts["window_score"].to_numpy(), whole.hosts["window_score"].to_numpy(), atol=1e-6
    )
    assert parts.hosts.drop("score", "window_score", "probability").equals(
        whole.hosts.drop("score", "window_score", "probability")
    )
    assert as_text(parts.window_reasons) == as_text(whole.window_reasons)
    assert parts.hosts_without_windows == whole.hosts_without_windows == 0


def test_too_many_windows_leave_the_hosts_with_fewest_flows_to_their_flows(
    model: Model, table: FlowTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = score(model, table)
    monkeypatch.setattr(windows, "FLOWS_A_WINDOW", 10**6)
    monkeypatch.setattr(windows, "MAX_WINDOWS", 60)
    few = score(model, table)
    judged = few.hosts.filter(pl.col("window_score").is_not_null())
    left = few.hosts.filter(pl.col("window_score").is_null())
    assert few.hosts_without_windows == left.height > 0 < judged.height
    assert judged["flows"].min() >= left["flows"].max()
    # Windows that nobody looked at speak neither for nor against.
    neutral = np.full(left.height, 0.5)
    wanted = fused_scores([left["flow_score"].to_numpy().astype(np.float64), neutral])
    np.testing.assert_allclose(left["score"].to_numpy(), wanted, rtol=1e-5)
    same = judged.join(whole.hosts, on=["host", "subscriber"], suffix="_whole")
    assert same.height == judged.height and same["score"].equals(
        same["score_whole"].rename("score")
    )
    # None is lost: every host is there, and every flow.
    assert few.hosts["host"].equals(whole.hosts["host"]) and few.flows.equals(whole.flows)


def test_one_host_with_more_windows_than_all_may_have_hides_no_other(
    model: Model, table: FlowTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "FLOWS_A_WINDOW", 10**6)
    monkeypatch.setattr(windows, "MAX_WINDOWS", 3)
    frame = table.frame.with_columns(
        src_ip=pl.when(pl.int_range(pl.len()) < FLOWS - 3)
        .then(pl.lit("10.0.0.1"))
        .otherwise(pl.lit("10.0.0.2"))
    )
    found = score(model, FlowTable(frame))
    assert found.hosts_without_windows == 1
    told = dict(found.hosts.select("host", pl.col("window_score").is_null()).iter_rows())
    assert told == {"10.0.0.1": True, "10.0.0.2": False}
    monkeypatch.setattr(windows, "MAX_WINDOWS", 0)
    none = score(model, FlowTable(frame))
    assert none.hosts_without_windows == 2 and none.window_reasons == {}
    assert none.hosts["window_score"].null_count() == 2


def test_only_the_best_scored_hosts_are_explained(
    model: Model, table: FlowTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "MAX_EXPLAINED_HOSTS", 5)
    found = score(model, table)
    assert found.hosts["alert"].all() and len(found.window_reasons) == 5
    best = found.hosts.sort("score", descending=True).head(5).select("host", "subscriber")
    assert set(found.window_reasons) == set(best.iter_rows())


class Trees:
    """Says that a flow is of the family of its duration's parity, and notes how many it saw."""

    names = ("even", "odd")

    def __init__(self) -> None:
        self.asked: list[int] = []

    def log_probabilities(self, features: FeatureFrame) -> np.ndarray:
        self.asked.append(len(features))
        odd = features.keys["flow_id"].to_numpy() % 2
        return np.log(np.stack([0.9 - 0.8 * odd, 0.1 + 0.8 * odd], axis=1))


def namer(trees: Trees) -> naming.HostNamer:
    card: Any = SimpleNamespace(flow_threshold=0.5, threshold=0.6)
    made: Any = trees
    return naming.HostNamer(made, card)


def named(frames: Sequence[pl.DataFrame]) -> tuple[list[str], list[int]]:
    trees = Trees()
    under_test = namer(trees)
    for frame in frames:
        under_test.add(frame)
    hosts = list(
        pl.concat([frame.select(HOST) for frame in frames]).unique(maintain_order=True).iter_rows()
    )
    names, certainty = under_test.name(hosts, np.ones(len(hosts), bool))
    assert len(certainty) == len(hosts) and (certainty[np.array(names) == "even"] > 0.6).all()
    return names, trees.asked


def test_families_are_told_of_so_many_flows_and_of_every_host_before_a_second_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = random_flows(60, seed=3, malicious=np.ones(60, bool)).frame
    hosts = [f"10.0.0.{0 if k < 40 else k}" for k in range(60)]
    frame = table.with_columns(
        pl.Series("flow_id", 2 * np.arange(60)),
        pl.Series("src_ip", hosts),
        pl.Series("score", np.linspace(0.99, 0.6, 60), pl.Float32),
        protocol=pl.lit(6).cast(table.schema["protocol"]),
        subscriber=pl.lit(""),
        service=pl.lit("tls"),
        fwd_payload_bytes=pl.lit(500).cast(table.schema["fwd_payload_bytes"]),
        bwd_payload_bytes=pl.lit(500).cast(table.schema["bwd_payload_bytes"]),
        fwd_packets=pl.lit(5).cast(table.schema["fwd_packets"]),
        bwd_packets=pl.lit(5).cast(table.schema["bwd_packets"]),
    )
    parts = [frame[start : start + 7] for start in range(0, 60, 7)]
    names, asked = named(parts)
    assert names == ["even"] * 21 and sum(asked) > 21
    monkeypatch.setattr(naming, "MAX_ASKED", 21)
    names, asked = named(parts)
    assert names == ["even"] * 21 and asked == [21]
    monkeypatch.setattr(naming, "MAX_ASKED", 9)
    names, asked = named(parts)
    assert asked == [9]
    assert names == ["even"] * 9 + ["unknown malware"] * 12  # the best-scored are told of
