"""Flow tables as they come, and their hosts at the end."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from tests.known import known
from tests.learning.features import naive_evidence
from tests.learning.features.factory import random_flows
from tests.learning.training.factory import attentive, make_model
from veilwatch.detection.scoring import FlowScorer, scorer
from veilwatch.detection.scoring.parts import CHANNEL_REASONS, channel_names, ordinary_channels
from veilwatch.learning.detectors.evidence import log_odds
from veilwatch.learning.features.flow_class import flow_class
from veilwatch.learning.features.host_evidence import evidence_frame
from veilwatch.learning.models import Model, ModelManifest
from veilwatch.schema.flow_facts import SCORED_COLUMNS
from veilwatch.schema.flows import FLOW_COLUMNS, FlowTable
from veilwatch.schema.names import protocol_name
from veilwatch.schema.scores import ScoreFrame

MALICIOUS = np.arange(300) % 4 == 0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return attentive(make_model(tmp_path_factory.mktemp("corpus"))[0])


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
    assert frame.schema["score"] == pl.Float32 and frame.schema["alert"] == pl.Boolean
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
    assert whole.host_threshold == known(model.manifest.hosts).threshold
    by_host = [sorted(map(repr, found.host_reasons.items())) for found in (pieces, whole)]
    assert by_host[0] == by_host[1]


def test_hosts(model: Model, table: FlowTable) -> None:
    scores = score(model, table)
    hosts = scores.hosts
    assert dict(hosts.schema) == {
        "host": pl.String,
        "subscriber": pl.String,
        "flows": pl.UInt32,
        "alerts": pl.UInt32,
        "first_ns": pl.Int64,
        "last_ns": pl.Int64,
        "score": pl.Float32,
        "flow_score": pl.Float32,
        "channel_score": pl.Float32,
        "window_score": pl.Float32,
        "alert": pl.Boolean,
        "family": pl.String,
        "family_probability": pl.Float32,
        "probability": pl.Float32,
    }
    assert hosts["flows"].sum() == len(table)
    share = model.manifest.thresholds.upper_share
    flows = scores.flows.with_columns(
        odds=pl.Series(log_odds(scores.flows["score"].to_numpy().astype(float))),
        flow_class=table.frame.select(flow_class()).to_series(),
    )
    channels, windows = model.channel_features(table), model.window_features(table)
    channel_odds = pl.Series("odds", log_odds(model.score_channels(channels)))
    of_channels = channels.keys.with_columns(channel_odds)
    window_odds = pl.Series("odds", log_odds(model.score_windows(windows)))
    of_windows = windows.keys.with_columns(window_odds, flow_class=pl.lit(0))
    seen = set()
    for row in hosts.to_dicts():
        key = {"src_ip": row["host"], "subscriber": row["subscriber"]}
        mine = flows.filter(**key)
        seen.add((row["host"], row["subscriber"]))
        assert row["flows"] == mine.height
        assert row["alerts"] == mine["alert"].sum()
        assert row["first_ns"] == mine["first_ns"].min()
        assert row["last_ns"] == mine["last_ns"].max()
        said = [
            part.filter(**key).select("odds", "flow_class").rows()
            for part in (mine, of_channels, of_windows)
        ]
        (by_flows,) = naive_evidence.of_shares(said[0], [share])
        assert log_odds(np.array([row["flow_score"]]))[0] == pytest.approx(by_flows, abs=1e-3)
        for name, part in (("channel_score", said[1]), ("window_score", said[2])):
            strongest = max(odds for odds, _ in part)
            assert log_odds(np.array([row[name]]))[0] == pytest.approx(strongest, abs=1e-3)
        evidence = evidence_frame(np.array([naive_evidence.evidence(*said)]))
        wanted = model.decide(evidence)[0]
        assert row["score"] == pytest.approx(wanted, rel=1e-6)
        assert row["alert"] == (wanted >= known(model.manifest.hosts).threshold)
    assert seen == set(table.frame.select("src_ip", "subscriber").iter_rows())
    assert 0 < hosts["alert"].sum() < hosts.height


def test_a_host_is_one_whatever_file_its_packets_lay_in(model: Model, table: FlowTable) -> None:
    one = table.frame.with_columns(source=pl.lit(0, pl.UInt32))
    whole, rotated = score(model, FlowTable(one)), score(model, table)
    assert rotated.flows["source"].n_unique() == 2  # an alert still says in which file it was
    assert rotated.hosts.equals(whole.hosts) and rotated.hosts["alert"].any()


def test_the_columns_that_others_need_are_kept(model: Model, table: FlowTable) -> None:
    flows = score(model, table).flows
    assert flows.columns == list(SCORED_COLUMNS)
    known = {column.name for column in FLOW_COLUMNS} | {"score", "alert"}
    assert set(SCORED_COLUMNS) <= known


def test_every_alert_is_explained_and_the_worst_flow_of_an_alerted_host(
    model: Model, table: FlowTable
) -> None:
    scores = score(by_flows_alone(model), table)
    assert scores.host_reasons == {}
    explained = set(scores.reasons)
    assert set(scores.flows.filter("alert")["flow_id"]) <= explained
    for host in scores.hosts.filter("alert").to_dicts():
        mine = scores.flows.filter(
            (pl.col("src_ip") == host["host"]) & (pl.col("subscriber") == host["subscriber"])
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
    assert hosts.select("src_ip", "subscriber").n_unique() == 5
    best = scores.flows.group_by("src_ip", "subscriber").agg(pl.col("score").max()).sort("score")
    assert sorted(hosts["score"]) == sorted(best["score"].tail(5))


def test_explanations_are_bounded_in_all_and_of_the_best(
    model: Model, table: FlowTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scorer, "MAX_EXPLAINED", 6)
    eager = Model(model.members, _alert_always(model))
    parts = [FlowTable(table.frame[a : a + 20]) for a in range(0, 300, 20)]
    whole, pieces = score(eager, table), score(eager, *parts)
    best = whole.flows.group_by("src_ip", "subscriber").agg(pl.col("score").max()).sort("score")
    for found in (whole, pieces):
        chosen = found.flows.filter(pl.col("flow_id").is_in(list(found.reasons)))
        assert sorted(chosen["score"]) == sorted(best["score"].tail(6))


def _alert_always(model: Model) -> ModelManifest:
    limits = model.manifest.thresholds.model_copy(update={"unit": 0.0, "group": 0.0})
    return model.manifest.model_copy(update={"thresholds": limits, "hosts": None})


def by_flows_alone(model: Model) -> Model:
    """The same model without its channels and windows."""
    manifest = model.manifest.model_copy(update={"hosts": None})
    return replace(model, windows=(), channels=(), hosts=(), manifest=manifest)


def at(model: Model, threshold: float) -> Model:
    """The same model with another threshold of hosts."""
    card = known(model.manifest.hosts).model_copy(update={"threshold": threshold})
    return replace(model, manifest=model.manifest.model_copy(update={"hosts": card}))


def test_the_channel_and_the_window_of_alerted_hosts_are_explained(
    model: Model, table: FlowTable
) -> None:
    middle = float(np.median(score(model, table).hosts["score"].to_numpy()))
    scores = score(at(model, middle), table)
    alerted = scores.hosts.filter("alert").select("host", "subscriber")
    assert set(alerted.iter_rows()) == set(scores.host_reasons) != set()
    channels, windows = model.channel_features(table), model.window_features(table)
    of_channels, of_windows = model.explain_channels(channels), model.explain_windows(windows)
    ordinary = ordinary_channels(model)[channels.keys["flow_class"].to_numpy()]
    strength = log_odds(model.score_channels(channels)) - ordinary
    kinds = []
    for (host, subscriber), found in scores.host_reasons.items():
        window = strongest(windows.keys, model.score_windows(windows), host, subscriber)
        channel = strongest(channels.keys, strength, host, subscriber)
        address, port, protocol = channels.keys.select("dst_ip", "dst_port", "protocol").row(
            channel
        )
        title = f"{address}:{port}/{protocol_name(protocol)}: "
        said = [reason.text.startswith("Host: ") for reason in found]
        assert said == sorted(said), "what is said of the channel comes first"
        kinds += said
        assert said.count(False) <= CHANNEL_REASONS
        for reason, of_window in zip(found, said, strict=True):
            names = (windows if of_window else channels).schema.names
            parts = of_windows[window] if of_window else of_channels[channel]
            assert reason.contribution == pytest.approx(parts[names.index(reason.feature)])
            assert "benign flows" not in reason.text
            if not of_window:
                assert reason.text.startswith(title) and reason.contribution > 0
    assert set(kinds) == {True, False}


def strongest(keys: pl.DataFrame, said: np.ndarray, host: str, subscriber: str) -> int:
    """Return the row of a host's strongest unit."""
    mine = keys.with_row_index("row").with_columns(said=pl.Series(said))
    return int(
        mine.filter(src_ip=host, subscriber=subscriber).sort("said", descending=True)["row"][0]
    )


def test_channels_are_named_as_an_analyst_writes_them() -> None:
    keys = pl.DataFrame(
        {
            "dst_ip": ["203.0.113.7", "2001:db8::7", "203.0.113.7"],
            "dst_port": [443, 53, 0],
            "protocol": [6, 17, 1],
        }
    )
    assert channel_names(keys) == [
        "203.0.113.7:443/TCP",
        "[2001:db8::7]:53/UDP",
        "203.0.113.7:0/ICMP",
    ]


def test_without_the_decision_flows_decide_alone(model: Model, table: FlowTable) -> None:
    alone, both = score(by_flows_alone(model), table), score(model, table)
    assert alone.hosts["score"].equals(both.hosts["flow_score"].rename("score"))
    for name in ("channel_score", "window_score"):
        assert alone.hosts[name].null_count() == alone.hosts.height > 0
    assert alone.host_threshold == model.manifest.thresholds.group


def test_nothing_alerts(model: Model, table: FlowTable) -> None:
    limits = model.manifest.thresholds.model_copy(update={"unit": 1.1, "group": 1.1})
    silent = at(model, 1.1)
    manifest = silent.manifest.model_copy(update={"thresholds": limits})
    scores = score(replace(silent, manifest=manifest), table)
    assert scores.reasons == {} and scores.host_reasons == {}
    assert not scores.flows["alert"].any() and not scores.hosts["alert"].any()


def test_an_empty_table(model: Model, table: FlowTable) -> None:
    full, none = score(model, table), score(model, FlowTable(table.frame.clear()))
    assert none.flows.height == none.hosts.height == 0
    assert none.reasons == {}
    assert none.flows.schema == full.flows.schema
    assert none.hosts.schema == full.hosts.schema


def test_no_table_at_all(model: Model) -> None:
    """What reads no capture ends as what reads one without packets does."""
    scores = FlowScorer(model).finish()
    assert (scores.flows.height, scores.hosts.height) == (0, 0)
    assert scores.hosts.schema["probability"] == pl.Float32
