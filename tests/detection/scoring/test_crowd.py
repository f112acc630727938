"""What is bounded where hosts or flows are many, and that what is left out is counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from tests.known import known
from tests.learning.features import naive_evidence
from tests.learning.features.factory import random_flows
from tests.learning.training.factory import attentive, make_model
from veilwatch.detection.scoring import FlowScorer, naming, parts
from veilwatch.learning.detectors.evidence import log_odds
from veilwatch.learning.features.flow_class import flow_class
from veilwatch.learning.features.host_evidence import evidence_frame
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
    made = attentive(make_model(tmp_path_factory.mktemp("corpus"))[0])
    card = known(made.manifest.hosts).model_copy(update={"threshold": 0.0})
    return replace(made, manifest=made.manifest.model_copy(update={"hosts": card}))


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


def decided_by_flows(model: Model, table: FlowTable, found: ScoreFrame) -> dict[str, float]:
    """Score of each host where nothing is heard of it but its flows, by address."""
    flows = found.flows.with_columns(
        odds=pl.Series(log_odds(found.flows["score"].to_numpy().astype(float))),
        flow_class=table.frame.select(flow_class()).to_series(),
    )
    rows = []
    for host in found.hosts["host"]:
        said = naive_evidence.of_flows(
            flows.filter(src_ip=host).select("odds", "flow_class").rows()
        )
        rows.append([*said, *said, *said[-3:]])
    return dict(zip(found.hosts["host"], model.decide(evidence_frame(np.array(rows))), strict=True))


def assert_decided_by_flows(
    left: pl.DataFrame, model: Model, table: FlowTable, found: ScoreFrame
) -> None:
    """What nobody looked at is taken to be as suspicious as the flows are."""
    wanted = decided_by_flows(model, table, found)
    told = [wanted[host] for host in left["host"]]
    np.testing.assert_allclose(left["score"].to_numpy(), told, rtol=1e-5)


@pytest.mark.parametrize("at_once", [1, 33, 70, 299])
def test_hosts_judged_part_by_part_are_those_of_the_whole(
    model: Model, table: FlowTable, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    whole = score(model, table)
    sizes: dict[str, list[int]] = {"window_features": [], "channel_features": []}

    def count(name: str) -> None:
        made = getattr(Model, name)

        def counted(model: Model, flows: FlowTable) -> FeatureFrame:
            sizes[name].append(len(flows))
            features: FeatureFrame = made(model, flows)
            return features

        monkeypatch.setattr(Model, name, counted)

    monkeypatch.setattr(parts, "FLOWS_AT_ONCE", at_once)
    count("window_features")
    count("channel_features")
    pieces = score(model, table)
    assert sizes["window_features"] == sizes["channel_features"]
    seen = sizes["window_features"]
    assert len(seen) > 1 and sum(seen) == FLOWS
    assert max(seen) < at_once + max(SIZES)
    inexact = ["score", "channel_score", "window_score", "probability"]
    for name in inexact:
        np.testing.assert_allclose(
            pieces.hosts[name].to_numpy(), whole.hosts[name].to_numpy(), atol=1e-6
        )
    assert pieces.hosts.drop(inexact).equals(whole.hosts.drop(inexact))
    assert as_text(pieces.host_reasons) == as_text(whole.host_reasons)
    assert pieces.hosts_without_windows == whole.hosts_without_windows == 0


def test_too_many_windows_leave_the_hosts_with_fewest_flows_to_their_flows(
    model: Model, table: FlowTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = score(model, table)
    monkeypatch.setattr(parts, "FLOWS_A_WINDOW", 10**6)
    monkeypatch.setattr(parts, "MAX_WINDOWS", 60)
    few = score(model, table)
    judged = few.hosts.filter(pl.col("window_score").is_not_null())
    left = few.hosts.filter(pl.col("window_score").is_null())
    assert few.hosts_without_windows == left.height > 0 < judged.height
    assert min(judged["flows"]) >= max(left["flows"])
    assert left["channel_score"].null_count() == left.height
    assert judged["channel_score"].null_count() == 0
    assert_decided_by_flows(left, model, table, few)
    same = judged.join(whole.hosts, on=["host", "subscriber"], suffix="_whole")
    assert same.height == judged.height and same["score"].equals(
        same["score_whole"].rename("score")
    )
    # None is lost: every host is there, and every flow.
    assert few.hosts["host"].equals(whole.hosts["host"]) and few.flows.equals(whole.flows)


def test_one_host_with_more_windows_than_all_may_have_hides_no_other(
    model: Model, table: FlowTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "FLOWS_A_WINDOW", 10**6)
    monkeypatch.setattr(parts, "MAX_WINDOWS", 3)
    frame = table.frame.with_columns(
        src_ip=pl.when(pl.int_range(pl.len()) < FLOWS - 3)
        .then(pl.lit("10.0.0.1"))
        .otherwise(pl.lit("10.0.0.2"))
    )
    found = score(model, FlowTable(frame))
    assert found.hosts_without_windows == 1
    told = dict(found.hosts.select("host", pl.col("window_score").is_null()).iter_rows())
    assert told == {"10.0.0.1": True, "10.0.0.2": False}
    monkeypatch.setattr(parts, "MAX_WINDOWS", 0)
    none = score(model, FlowTable(frame))
    assert none.hosts_without_windows == 2 and none.host_reasons == {}
    assert none.hosts["window_score"].null_count() == 2
    assert_decided_by_flows(none.hosts, model, FlowTable(frame), none)


def test_of_too_many_channels_those_that_began_first_are_judged(
    model: Model, table: FlowTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 40
    monkeypatch.setattr(parts, "MAX_CHANNELS", most)
    seen = []
    made = Model.channel_features

    def noted(model: Model, flows: FlowTable) -> FeatureFrame:
        seen.append(flows.frame)
        return made(model, flows)

    monkeypatch.setattr(Model, "channel_features", noted)
    found = score(model, table)
    (kept,) = seen
    service = [*HOST, "dst_ip", "dst_port", "protocol"]
    began = table.frame.group_by(service).agg(pl.col("first_ns").min())
    # Each host's first ones before anybody's next ones.
    turn = pl.col("first_ns").rank("ordinal").over(HOST)
    wanted = began.sort(turn, "first_ns").head(most).select(service)
    assert began.height > most and set(kept.select(service).rows()) == set(wanted.rows())
    # A channel is judged with all of its flows.
    assert kept.height == table.frame.join(wanted, on=service, how="semi").height
    without = found.hosts.filter(pl.col("channel_score").is_null())
    assert 0 < without.height < found.hosts.height
    assert set(without["host"]).isdisjoint(wanted["src_ip"])
    assert_decided_by_flows(without, model, table, found)


def test_only_the_best_scored_hosts_are_explained(
    model: Model, table: FlowTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "MAX_EXPLAINED_HOSTS", 5)
    found = score(model, table)
    assert found.hosts["alert"].all() and len(found.host_reasons) == 5
    best = found.hosts.sort("score", descending=True).head(5).select("host", "subscriber")
    assert set(found.host_reasons) == set(best.iter_rows())


@pytest.mark.parametrize("at_once", [33, FLOWS])
def test_features_are_kept_of_so_many_hosts_however_many_parts_there_are(
    model: Model, table: FlowTable, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """Of those whose channel or window speaks most against them."""
    monkeypatch.setattr(parts, "FLOWS_AT_ONCE", at_once)
    judged = parts.score_parts(model, FlowTable(table.frame))
    monkeypatch.setattr(parts, "KEPT_FEATURES", 6)
    few = parts.score_parts(model, FlowTable(table.frame))
    for kept, whole in ((few.channels, judged.channels), (few.windows, judged.windows)):
        assert len(kept.strongest) == len(kept.strength) == 6 < len(whole.strongest)
        np.testing.assert_allclose(kept.strength, -np.sort(-whole.strength)[:6])
        assert kept.strongest.keys.select(HOST).n_unique() == 6
        assert len(kept.odds) == len(whole.odds)


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
