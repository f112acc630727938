"""Host windows as a second witness: their scores, what they say of hosts, and why."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import polars as pl

from veilwatch.detectors.evidence import group_scores
from veilwatch.features.windows import HOST
from veilwatch.registry import Model
from veilwatch.schema.features import FeatureFrame
from veilwatch.schema.flows import FlowTable
from veilwatch.schema.scores import Reason
from veilwatch.scoring.explain import reasons


@dataclass(frozen=True, slots=True)
class ScoredWindows:
    """Host windows with their scores.

    Attributes
    ----------
    features
        The windows; their keys hold `veilwatch.features.windows.HOST`.
    score
        In 0…1, shape (windows,).
    upper_share
        Share of a host's windows, the highest-scoring ones, that speak for it.
    """

    features: FeatureFrame
    score: npt.NDArray[np.float64]
    upper_share: float

    def of_hosts(self, hosts: pl.DataFrame) -> npt.NDArray[np.float64]:
        """Return the score of each host by its windows, shape (hosts,).

        Parameters
        ----------
        hosts
            Has `HOST` and `host_index`.
        """
        index = host_index(self.features.keys, hosts)
        return group_scores(self.score, index, hosts.height, upper_share=self.upper_share)


def score_windows(model: Model, flows: FlowTable) -> ScoredWindows:
    """Score the host windows of all flows of the inputs with a model that has windows."""
    card = model.manifest.windows
    assert card is not None, "asked of a model without windows"
    features = model.window_features(flows)
    return ScoredWindows(features, model.score_windows(features), card.thresholds.upper_share)


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
        By host and subscriber.
    """
    card = model.manifest.windows
    assert card is not None, "asked of a model without windows"
    alerted = hosts.filter("alert").select(src_ip="host", subscriber="subscriber")
    strongest = (
        windows.features.keys.select(HOST)
        .with_row_index("row")
        .with_columns(pl.Series("score", windows.score))
        .join(alerted, on=HOST, how="semi")
        .sort("score", "row", descending=[True, False])
        .unique(HOST, keep="first", maintain_order=True)
    )
    if strongest.is_empty():
        return {}
    chosen = windows.features.take(strongest["row"].to_numpy().astype(np.intp))
    found = reasons(chosen, model.explain_windows(chosen), card.benign_ranges, units="windows")
    return {
        host: [replace(reason, text=f"Host: {reason.text}") for reason in said]
        for host, said in zip(strongest.select(HOST).iter_rows(), found, strict=True)
    }
