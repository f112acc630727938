"""Which family each alerted host looks like."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from veilwatch.detectors.content import carries_content
from veilwatch.detectors.family import (
    EVIDENCE_FLOWS,
    FEATURE_SETS,
    FamilyModel,
    group_evidence,
    name_groups,
    strongest,
)
from veilwatch.features import compute_features
from veilwatch.registry import FamilyCard
from veilwatch.schema.flows import FlowTable
from veilwatch.schema.scores import UNKNOWN_FAMILY


class HostNamer:
    """Gather what the trees say of each host's most malicious flows, table by table.

    Of each table only flows at the detector's threshold that carry content are asked about
    (`veilwatch.detectors.content`), and of these the `EVIDENCE_FLOWS` strongest of each host: four
    bytes a family are kept for each. A host without such a flow is like no family.

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
        said = pl.Array(pl.Float32, len(model.names))
        self._answers = [pl.DataFrame(schema={"flow_id": pl.Int64, "said": said})]

    def add(self, frame: pl.DataFrame) -> None:
        """Ask about one flow table with the further column `score`."""
        rank = pl.col("score").rank("ordinal", descending=True).over(self._host)
        asked = (pl.col("score") >= self._card.flow_threshold) & carries_content()
        chosen = frame.filter(asked).filter(rank <= EVIDENCE_FLOWS)
        if chosen.is_empty():
            return
        features = compute_features(FlowTable(chosen), FEATURE_SETS)
        said = self._model.log_probabilities(features).astype(np.float32)
        dtype = self._answers[0].schema["said"]
        self._answers.append(chosen.select("flow_id").with_columns(pl.Series("said", said, dtype)))

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
            .join(pl.concat(self._answers), on="flow_id", how="inner", maintain_order="left")
        )
        rows = strongest(asked["score"].to_numpy(), asked["host_index"].to_numpy())
        asked = asked[rows]
        said = asked["said"].to_numpy().astype(np.float64).reshape(-1, len(self._model.names))
        best, certainty = name_groups(group_evidence(said, asked["host_index"].to_numpy(), hosts))
        sure = certainty >= self._card.threshold
        names = [
            self._model.names[k] if named else UNKNOWN_FAMILY
            for k, named in zip(best.tolist(), sure.tolist(), strict=True)
        ]
        return names, certainty
