"""Flow tables as they come, and their hosts at the end."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from tests.features.factory import random_flows
from tests.training.factory import make_model
from veilwatch.detectors.evidence import group_scores
from veilwatch.registry import Model
from veilwatch.schema.flows import FLOW_COLUMNS, FlowTable
from veilwatch.schema.scores import ScoreFrame
from veilwatch.scoring import FlowScorer, scorer

MALICIOUS = np.arange(300) % 4 == 0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return make_model(tmp_path_factory.mktemp("corpus"))[0]


@pytest.fixture(scope="module")
def table() -> FlowTable:
    """Flows of two inputs; addresses repeat in both, one host speaks once."""
    frame = random_flows(300, seed=21, malicious=MALICIOUS).frame.with_columns(
        pl.Series("source", np.arange(300) % 2, pl.UInt32),
        pl.Series(
            "src_ip", ["10.9.9.9" if k == 8 else f"10.0.0.{k % 4 + k % 3}" for k in range(300)]
        ),
    )
    return FlowTable(frame)


def score(model: Model, *tables: FlowTable) -> ScoreFrame:
    flow_scorer = FlowScorer(model)
    for table in tables:
        flow_scorer.add(table)
    return flow_scorer.finish()


def test_a_table_comes_back_with_score_and_alert(model: Model, table: FlowTable) -> None:
    frame = FlowScorer(model).add(table)
    assert frame.columns == [*table.frame.columns, "score", "alert"]
    assert frame.drop("score", "alert").equals(table.frame)
    assert (frame["score"].dtype, frame["alert"].dtype) == (pl.Float32, pl.Boolean)
    wanted = model.score(model.features(table))
    np.testing.assert_allclose(frame["score"].to_numpy(), wanted, rtol=1e-6)
    limit = model.manifest.thresholds.unit
    np.testing.assert_array_equal(frame["alert"].to_numpy(), wanted >= limit)
    assert 0 < frame["alert"].sum() < 150


def test_several_tables_are_as_one(model: Model, table: FlowTable) -> None:
    whole = score(model, table)
    parts = [FlowTable(table.frame[a:b]) for a, b in ((0, 7), (7, 7), (7, 200), (200, 300))]
    pieces = score(model, *parts)
    assert pieces.flows.equals(whole.flows)
    assert pieces.hosts.equals(whole.hosts)
    by_flow = [sorted(map(repr, found.reasons.items())) for found in (pieces, whole)]
    assert by_flow[0] == by_flow[1]  # as text: NaN is not equal to itself
    assert whole.flow_threshold == model.manifest.thresholds.unit
    assert whole.host_threshold == model.manifest.thresholds.group


def test_hosts(model: Model, table: FlowTable) -> None:
    scores = score(model, table)
    hosts = scores.hosts
    assert dict(hosts.schema) == {
        "host": pl.String,
        "subscriber": pl.String,
        "source": pl.UInt32,
        "flows": pl.UInt32,
        "alerts": pl.UInt32,
        "first_ns": pl.Int64,
        "last_ns": pl.Int64,
        "score": pl.Float32,
        "alert": pl.Boolean,
        "family": pl.String,
        "family_probability": pl.Float32,
        "probability": pl.Float32,
    }
    assert hosts["flows"].sum() == len(table)
    share = model.manifest.thresholds.upper_share
    seen = set()
    for row in hosts.to_dicts():
        mine = scores.flows.filter(
            (pl.col("src_ip") == row["host"])
            & (pl.col("source") == row["source"])
            & (pl.col("subscriber") == row["subscriber"])
        )
        seen.add((row["host"], row["subscriber"], row["source"]))
        assert row["flows"] == mine.height
        assert row["alerts"] == mine["alert"].sum()
        assert row["first_ns"] == mine["first_ns"].min()
        assert row["last_ns"] == mine["last_ns"].max()
        flows = mine["score"].to_numpy().astype(np.float64)
        wanted = group_scores(flows, np.zeros(len(flows), int), 1, upper_share=share)[0]
        assert row["score"] == pytest.approx(wanted, rel=1e-6)
        assert row["alert"] == (wanted >= model.manifest.thresholds.group)
    assert seen == set(table.frame.select("src_ip", "subscriber", "source").iter_rows())


def test_the_columns_that_others_need_are_kept(model: Model, table: FlowTable) -> None:
    flows = score(model, table).flows
    assert flows.columns == list(scorer.KEPT_COLUMNS)
    known = {column.name for column in FLOW_COLUMNS} | {"score", "alert"}
    assert set(scorer.KEPT_COLUMNS) <= known


def test_every_alert_is_explained_and_the_worst_flow_of_an_alerted_host(
    model: Model, table: FlowTable
) -> None:
    scores = score(model, table)
    explained = set(scores.reasons)
    assert set(scores.flows.filter("alert")["flow_id"]) <= explained
    for host in scores.hosts.filter("alert").to_dicts():
        mine = scores.flows.filter(
            (pl.col("src_ip") == host["host"])
            & (pl.col("source") == host["source"])
            & (pl.col("subscriber") == host["subscriber"])
        )
        worst = mine.sort("score", descending=True)["flow_id"][0]
        assert worst in explained
    least = min(scores.flow_threshold, scores.host_threshold)
    ids = scores.flows.filter(pl.col("score") >= least - 1e-6)["flow_id"]
    assert explained <= set(ids)


def test_reasons_belong_to_their_flow(model: Model, table: FlowTable) -> None:
    scores = score(model, table)
    features = model.features(table)
    parts = model.explain(features)
    names = features.schema.names
    for flow_id, found in scores.reasons.items():
        for reason in found:
            k = names.index(reason.feature)
            np.testing.assert_equal(reason.value, float(features.values[flow_id, k]))
            assert reason.contribution == pytest.approx(parts[flow_id, k])


def test_explanations_are_bounded_and_spread_over_hosts(
    model: Model, table: FlowTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scorer, "EXPLAINED_PER_TABLE", 5)
    eager = Model(model.members, _alert_always(model))
    scores = score(eager, table)
    assert scores.flows["alert"].all()
    assert len(scores.reasons) == 5
    hosts = scores.flows.filter(pl.col("flow_id").is_in(list(scores.reasons)))
    assert hosts.select("src_ip", "subscriber", "source").n_unique() == 5
    best = (
        scores.flows.group_by("src_ip", "subscriber", "source")
        .agg(pl.col("score").max())
        .sort("score")
    )
    assert sorted(hosts["score"]) == sorted(best["score"].tail(5))


def _alert_always(model: Model) -> object:
    limits = model.manifest.thresholds.model_copy(update={"unit": 0.0, "group": 0.0})
    return model.manifest.model_copy(update={"thresholds": limits})


def test_nothing_alerts(model: Model, table: FlowTable) -> None:
    limits = model.manifest.thresholds.model_copy(update={"unit": 1.1, "group": 1.1})
    quiet = replace(model, manifest=model.manifest.model_copy(update={"thresholds": limits}))
    scores = score(quiet, table)
    assert scores.reasons == {}
    assert not scores.flows["alert"].any() and not scores.hosts["alert"].any()


def test_an_empty_table(model: Model, table: FlowTable) -> None:
    full, none = score(model, table), score(model, FlowTable(table.frame.clear()))
    assert none.flows.height == none.hosts.height == 0
    assert none.reasons == {}
    assert none.flows.schema == full.flows.schema
    assert none.hosts.schema == full.hosts.schema
