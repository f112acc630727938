"""A child that scores, for a supervisor of tests."""

from __future__ import annotations

import time
from pathlib import Path

import polars as pl

from tests.sensor.children import note
from veilwatch.detection.scoring.live import LiveScorer
from veilwatch.learning.models import load_model
from veilwatch.sensor.link import Inbox
from veilwatch.sensor.serve import Scored, serve
from veilwatch.sensor.supervise import Heart


def scorer(heart: Heart, socket: Path, model: Path, out: Path) -> None:
    """Score, and write each row's flow and times to a file."""

    def hand_over(scored: Scored) -> None:
        frame = scored.scores.flows
        columns = ["flow_id", "src_ip", "src_port", "fwd_packets", "bwd_packets", "last_ns"]
        rows = frame.select(*columns, pl.col("score").cast(pl.Float64)).to_dicts()
        now = time.time_ns()
        for row in rows:
            note(out, early=scored.early, at_ns=now, archive=scored.parcel.archive, **row)

    with Inbox(socket) as inbox:
        serve(
            heart,
            inbox,
            LiveScorer(load_model(model)),
            hand_over,
            load=lambda: load_model(model),
            note=lambda message: note(out, note=message),
        )
