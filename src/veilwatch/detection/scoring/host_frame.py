"""What flows, channels and windows add up to for each host: one way for files and live traffic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import numpy as np
import numpy.typing as npt
import polars as pl

from veilwatch.detection.scoring.hosts import HostSums
from veilwatch.detection.scoring.naming import HostNamer
from veilwatch.learning.detectors.evidence import probability
from veilwatch.learning.evaluation.posterior import Platt
from veilwatch.learning.features.host_evidence import (
    EVIDENCE_SCHEMA,
    FLOW_EVIDENCE,
    evidence_frame,
    heard_early,
)
from veilwatch.learning.models import Model
from veilwatch.schema.scores import HostFacts, HostKey


def host_frame(
    model: Model,
    hosts: Sequence[HostKey],
    sums: HostSums,
    parts: npt.NDArray[np.float64] | None,
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
    parts
        What their channels and windows say, `veilwatch.detection.scoring.parts.HostParts.evidence`;
        rows of NaN where they were not judged: there flows speak for them. None for a model that
        decides by flows alone.
    namer
        Names the families of those that are alerted, None if the model names none.
    """
    score = sums.score
    channel_score = window_score = np.full(len(hosts), np.nan)
    if parts is not None:
        evidence = heard_early(np.hstack([sums.evidence, parts]))
        score = model.decide(evidence_frame(evidence))
        names = EVIDENCE_SCHEMA.names[FLOW_EVIDENCE:]
        top = [name.endswith("_top") for name in names]
        strongest = np.where(np.isnan(parts[:, top]), -np.inf, parts[:, top]).max(axis=1)
        channel_score = np.where(np.isfinite(strongest), probability(strongest), np.nan)
        window_score = probability(parts[:, names.index("window_upper_0")])
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
        "channel_score": pl.Series(channel_score, dtype=pl.Float32).fill_nan(None),
        "window_score": pl.Series(window_score, dtype=pl.Float32).fill_nan(None),
        "alert": pl.Series(alert, dtype=pl.Boolean),
        "family": pl.Series(families, dtype=pl.String),
        "family_probability": pl.Series(certainty, dtype=pl.Float32),
        "probability": pl.Series(meaning, dtype=pl.Float32),
    }
    return pl.DataFrame(columns).select(field.name for field in fields(HostFacts))
