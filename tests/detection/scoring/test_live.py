"""Scoring while traffic goes on, beside scoring at the end."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from tests.learning.features.factory import random_flows
from tests.learning.training.factory import make_model
from veilwatch.detection.scoring import FlowScorer, LiveScorer, live
from veilwatch.detection.scoring.hosts import HORIZON_NS
from veilwatch.errors import ModelError
from veilwatch.learning.models import Model
from veilwatch.schema.flows import EndReason, FlowTable
from veilwatch.schema.scores import ScoreFrame

MALICIOUS = np.arange(400) % 4 == 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return make_model(tmp_path_factory.mktemp("corpus"))[0]


@pytest.fixture(scope="module")
def model(whole: Model) -> Model:
    """The same without its windows, which have their own time."""
    manifest = whole.manifest.model_copy(update={"windows": None})
    return replace(whole, manifest=manifest, windows=())


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


def test_windows_are_heard_when_they_are_over(whole: Model, table: FlowTable) -> None:
    scorer = LiveScorer(whole)
    parts = [scorer.add(FlowTable(table.frame[a : a + 50])) for a in range(0, 400, 50)]
    assert all(part.hosts["window_score"].null_count() == part.hosts.height for part in parts)
    over = int(table.frame["last_ns"].max()) + 900 * 10**9  # type: ignore[arg-type]
    said = scorer.add(FlowTable(table.frame[:0]), now_ns=over)
    wanted = batch(whole, table)
    assert_same_hosts(said.hosts, wanted)
    alerted = wanted.filter("alert").select("host", "subscriber").rows()
    assert set(said.window_reasons) == set(alerted) and alerted
    assert scorer.counters["window_flows"] == 400


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
