"""Scoring of flow tables as they come, and of their hosts at the end."""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl

from veilwatch.detection.scoring.explain import reasons
from veilwatch.detection.scoring.host_frame import host_frame
from veilwatch.detection.scoring.hosts import HostSums
from veilwatch.detection.scoring.naming import HostNamer
from veilwatch.detection.scoring.owners import Owners
from veilwatch.detection.scoring.parts import host_index, host_reasons, score_parts
from veilwatch.detection.scoring.unit import check_unit
from veilwatch.learning.detectors.evidence import log_odds, probability
from veilwatch.learning.features.flow_class import flow_class
from veilwatch.learning.features.host_evidence import (
    FLOW_SHARES,
    Evidence,
    class_statistics,
    upper_means,
)
from veilwatch.learning.features.windows import HOST, READ_COLUMNS
from veilwatch.learning.models import Model
from veilwatch.schema.features import FeatureFrame
from veilwatch.schema.flow_facts import SCORED_COLUMNS
from veilwatch.schema.flows import FlowTable
from veilwatch.schema.scores import HostKey, Reason, ScoreFrame

EXPLAINED_PER_TABLE: Final = 256
"""Most flows of one table that may be explained, the best-scored of each host first: an exact
explanation costs as much as scoring hundreds of flows."""

MAX_EXPLAINED: Final = 1024
"""Most flows explained in all, the best-scored of each host first: with five LightGBM members some
seconds, whatever a capture holds. A page shows some dozens of alerts."""


class FlowScorer:
    """Score flow tables one after the other, then their hosts.

    Parameters
    ----------
    model
        The trained model.

    Raises
    ------
    ModelError
        If it judges something other than flows.
    """

    def __init__(self, model: Model) -> None:
        check_unit(model.manifest)
        self._model = model
        self._kept: list[pl.DataFrame] = []
        self._part_flows: list[pl.DataFrame] = []
        self._asked: list[tuple[pl.DataFrame, FeatureFrame]] = []
        self._namer = HostNamer.of(model)

    def add(self, table: FlowTable) -> pl.DataFrame:
        """Score one table; return it with the further columns `score` and `alert`."""
        features = self._model.features(table)
        score = self._model.score(features)
        alert = score >= self._model.manifest.thresholds.unit
        frame = table.frame.with_columns(
            pl.Series("score", score, pl.Float32), pl.Series("alert", alert, pl.Boolean)
        )
        self._kept.append(frame.select(*SCORED_COLUMNS, flow_class=flow_class()))
        if self._model.manifest.hosts:
            self._part_flows.append(table.frame.select(READ_COLUMNS))
        self._explain(frame, features)
        if self._namer:
            self._namer.add(frame)
        return frame

    def finish(self) -> ScoreFrame:
        """Return the scores of all tables and of their hosts; none where no table came."""
        if not self._kept:
            self.add(FlowTable.empty())
        # Whose the tunnels are is known only now that all flows have been seen.
        flows, _ = Owners().settle(pl.concat(self._kept))
        model = self._model
        keys, sums = _sums(flows, model.manifest.thresholds.upper_share)
        parts = evidence = None
        if model.manifest.hosts:
            rows = pl.concat(self._part_flows).with_columns(flows["subscriber"])
            self._part_flows = []  # nobody adds after the end
            parts = score_parts(model, FlowTable(rows))
            del rows
            evidence = parts.evidence(keys)
        if self._namer:
            self._namer.settle(flows)
        names: list[HostKey] = list(keys.select(HOST).iter_rows())
        hosts = host_frame(model, names, sums, evidence, self._namer)
        return ScoreFrame(
            flows.drop("flow_class"),
            hosts,
            model.manifest.thresholds.unit,
            model.host_threshold,
            self._reasons(),
            host_reasons(model, parts, hosts) if parts else {},
            parts.hosts_left_out if parts else 0,
        )

    def _explain(self, frame: pl.DataFrame, features: FeatureFrame) -> None:
        """Remember alerted flows, and what speaks most against each host, to explain them."""
        least = min(self._model.manifest.thresholds.unit, self._model.host_threshold)
        rows = (
            frame.lazy()
            .select(*HOST, "score")
            .with_row_index("row")
            .filter(pl.col("score") >= least)
            .with_columns(rank=pl.col("score").rank("ordinal", descending=True).over(HOST))
            .sort("rank", "score", descending=[False, True])
            .head(EXPLAINED_PER_TABLE)
            .collect()["row"]
            .to_numpy()
        )
        if not len(rows):
            return
        self._asked.append((frame[rows].select(*HOST, "score"), features.take(rows)))
        if sum(keys.height for keys, _ in self._asked) > 2 * MAX_EXPLAINED:
            self._narrow()

    def _narrow(self) -> None:
        """Keep the flows that are to be explained, the best-scored of each host first."""
        keys = pl.concat([keys for keys, _ in self._asked])
        frames = [frame for _, frame in self._asked]
        rows = (
            keys.with_row_index("row")
            .with_columns(rank=pl.col("score").rank("ordinal", descending=True).over(HOST))
            .sort("rank", "score", "row", descending=[False, True, False])
            .head(MAX_EXPLAINED)["row"]
            .to_numpy()
            .astype(np.intp)
        )
        whole = FeatureFrame(
            frames[0].schema,
            np.concatenate([frame.values for frame in frames]),
            pl.concat([frame.keys for frame in frames]),
        )
        self._asked = [(keys[rows], whole.take(rows))]

    def _reasons(self) -> dict[int, list[Reason]]:
        if not self._asked:
            return {}
        self._narrow()
        _, chosen = self._asked[0]
        found = reasons(chosen, self._model.explain(chosen), self._model.manifest.benign_ranges)
        return dict(zip(chosen.keys["flow_id"].to_list(), found, strict=True))


def _sums(flows: pl.DataFrame, upper_share: float) -> tuple[pl.DataFrame, HostSums]:
    """Add up the flows of each host; return `HOST` and `host_index` of each, and the sums."""
    hosts = (
        flows.lazy()
        .group_by(HOST, maintain_order=True)
        .agg(
            flows=pl.len(),
            alerts=pl.col("alert").sum(),
            first_ns=pl.col("first_ns").min(),
            last_ns=pl.col("last_ns").max(),
        )
        .with_row_index("host_index")
        .collect()
    )
    index = host_index(flows, hosts)
    odds = log_odds(flows["score"].to_numpy().astype(np.float64))
    said = Evidence(index, odds, flows["flow_class"].to_numpy().astype(np.int64))
    upper = upper_means(hosts.height, said, (*FLOW_SHARES, upper_share))
    evidence = np.hstack([class_statistics(hosts.height, said), upper[:, :-1]])
    flow_count, alerts, first_ns, last_ns = (
        hosts[name].to_numpy().astype(np.int64)
        for name in ("flows", "alerts", "first_ns", "last_ns")
    )
    return hosts, HostSums(
        flow_count, alerts, probability(upper[:, -1]), first_ns, last_ns, evidence
    )
