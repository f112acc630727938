"""Scoring while traffic goes on, beside scoring at the end."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from tests.learning.features import naive_evidence
from tests.learning.features.factory import random_flows
from tests.learning.training.factory import attentive, make_model
from veilwatch.detection.scoring import FlowScorer, LiveScorer, live
from veilwatch.detection.scoring.hosts import HORIZON_NS
from veilwatch.errors import ModelError
from veilwatch.learning.detectors.evidence import log_odds
from veilwatch.learning.features.flow_class import flow_class
from veilwatch.learning.features.host_evidence import evidence_frame
from veilwatch.learning.models import Model
from veilwatch.schema.flows import EndReason, FlowTable
from veilwatch.schema.scores import HostKey, ScoreFrame

MALICIOUS = np.arange(400) % 4 == 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return attentive(make_model(tmp_path_factory.mktemp("corpus"))[0])


@pytest.fixture(scope="module")
def model(whole: Model) -> Model:
    """The same without its channels and windows, which have their own time."""
    manifest = whole.manifest.model_copy(update={"hosts": None})
    return replace(whole, manifest=manifest, windows=(), channels=(), hosts=())


@pytest.fixture(scope="module")
def table() -> FlowTable:
    """Flows of two inputs within a few minutes; every fifth host has malicious flows only."""
    frame = random_flows(400, seed=21, malicious=MALICIOUS).frame
    return FlowTable(
        frame.with_columns(
            pl.Series("source", np.arange(400) % 2, pl.UInt32),
            pl.Series("src_ip", [f"10.0.0.{k % 4 + k % 3}" for k in range(400)]),
            last_ns=pl.col("first_ns") + 10**9,
        )
    )


def early_of(table: FlowTable) -> FlowTable:
    """Reports of the same flows that say something else."""
    frame = table.frame.with_columns(
        pl.lit(int(EndReason.EARLY), pl.UInt8).alias("end_reason"),
        (pl.col("fwd_size_std") + 300).alias("fwd_size_std"),
        pl.col("fwd_first_payload").reverse().alias("fwd_first_payload"),
    )
    return FlowTable(frame)


def batch(model: Model, *tables: FlowTable) -> pl.DataFrame:
    scorer = FlowScorer(model)
    for table in tables:
        scorer.add(table)
    return scorer.finish().hosts


def latest(parts: list[ScoreFrame]) -> pl.DataFrame:
    """What was said last of each host."""
    said = pl.concat([part.hosts for part in parts])
    return said.unique(["host", "subscriber"], keep="last")


def assert_same_hosts(found: pl.DataFrame, wanted: pl.DataFrame) -> None:
    order = ["host", "subscriber"]
    assert_frame_equal(
        found.sort(order),
        wanted.select(found.columns).sort(order),
        check_dtypes=False,
        abs_tol=1e-5,
    )


@pytest.mark.parametrize("cuts", [[0, 400], [0, 1, 2, 3, 200, 399, 400]])
def test_after_all_tables_hosts_are_scored_as_at_the_end(
    model: Model, table: FlowTable, cuts: list[int]
) -> None:
    scorer = LiveScorer(model)
    slices = [FlowTable(table.frame[a:b]) for a, b in pairwise(cuts)]
    parts = [scorer.add(part) for part in slices]
    wanted = FlowScorer(model)
    for part, said in zip(slices, parts, strict=True):
        frame = wanted.add(part)
        assert_frame_equal(said.flows.drop("early"), frame)
    assert_same_hosts(latest(parts), wanted.finish().hosts)
    assert 0 < latest(parts)["alert"].sum() < latest(parts).height


def test_a_record_replaces_what_was_said_of_the_flow_while_it_was_alive(
    model: Model, table: FlowTable
) -> None:
    scorer = LiveScorer(model)
    early = early_of(table)
    first = scorer.add(FlowTable(early.frame[:150]), early=True)
    assert first.flows["early"].all()
    second = scorer.add(FlowTable(early.frame[50:250]), early=True)
    now = latest([first, second])
    assert_same_hosts(now, batch(model, FlowTable(early.frame[:250])))
    third = scorer.add(table)
    assert not third.flows["early"].any()
    assert_same_hosts(third.hosts, batch(model, table))


def test_of_two_reports_of_a_flow_in_one_table_the_later_speaks(
    model: Model, table: FlowTable
) -> None:
    early = early_of(table)
    both = FlowTable(pl.concat([table.frame, early.frame]))
    said = LiveScorer(model).add(both, early=True)
    assert len(said.flows) == 800
    assert_same_hosts(said.hosts, batch(model, early))


def test_a_flow_that_turns_out_to_be_anothers_leaves_its_host(
    model: Model, table: FlowTable
) -> None:
    scorer = LiveScorer(model)
    unknown = FlowTable(table.frame.with_columns(subscriber=pl.lit("")))
    scorer.add(unknown, early=True)
    known = FlowTable(table.frame.with_columns(subscriber=pl.lit("somebody")))
    said = scorer.add(known).hosts
    gone = said.filter(pl.col("subscriber") == "")
    assert (gone["flows"] == 0).all() and gone["score"].is_nan().all()
    assert not gone["alert"].any()
    assert_same_hosts(said.filter(pl.col("subscriber") != ""), batch(model, known))


def test_flows_of_the_last_hour_speak(model: Model, table: FlowTable) -> None:
    scorer = LiveScorer(model)
    first, second = FlowTable(table.frame[:200]), FlowTable(table.frame[200:])
    scorer.add(first)
    shift = HORIZON_NS + 3 * 10**9
    later = FlowTable(second.frame.with_columns(pl.col("first_ns", "last_ns") + shift))
    said = scorer.add(later).hosts
    assert_same_hosts(said, batch(model, later))


@pytest.mark.parametrize("place", [0, 5, 10])
def test_a_flow_from_another_time_ends_nothing_of_others(
    model: Model, table: FlowTable, place: int
) -> None:
    scorer = LiveScorer(model)
    scorer.add(FlowTable(table.frame[:389]))
    years = 74 * 365 * 86_400 * 10**9
    stray = table.frame[389:390].with_columns(
        pl.lit("10.9.9.9").alias("src_ip"), pl.col("first_ns", "last_ns") + years
    )
    rest = table.frame[390:]
    said = scorer.add(FlowTable(pl.concat([rest[:place], stray, rest[place:]]))).hosts
    others = FlowTable(pl.concat([table.frame[:389], rest]))
    hosts = rest.select(host="src_ip", subscriber="subscriber").unique()
    wanted = batch(model, others).join(hosts, on=["host", "subscriber"], how="semi")
    assert_same_hosts(said.filter(pl.col("host") != "10.9.9.9"), wanted)


def test_only_what_alerts_is_explained(model: Model, table: FlowTable) -> None:
    said = LiveScorer(model).add(table)
    alerted = set(said.flows.filter("alert")["flow_id"])
    hosts = said.hosts.filter("alert").select(src_ip="host", subscriber="subscriber")
    theirs = said.flows.join(hosts, on=["src_ip", "subscriber"], how="semi")["flow_id"]
    assert said.reasons
    assert len(said.reasons) <= live.EXPLAINED_LIVE
    assert set(said.reasons) <= alerted | set(theirs)
    wanted = FlowScorer(model)
    wanted.add(table)
    told = wanted.finish().reasons
    common = set(told) & set(said.reasons)
    assert common
    assert all(said.reasons[one] == told[one] for one in common)


def test_another_model_takes_over_without_losing_flows(model: Model, table: FlowTable) -> None:
    scorer = LiveScorer(model)
    scorer.add(table)
    limit = model.manifest.thresholds.model_copy(update={"group": 0.999})
    strict = replace(model, manifest=model.manifest.model_copy(update={"thresholds": limit}))
    scorer.replace(strict)
    again = scorer.add(FlowTable(table.frame[:0]))
    assert again.hosts.is_empty()
    one = table.frame[:1].with_columns(flow_id=pl.lit(10_000, pl.Int64))
    said = scorer.add(FlowTable(one)).hosts
    key = pl.col("host") == one["src_ip"][0]
    before = batch(model, table).filter(key, pl.col("subscriber") == one["subscriber"][0])
    assert said["flows"].to_list() == [before["flows"][0] + 1]
    # Who was below the old threshold is below the new one.
    assert scorer.counters["replaced_models"] == 1


def test_a_model_of_captures_is_refused(model: Model) -> None:
    features = model.manifest.features.model_copy(update={"sets": ["header_words"]})
    manifest = model.manifest.model_copy(update={"features": features})
    with pytest.raises(ModelError, match="captures"):
        LiveScorer(replace(model, manifest=manifest))


def test_an_empty_table_changes_nothing(model: Model, table: FlowTable) -> None:
    scorer = LiveScorer(model)
    said = scorer.add(FlowTable(table.frame[:0]), early=True)
    assert said.flows.is_empty() and said.hosts.is_empty() and not said.reasons


def by_flows(model: Model, table: FlowTable) -> pl.DataFrame:
    """Hosts as they are decided about before anything but their flows is judged."""
    scorer = FlowScorer(model)
    flows = scorer.add(table)
    hosts = []
    for key, mine in flows.group_by("src_ip", "subscriber"):
        odds = log_odds(mine["score"].to_numpy().astype(float)).tolist()
        classes = mine.select(flow_class()).to_series().to_list()
        said = naive_evidence.of_flows(list(zip(odds, classes, strict=True)))
        evidence = evidence_frame(np.array([[*said, *said, *said[-3:]]]))
        hosts.append((*key, float(model.decide(evidence)[0])))
    return pl.DataFrame(hosts, ["host", "subscriber", "score"], orient="row")


def test_hosts_are_decided_by_flows_at_first_and_by_all_once_that_is_judged(
    whole: Model, table: FlowTable
) -> None:
    scorer = LiveScorer(whole)
    parts = [scorer.add(FlowTable(table.frame[a : a + 50])) for a in range(0, 400, 50)]
    for name in ("channel_score", "window_score"):
        assert all(part.hosts[name].null_count() == part.hosts.height for part in parts)
    assert not any(part.host_reasons for part in parts)
    first = latest(parts)
    assert_same_hosts(first.select("host", "subscriber", "score"), by_flows(whole, table))
    over = max(table.frame["last_ns"]) + 900 * 10**9
    said = scorer.add(FlowTable(table.frame[:0]), now_ns=over)
    wanted = batch(whole, table)
    assert_same_hosts(said.hosts, wanted)
    assert said.hosts["channel_score"].null_count() == 0
    assert not first.sort("host", "subscriber")["score"].equals(
        said.hosts.sort("host", "subscriber")["score"]
    )
    alerted = wanted.filter("alert").select("host", "subscriber").rows()
    assert set(said.host_reasons) == set(alerted) and alerted
    told = scorer_reasons(whole, table)
    assert {key: [r.text for r in said.host_reasons[key]] for key in alerted} == told
    assert scorer.counters["window_flows"] == 400
    # The next flow of a host is heard beside what was judged.
    one = table.frame[:1].with_columns(flow_id=pl.lit(10_000, pl.Int64))
    again = scorer.add(FlowTable(one), now_ns=over).hosts
    before = said.hosts.filter(host=again["host"][0], subscriber=again["subscriber"][0])
    for name in ("channel_score", "window_score"):
        assert again[name].equals(before[name]) and again[name].null_count() == 0


def scorer_reasons(model: Model, table: FlowTable) -> dict[HostKey, list[str]]:
    scorer = FlowScorer(model)
    scorer.add(table)
    return {key: [r.text for r in said] for key, said in scorer.finish().host_reasons.items()}


def judged_after(
    scorer: LiveScorer, table: FlowTable, seconds: int
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What is said of hosts when their windows are over, and some time after that by new flows."""
    over = max(table.frame["last_ns"]) + 900 * 10**9
    scorer.add(table)
    at_once = scorer.add(FlowTable(table.frame[:0]), now_ns=over).hosts
    shift = over + seconds * 10**9 - pl.col("last_ns")
    again = table.frame.unique(["src_ip", "subscriber"], keep="first", maintain_order=True)
    later = again.with_columns(
        pl.col("first_ns") + shift, pl.col("last_ns") + shift, flow_id=pl.col("flow_id") + 10_000
    )
    return at_once, scorer.add(FlowTable(later), now_ns=over + seconds * 10**9).hosts


def test_what_was_judged_is_remembered_of_so_many_hosts(
    whole: Model, table: FlowTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "MAX_WINDOW_HOSTS", 3)
    at_once, later = judged_after(LiveScorer(whole), table, 1)
    assert later.height > 3
    for hosts in (at_once, later):
        for name in ("channel_score", "window_score"):
            assert hosts[name].count() == 3
    heard = later.filter(pl.col("channel_score").is_not_null()).select("host", "subscriber")
    assert_same_hosts(
        at_once.join(heard, on=["host", "subscriber"]),
        batch(whole, table).join(heard, on=["host", "subscriber"]),
    )


def test_what_is_remembered_of_a_host_holds_nothing_of_others(
    whole: Model, table: FlowTable
) -> None:
    """One that falls silent would keep the table of all that were judged with it."""
    scorer = LiveScorer(whole)
    at_once, _ = judged_after(scorer, table, 1)
    remembered = list(scorer._heard._channels.values())
    assert len(remembered) == at_once.height
    assert all(row.base is None for row in remembered)


def test_another_model_forgets_what_channels_said(whole: Model, table: FlowTable) -> None:
    """It would mix two scales; channels are judged anew every five minutes."""
    scorer = LiveScorer(whole)
    scorer.add(table)
    over = max(table.frame["last_ns"]) + 900 * 10**9
    assert scorer.add(FlowTable(table.frame[:0]), now_ns=over).hosts["channel_score"].count()
    scorer.replace(whole)
    one = FlowTable(table.frame[:1].with_columns(flow_id=pl.lit(10_000, pl.Int64)))
    again = scorer.add(one, now_ns=over).hosts
    assert again["channel_score"].count() == again["window_score"].count() == 0
    assert scorer.judge_current().hosts["channel_score"].count() > 0


def test_what_was_judged_speaks_for_an_hour(whole: Model, table: FlowTable) -> None:
    hour = HORIZON_NS // 10**9
    _, later = judged_after(LiveScorer(whole), table, hour - 1200)
    assert later["channel_score"].null_count() == later["window_score"].null_count() == 0
    _, later = judged_after(LiveScorer(whole), table, hour)
    assert later["channel_score"].count() == later["window_score"].count() == 0


def test_the_window_that_runs_can_be_asked_about(whole: Model, table: FlowTable) -> None:
    scorer = LiveScorer(whole)
    scorer.add(table)
    assert_same_hosts(scorer.judge_current().hosts, batch(whole, table))


def test_a_subscriber_that_is_learned_later_has_all_that_was_said_before(
    whole: Model, table: FlowTable
) -> None:
    """Live, as in a file: a host whose subscriber is known from its 200th flow on is one host."""
    tunnelled = table.frame.with_columns(
        gtp_depth=pl.lit(1, pl.UInt8),
        outer_src_ip=pl.lit("192.0.2.2"),
        outer_dst_ip=pl.lit("192.0.2.1"),
        fwd_teid=pl.col("src_ip").rank("dense").cast(pl.UInt32),
        bwd_teid=pl.lit(0, pl.UInt32),
    )
    owner = pl.format("s-{}", "fwd_teid")
    late = tunnelled.with_columns(
        subscriber=pl.when(pl.int_range(pl.len()) < 200).then(pl.lit("")).otherwise(owner)
    )
    wanted = batch(whole, FlowTable(tunnelled.with_columns(subscriber=owner)))
    assert_same_hosts(batch(whole, FlowTable(late)), wanted)
    scorer = LiveScorer(whole)
    scorer.add(FlowTable(late[:150]))
    scorer.add(early_of(FlowTable(late[150:200])), early=True)
    scorer.add(FlowTable(late[150:220]))
    said = scorer.add(FlowTable(late[220:]))
    hosts = pl.concat([said.hosts, scorer.judge_current().hosts]).unique("host", keep="last")
    assert scorer.counters["hosts"] == wanted.height
    assert_same_hosts(hosts, wanted)
