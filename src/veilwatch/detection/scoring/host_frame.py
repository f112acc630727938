"""What flows and windows add up to for each host: one way for files and for live traffic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import numpy as np
import numpy.typing as npt
import polars as pl

from veilwatch.detection.scoring.hosts import HostSums
from veilwatch.detection.scoring.naming import HostNamer
from veilwatch.learning.detectors.evidence import fused_scores
from veilwatch.learning.evaluation.posterior import Platt
from veilwatch.learning.models import Model
from veilwatch.schema.scores import HostFacts, HostKey


def host_frame(
    model: Model,
    hosts: Sequence[HostKey],
    sums: HostSums,
    by_windows: npt.NDArray[np.float64],
    unseen: float,
    namer: HostNamer | None,
) -> pl.DataFrame:
    """Return `veilwatch.schema.scores.ScoreFrame.hosts`.

    Parameters
    ----------
    model
        What the scores are of.
    hosts
        The hosts, each once.
    sums
        What their flows say.
    by_windows
        What their windows say, in 0…1, shape (hosts,); NaN where none was judged.
    unseen
        What counts for windows that were not judged, NaN to let flows decide alone.
    namer
        Names the families of those that are alerted, None if the model names none.
    """
    score = sums.score
    if model.windows:
        windows = np.where(np.isnan(by_windows), unseen, by_windows)
        score = fused_scores([sums.score, windows])
    alert = score >= model.host_threshold
    families, certainty = [""] * len(hosts), np.zeros(len(hosts))
    if namer is not None:
        families, certainty = namer.name(hosts, alert)
    card = model.calibration
    meaning = Platt(card.slope, card.intercept).posterior(
        score.astype(np.float32).astype(np.float64),  # of the score as the frame holds it
        card.prior,
    )
    columns = {
        "host": pl.Series([host for host, _ in hosts], dtype=pl.String),
        "subscriber": pl.Series([subscriber for _, subscriber in hosts], dtype=pl.String),
        "flows": pl.Series(sums.flows, dtype=pl.UInt32),
        "alerts": pl.Series(sums.alerts, dtype=pl.UInt32),
        "first_ns": pl.Series(sums.first_ns, dtype=pl.Int64),
        "last_ns": pl.Series(sums.last_ns, dtype=pl.Int64),
        "score": pl.Series(score, dtype=pl.Float32),
        "flow_score": pl.Series(sums.score, dtype=pl.Float32),
        "window_score": pl.Series(by_windows, dtype=pl.Float32).fill_nan(None),
        "alert": pl.Series(alert, dtype=pl.Boolean),
        "family": pl.Series(families, dtype=pl.String),
        "family_probability": pl.Series(certainty, dtype=pl.Float32),
        "probability": pl.Series(meaning, dtype=pl.Float32),
    }
    return pl.DataFrame(columns).select(field.name for field in fields(HostFacts))
