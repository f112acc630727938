"""Flows counted by time and by score, for the plots."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from veilwatch.report.detection.document import ScoreHistogram, Timeline

SCORE_LIMIT: Final = 1e-4
"""Scores below it and above 1 minus it share the outermost bins: no sample of a report's size
tells them apart."""

SCORE_BINS: Final = 56


def timeline(flows: pl.DataFrame, grid: tuple[int, int, int]) -> Timeline:
    """Count flows, bytes and alerts by the time at which flows began."""
    start, step, count = grid
    bins = (flows["first_ns"].to_numpy() - start) // step
    volumes = (flows["fwd_bytes"] + flows["bwd_bytes"]).to_numpy().astype(np.float64)
    alerts = flows["alert"].to_numpy().astype(np.float64)
    return Timeline(
        start_ns=start,
        step_ns=step,
        flows=tuple(np.bincount(bins, minlength=count).tolist()),
        bytes=_whole(np.bincount(bins, volumes, count)),
        alerts=_whole(np.bincount(bins, alerts, count)),
    )


def score_histogram(flows: pl.DataFrame) -> ScoreHistogram:
    """Count flows by score in equal steps of log-odds, alerted ones apart."""
    limit = float(np.log((1 - SCORE_LIMIT) / SCORE_LIMIT))
    scores = np.clip(flows["score"].to_numpy().astype(np.float64), SCORE_LIMIT, 1 - SCORE_LIMIT)
    place = (np.log(scores / (1 - scores)) + limit) / (2 * limit)
    bins = np.clip(place * SCORE_BINS, 0, SCORE_BINS - 1).astype(np.int64)
    alerted = flows["alert"].to_numpy()
    return ScoreHistogram(
        low=-limit,
        high=limit,
        below=tuple(np.bincount(bins[~alerted], minlength=SCORE_BINS).tolist()),
        above=tuple(np.bincount(bins[alerted], minlength=SCORE_BINS).tolist()),
    )


def _whole(sums: npt.NDArray[Any]) -> tuple[int, ...]:
    return tuple(int(value) for value in sums)
