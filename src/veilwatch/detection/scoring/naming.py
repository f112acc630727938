"""Which family each alerted host looks like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from veilwatch.learning.detectors.content import carries_content
from veilwatch.learning.detectors.family import (
    EVIDENCE_FLOWS,
    FEATURE_SETS,
    FamilyModel,
    group_evidence,
    name_groups,
    strongest,
)
from veilwatch.learning.features import compute_features
from veilwatch.learning.models import FamilyCard
from veilwatch.schema.features import FeatureFrame
from veilwatch.schema.flows import FlowTable
from veilwatch.schema.scores import UNKNOWN_FAMILY

MAX_ASKED: Final = 1 << 16
"""Most flows of one run that the trees are asked about, the highest-scored of each host first: some
ten seconds and 50 MiB. A host of which none is asked about is like no family."""


class HostNamer:
    """Gather each host's most malicious flows table by table, and ask the trees about them.

    Of each table only flows at the detector's threshold that carry content are asked about
    (`veilwatch.learning.detectors.content`), and of these the `EVIDENCE_FLOWS` strongest of each
    host; of all tables together no more than `MAX_ASKED`. A host without such a flow is like no
    family.

    Parameters
    ----------
    model, card
        The trees and what the manifest says of them.
    host
        Columns that tell hosts apart.
    """

    def __init__(self, model: FamilyModel, card: FamilyCard, host: Sequence[str]) -> None:
        self._model = model
        self._card = card
        self._host = list(host)
        self._asked: list[tuple[pl.DataFrame, FeatureFrame]] = []

    def add(self, frame: pl.DataFrame) -> None:
        """Take in one flow table with the further column `score`."""
        rank = pl.col("score").rank("ordinal", descending=True).over(self._host)
        asked = (pl.col("score") >= self._card.flow_threshold) & carries_content()
        chosen = frame.filter(asked).filter(rank <= EVIDENCE_FLOWS)
        if chosen.is_empty():
            return
        keys = chosen.select("flow_id", *self._host, "score")
        self._asked.append((keys, compute_features(FlowTable(chosen), FEATURE_SETS)))
        if sum(keys.height for keys, _ in self._asked) > 2 * MAX_ASKED:
            self._narrow()

    def _narrow(self) -> None:
        """Keep the flows that are to be asked about."""
        keys = pl.concat([keys for keys, _ in self._asked])
        frames = [frame for _, frame in self._asked]
        whole = FeatureFrame(
            frames[0].schema,
            np.concatenate([frame.values for frame in frames]),
            pl.concat([frame.keys for frame in frames]),
        )
        if keys.height > MAX_ASKED:
            rank = pl.col("score").rank("ordinal", descending=True).over(self._host)
            rows = (
                keys.with_row_index("row")
                .with_columns(rank=rank)
                .sort("rank", "score", "row", descending=[False, True, False])
                .head(MAX_ASKED)["row"]
                .sort()
                .to_numpy()
                .astype(np.intp)
            )
            keys, whole = keys[rows], whole.take(rows)
        self._asked = [(keys, whole)]

    def _answers(self) -> pl.DataFrame:
        """Return what the trees say: `flow_id` and `said`, the log-probabilities."""
        said = pl.Array(pl.Float32, len(self._model.names))
        if not self._asked:
            return pl.DataFrame(schema={"flow_id": pl.Int64, "said": said})
        self._narrow()
        keys, features = self._asked[0]
        found = self._model.log_probabilities(features).astype(np.float32)
        return keys.select("flow_id").with_columns(pl.Series("said", found, said))

    def name(
        self, flows: pl.DataFrame, index: npt.NDArray[np.int64], hosts: int
    ) -> tuple[list[str], npt.NDArray[np.float64]]:
        """Return the family of each host, and how sure that is, both of length `hosts`.

        Parameters
        ----------
        flows
            All flows with their scores.
        index
            Host of each flow, shape (flows,).
        """
        asked = (
            flows.select("flow_id", "score")
            .with_columns(pl.Series("host_index", index))
            .join(self._answers(), on="flow_id", how="inner", maintain_order="left")
        )
        rows = strongest(asked["score"].to_numpy(), asked["host_index"].to_numpy())
        asked = asked[rows]
        said = asked["said"].to_numpy().astype(np.float64).reshape(-1, len(self._model.names))
        known, group = np.unique(asked["host_index"].to_numpy(), return_inverse=True)
        best, sure = name_groups(group_evidence(said, group.astype(np.int64), len(known)))
        names, certainty = [UNKNOWN_FAMILY] * hosts, np.zeros(hosts)
        certainty[known] = sure
        for host, k in zip(known.tolist(), best.tolist(), strict=True):
            if certainty[host] >= self._card.threshold:
                names[host] = self._model.names[k]
        return names, certainty
