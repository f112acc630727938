"""Which family each alerted host looks like."""

from __future__ import annotations

from collections import OrderedDict
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
from veilwatch.learning.features.windows import HOST
from veilwatch.learning.models import FamilyCard, Model
from veilwatch.schema.features import FeatureFrame
from veilwatch.schema.flows import FlowTable
from veilwatch.schema.scores import UNKNOWN_FAMILY, HostKey

MAX_ASKED: Final = 1 << 16
"""Most flows that the trees are asked about at a time, the highest-scored of each host first: some
ten seconds and 50 MiB. A host of which none is asked about is like no family."""

MAX_HOSTS: Final = MAX_ASKED
"""Most hosts whose answers are kept: of a file all that were asked about. The host asked about
longest ago is forgotten."""

_Answer = tuple[float, npt.NDArray[np.float32]]
"""Score of a flow, and what the trees say of it: the log-probability of each family."""


class HostNamer:
    """Gather each host's most malicious flows table by table, and ask the trees about them.

    Of each table only flows at the detector's threshold that carry content are asked about
    (`veilwatch.learning.detectors.content`), and of these the `EVIDENCE_FLOWS` strongest of each
    host; at a time no more than `MAX_ASKED`. A host without such a flow is like no family. The
    trees are asked when names are wanted: of a file at its end, live with each table.

    Parameters
    ----------
    model, card
        The trees and what the manifest says of them.
    max_hosts
        Bound; see `MAX_HOSTS`.
    """

    def __init__(self, model: FamilyModel, card: FamilyCard, *, max_hosts: int = MAX_HOSTS) -> None:
        self._model = model
        self._card = card
        self._max_hosts = max_hosts
        self._waiting: list[tuple[pl.DataFrame, FeatureFrame]] = []
        self._answers: OrderedDict[HostKey, dict[int, _Answer]] = OrderedDict()

    @classmethod
    def of(cls, model: Model, *, max_hosts: int = MAX_HOSTS) -> HostNamer | None:
        """Return the namer of a model, None where it names no families."""
        card = model.manifest.families
        if model.families is None or card is None:
            return None
        return cls(model.families, card, max_hosts=max_hosts)

    def add(self, frame: pl.DataFrame) -> None:
        """Take in one flow table with the further column `score`.

        What was answered of the same flows before, while they were alive, is forgotten.
        """
        self._forget(frame)
        rank = pl.col("score").rank("ordinal", descending=True).over(HOST)
        asked = (pl.col("score") >= self._card.flow_threshold) & carries_content()
        chosen = frame.filter(asked).filter(rank <= EVIDENCE_FLOWS)
        if chosen.is_empty():
            return
        keys = chosen.select("flow_id", *HOST, "score")
        self._waiting.append((keys, compute_features(FlowTable(chosen), FEATURE_SETS)))
        if sum(keys.height for keys, _ in self._waiting) > 2 * MAX_ASKED:
            self._narrow()

    def settle(self, flows: pl.DataFrame) -> None:
        """Give flows that wait the host that they turned out to be of, by their `flow_id`."""
        if self._waiting:
            self._narrow()
            keys, features = self._waiting[0]
            owned = keys.drop(HOST).join(
                flows.select("flow_id", *HOST), on="flow_id", how="left", maintain_order="left"
            )
            self._waiting = [(owned.select(keys.columns), features)]

    def rename(self, old: HostKey, new: HostKey) -> None:
        """Count what was answered of one host to another: they turned out to be the same."""
        answers = self._answers.pop(old, None)
        if answers is not None:
            kept = self._answers.setdefault(new, {})
            kept.update(answers)
            _shorten(kept)

    def name(
        self, hosts: Sequence[HostKey], alert: npt.NDArray[np.bool_]
    ) -> tuple[list[str], npt.NDArray[np.float64]]:
        """Return the family of each alerted host and how sure that is; '' and 0 of the others."""
        self._ask()
        names, certainty = [""] * len(hosts), np.zeros(len(hosts))
        group: list[int] = []
        answers: list[_Answer] = []
        for k in np.flatnonzero(alert).tolist():
            names[k] = UNKNOWN_FAMILY
            kept = self._answers.get(hosts[k], {}).values()
            answers += kept
            group += [k] * len(kept)
        if not answers:
            return names, certainty
        known, index = np.unique(group, return_inverse=True)
        rows = strongest(np.array([score for score, _ in answers]), index.astype(np.int64))
        said = np.stack([answers[row][1] for row in rows]).astype(np.float64)
        best, sure = name_groups(group_evidence(said, index[rows].astype(np.int64), len(known)))
        certainty[known] = sure
        for k, family in zip(known.tolist(), best.tolist(), strict=True):
            if certainty[k] >= self._card.threshold:
                names[k] = self._model.names[family]
        return names, certainty

    def _forget(self, flows: pl.DataFrame) -> None:
        if not self._answers:
            return
        for *host, flow in flows.select(*HOST, "flow_id").iter_rows():
            kept = self._answers.get((host[0], host[1]))
            if kept is not None:
                kept.pop(flow, None)

    def _narrow(self) -> None:
        """Keep the flows that are to be asked about."""
        keys = pl.concat([keys for keys, _ in self._waiting])
        frames = [frame for _, frame in self._waiting]
        whole = FeatureFrame(
            frames[0].schema,
            np.concatenate([frame.values for frame in frames]),
            pl.concat([frame.keys for frame in frames]),
        )
        if keys.height > MAX_ASKED:
            rank = pl.col("score").rank("ordinal", descending=True).over(HOST)
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
        self._waiting = [(keys, whole)]

    def _ask(self) -> None:
        """Ask the trees about the flows that wait, and keep the strongest answers of each host."""
        if not self._waiting:
            return
        self._narrow()
        keys, features = self._waiting.pop()
        answers = self._model.log_probabilities(features).astype(np.float32)
        for (flow, *host, score), said in zip(keys.iter_rows(), answers, strict=True):
            key: HostKey = (host[0], host[1])
            kept = self._answers.setdefault(key, {})
            kept[flow] = score, said
            _shorten(kept)
            self._answers.move_to_end(key)
        while len(self._answers) > self._max_hosts:
            self._answers.popitem(last=False)


def _shorten(answers: dict[int, _Answer]) -> None:
    """Keep the answers about the highest-scored flows."""
    while len(answers) > EVIDENCE_FLOWS:
        del answers[min(answers, key=lambda flow: answers[flow][0])]
