"""What would make every figure worthless: leaks between the sides of a split, and shortcuts."""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl

from veilwatch.comparison.document import DetectorResult, Gate
from veilwatch.comparison.plan import Split
from veilwatch.corpus.catalogue import Corpus
from veilwatch.errors import CorpusError

GAP: Final = 0.05
"""AUC that a detector must have above what metadata alone reaches, or the gate fails."""

SAME: Final = (
    *("protocol", "fwd_packets", "bwd_packets", "fwd_bytes", "bwd_bytes"),
    *("fwd_payload_bytes", "bwd_payload_bytes", "tls_sni", "dns_query", "seq_gap_us"),
)
"""Flows that agree in all of these, microsecond gaps among them, are one flow recorded twice."""

LEAST_PACKETS: Final = 6
"""Flows of fewer packets agree by chance: an unanswered SYN is like any other."""


def refuse_equal_captures(corpus: Corpus) -> None:
    """Refuse a corpus that holds one capture under two labels.

    Raises
    ------
    CorpusError
        If captures of equal content have different labels.
    """
    labels: dict[str, tuple[str, str]] = {}
    for entry in corpus.entries:
        content = corpus.hashes[entry.name]
        name, label = labels.setdefault(content, (entry.name, entry.label))
        if label != entry.label:
            raise CorpusError(
                f"{entry.name} ({entry.label}) and {name} ({label}) are the same capture",
                hint="remove one of them from the manifest",
            )


def leak_gate(corpus: Corpus, split: Split) -> Gate:
    """Count captures and flows that stand on both sides of a split."""
    name = f"leaks, split by {split.name}"
    if not len(split.fold):
        return Gate(
            name=name,
            passed=True,
            text="Units of one capture stand on both sides: this split is there to show the gap.",
        )
    folds: dict[str, set[int]] = {}
    for entry, fold in zip(corpus.entries, split.fold.tolist(), strict=True):
        folds.setdefault(corpus.hashes[entry.name], set()).add(fold)
    captures = sum(len(found) > 1 for found in folds.values())
    whole = pl.col("fwd_packets") + pl.col("bwd_packets") >= LEAST_PACKETS
    flows = (
        corpus.flows.select(
            pl.struct(SAME).hash(seed=0).alias("same"),
            whole.alias("whole"),
            pl.Series("fold", split.fold[corpus.flows["capture"].to_numpy()]),
        )
        .filter("whole")
        .group_by("same")
        .agg(folds=pl.col("fold").n_unique(), flows=pl.len())
        .filter(pl.col("folds") > 1)["flows"]
        .sum()
    )
    return Gate(
        name=name,
        passed=captures == 0 and flows == 0,
        text=f"{captures} captures and {flows:,} flows of {LEAST_PACKETS} or more packets "
        "stand on both sides with equal content.",
    )


def shortcut_gate(metadata: DetectorResult, others: list[DetectorResult]) -> Gate | None:
    """Hold what metadata alone reaches against the best detector, on sources never seen."""
    split = next((s for s in ("source", "group", "family") if s in metadata.splits), None)
    if split is None:
        return None
    alone = metadata.splits[split].levels["flow"].roc_auc.value
    best = max(
        (
            (value, result.name)
            for result in others
            if split in result.splits and "flow" in result.splits[split].levels
            if (value := result.splits[split].levels["flow"].roc_auc.value) is not None
        ),
        default=None,
    )
    if alone is None or best is None:
        return None
    passed = best[0] - alone > GAP
    return Gate(
        name="shortcuts",
        passed=passed,
        text=f"Ports, TTL, windows, MSS, hour and the like alone reach an AUC of {alone:.3f} over "
        f"flows, {split} held out; {best[1]} without them reaches {best[0]:.3f}. "
        + (
            "The detectors see more than the place."
            if passed
            else "METADATA ALONE SEPARATES THE CLASSES: what these figures show may be the "
            "laboratory and not the threat."
        ),
    )


def random_gap(result: DetectorResult) -> str | None:
    """Say what a random split would have promised, in one sentence."""
    if not {"flow", "source"} <= result.splits.keys():
        return None
    random, honest = (result.splits[s].levels.get("flow") for s in ("flow", "source"))
    if random is None or honest is None:
        return None
    rates = [level.detection_rate_at_fpr["0.01"].value for level in (random, honest)]
    if any(rate is None or np.isnan(rate) for rate in rates):
        return None
    return (
        f"{result.name}: {rates[0]:.3f} of malicious flows found at 1 % false positives in a "
        f"random split of flows, {rates[1]:.3f} with whole sources held out."
    )
