"""Host windows as a second witness: their scores, what they say of hosts, and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from veilwatch.detection.scoring.explain import reasons
from veilwatch.learning.detectors.evidence import group_scores
from veilwatch.learning.features.windows import HOST, WINDOW_NS
from veilwatch.learning.models import Model
from veilwatch.schema.features import FeatureFrame
from veilwatch.schema.flows import FlowTable
from veilwatch.schema.scores import Reason

MAX_WINDOWS: Final = 1 << 17
"""Most host windows of one run that are judged, some 15 s of work, or one for every
`FLOWS_A_WINDOW` flows where that is more: a million hosts of one packet each would take minutes,
and the window of one packet says no more than its flow. Hosts with most flows come first."""

FLOWS_A_WINDOW: Final = 8
"""With so many flows a window costs less than the flows in it."""

FLOWS_AT_ONCE: Final = 1 << 17
"""Flows whose windows are made together, some 150 MiB; a host with more is taken alone."""

KEPT_FEATURES: Final = 1 << 13
"""Most hosts of which the features of their strongest window are kept, 8 MiB: those with the
highest-scoring ones."""

MAX_EXPLAINED_HOSTS: Final = 1024
"""Most hosts whose window is explained, the best-scored: an explanation costs about a
millisecond."""


@dataclass(frozen=True, slots=True)
class ScoredWindows:
    """Host windows with their scores.

    Attributes
    ----------
    hosts
        `veilwatch.learning.features.windows.HOST` of each window.
    score
        In 0…1, shape (windows,).
    upper_share
        Share of a host's windows, the highest-scoring ones, that speak for it.
    strongest
        The highest-scoring window of each host, of at most `KEPT_FEATURES` hosts.
    hosts_left_out
        Hosts whose windows were not judged, because there were too many.
    """

    hosts: pl.DataFrame
    score: npt.NDArray[np.float64]
    upper_share: float
    strongest: FeatureFrame
    hosts_left_out: int = 0

    @classmethod
    def of(
        cls, features: FeatureFrame, score: npt.NDArray[np.float64], upper_share: float
    ) -> ScoredWindows:
        """Keep what is needed of windows."""
        hosts = features.keys.select(HOST)
        return cls(hosts, score, upper_share, _strongest(features, score)[0])

    def of_hosts(self, hosts: pl.DataFrame) -> npt.NDArray[np.float64]:
        """Return the score of each host by its windows, shape (hosts,); NaN without any.

        Parameters
        ----------
        hosts
            Has `HOST` and `host_index`.
        """
        index = host_index(self.hosts, hosts)
        return group_scores(self.score, index, hosts.height, upper_share=self.upper_share)


def score_windows(model: Model, flows: FlowTable) -> ScoredWindows:
    """Score the host windows of all flows of the inputs with a model that has windows.

    Time and memory are bounded: see `MAX_WINDOWS` and `FLOWS_AT_ONCE`. A host's windows are judged
    all or none.
    """
    card = model.manifest.windows
    assert card is not None, "asked of a model without windows"
    most = max(MAX_WINDOWS, flows.frame.height // FLOWS_A_WINDOW)
    share = card.thresholds.upper_share
    left_out = 0
    found: ScoredWindows | None = None
    kept_score = np.zeros(0)
    if len(flows) > min(most, FLOWS_AT_ONCE):
        parts, left_out = _parts(flows.frame, most)
    else:
        parts = iter([flows.frame])
    for part in parts:
        features = model.window_features(FlowTable(part))
        score = model.score_windows(features)
        strongest, best = _strongest(features, score)
        hosts = features.keys.select(HOST)
        if found is None:
            found, kept_score = ScoredWindows(hosts, score, share, strongest), best
            continue
        both = FeatureFrame(
            strongest.schema,
            np.concatenate([found.strongest.values, strongest.values]),
            pl.concat([found.strongest.keys, strongest.keys]),
        )
        strongest, kept_score = _strongest(both, np.concatenate([kept_score, best]))
        found = ScoredWindows(
            pl.concat([found.hosts, hosts]), np.concatenate([found.score, score]), share, strongest
        )
    assert found is not None
    return replace(found, hosts_left_out=left_out)


def _strongest(
    features: FeatureFrame, score: npt.NDArray[np.float64]
) -> tuple[FeatureFrame, npt.NDArray[np.float64]]:
    """Return the highest-scoring window of each host, best first, and their scores."""
    rows = (
        features.keys.select(HOST)
        .with_row_index("row")
        .with_columns(pl.Series("score", score))
        .sort("score", "row", descending=[True, False])
        .unique(HOST, keep="first", maintain_order=True)
        .head(KEPT_FEATURES)["row"]
        .to_numpy()
        .astype(np.intp)
    )
    return features.take(rows), score[rows]


def _parts(flows: pl.DataFrame, most: int) -> tuple[Iterator[pl.DataFrame], int]:
    """Cut flows into parts of whole hosts, as far as their windows are no more than `most`.

    Returns
    -------
    iterator of polars.DataFrame
        Each of about `FLOWS_AT_ONCE` flows.
    int
        Hosts that are in none, those with fewest flows.
    """
    began = pl.col("first_ns").min().over(HOST)
    hosts = (
        flows.lazy()
        .select(*HOST, window=(pl.col("first_ns") - began) // WINDOW_NS)
        .group_by(HOST)
        .agg(flows=pl.len(), windows=pl.col("window").n_unique())
        .filter(pl.col("windows") <= most)
        .sort("flows", *HOST, descending=[True, False, False])
        .filter(pl.col("windows").cum_sum() <= most)
        .select(*HOST, part=(pl.col("flows").cum_sum() - pl.col("flows")) // FLOWS_AT_ONCE)
        .collect()
    )
    every = flows.select(HOST).n_unique()
    part = flows.select(HOST).join(hosts, on=HOST, how="left", maintain_order="left")["part"]
    wanted = hosts["part"].unique().sort().to_list()
    if not wanted:  # one host with more windows than all may have
        return iter([flows.clear()]), every
    return (flows.filter(part == number) for number in wanted), every - hosts.height


def host_index(rows: pl.DataFrame, hosts: pl.DataFrame) -> npt.NDArray[np.int64]:
    """Return the `host_index` of each row's host, shape (rows,)."""
    keys = hosts.select(*HOST, "host_index")
    found = rows.select(HOST).join(keys, on=HOST, how="left", maintain_order="left")
    return found["host_index"].to_numpy().astype(np.int64)


def host_reasons(
    model: Model, windows: ScoredWindows, hosts: pl.DataFrame
) -> dict[tuple[str, str], list[Reason]]:
    """Say what decided in the window that speaks most against each alerted host.

    Parameters
    ----------
    hosts
        Rows of `veilwatch.schema.scores.ScoreFrame.hosts`.

    Returns
    -------
    dict
        By host and subscriber, of at most `MAX_EXPLAINED_HOSTS`, the best-scored ones.
    """
    card = model.manifest.windows
    assert card is not None, "asked of a model without windows"
    alerted = hosts.filter("alert").select("score", src_ip="host", subscriber="subscriber")
    told = (
        windows.strongest.keys.select(HOST)
        .with_row_index("row")
        .join(alerted, on=HOST, how="inner")
        .sort("score", "row", descending=[True, False])
        .head(MAX_EXPLAINED_HOSTS)
    )
    if told.is_empty():
        return {}
    chosen = windows.strongest.take(told["row"].to_numpy().astype(np.intp))
    found = reasons(chosen, model.explain_windows(chosen), card.benign_ranges, units="windows")
    return {
        host: [replace(reason, text=f"Host: {reason.text}") for reason in said]
        for host, said in zip(told.select(HOST).iter_rows(), found, strict=True)
    }
