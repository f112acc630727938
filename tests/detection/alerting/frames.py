"""Scores of a live scorer for tests of alerting."""

from __future__ import annotations

from typing import Any

import polars as pl

from tests.detection.alerting.samples import START_NS
from tests.report.factory import flow_frame
from veilwatch.schema.scores import ScoreFrame

Host = tuple[str, str]


def scored_flows(*rows: tuple[int, str, float], subscriber: str = "") -> pl.DataFrame:
    """Return flows with their scores, from (flow id, host, score); 0.5 and above alerts."""
    count = len(rows)
    frame = flow_frame(
        count,
        flow_id=[flow for flow, _, _ in rows],
        src_ip=[host for _, host, _ in rows],
        src_port=[40_000 + flow for flow, _, _ in rows],
        dst_ip=[f"203.0.113.{flow % 250}" for flow, _, _ in rows],
        dst_port=[443] * count,
        protocol=[6] * count,
        first_ns=[START_NS] * count,
        last_ns=[START_NS + flow for flow, _, _ in rows],
        service=["tls"] * count,
        fwd_packets=[9] * count,
        bwd_packets=[9] * count,
        fwd_payload_bytes=[700] * count,
        bwd_payload_bytes=[4900] * count,
        subscriber=[subscriber] * count,
    )
    score = pl.Series("score", [score for _, _, score in rows], pl.Float32)
    return frame.with_columns(score, alert=score >= 0.5, early=pl.lit(value=False))


def scored_hosts(*rows: tuple[str, str, float]) -> pl.DataFrame:
    """Return hosts with their scores, from (host, subscriber, score); 0.5 and above alerts."""
    columns: dict[str, Any] = {
        "host": pl.Series([host for host, _, _ in rows], dtype=pl.String),
        "subscriber": pl.Series([name for _, name, _ in rows], dtype=pl.String),
        "score": pl.Series([score for _, _, score in rows], dtype=pl.Float32),
    }
    return pl.DataFrame(columns).with_columns(
        flows=pl.lit(20, pl.Int64),
        alerts=pl.lit(5, pl.Int64),
        first_ns=pl.lit(START_NS, pl.Int64),
        last_ns=pl.lit(START_NS + 1000, pl.Int64),
        flow_score=pl.col("score"),
        channel_score=pl.lit(None, pl.Float32),
        window_score=pl.lit(None, pl.Float32),
        alert=pl.col("score") >= 0.5,
        family=pl.lit(""),
        family_probability=pl.lit(0.0, pl.Float32),
        probability=pl.lit(0.1, pl.Float32),
    )


def live_scores(
    flows: pl.DataFrame | None = None, hosts: pl.DataFrame | None = None, **more: Any
) -> ScoreFrame:
    """Return what one table brought; without flows, what a look at the windows brought."""
    return ScoreFrame(
        scored_flows().clear() if flows is None else flows,
        scored_hosts() if hosts is None else hosts,
        flow_threshold=0.5,
        host_threshold=0.5,
        **more,
    )
