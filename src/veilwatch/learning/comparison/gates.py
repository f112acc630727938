"""What would make every figure worthless: leaks between the sides of a split, and shortcuts."""

from __future__ import annotations

from typing import Final

import numpy as np

from veilwatch.corpus.catalogue import Corpus
from veilwatch.errors import CorpusError
from veilwatch.learning.comparison.copies import ALIKE, LEAST_PACKETS, copied_captures, flow_marks
from veilwatch.learning.comparison.document import DetectorResult, Gate
from veilwatch.learning.comparison.plan import Split, judged_folds

GAP: Final = 0.05
"""AUC that a detector must have above what metadata alone reaches, or the gate fails."""

MOST_COPIES: Final = 0.1
"""Share of all captures that may be set aside as copies before the corpus is no corpus of many
captures any more."""


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
    """Say what stands on both sides of a split: copies, which are set aside, and what is alike."""
    name = f"leaks, split by {split.name}"
    if not len(split.fold):
        return Gate(
            name=name,
            passed=True,
            text="Units of one capture stand on both sides: this split is there to show the gap.",
        )
    capture = corpus.flows["capture"].to_numpy()
    marks = flow_marks(corpus, ALIKE)
    copies = np.zeros(len(corpus.entries), bool)
    alike = tellable = 0
    for number in judged_folds(split, corpus.entries):
        judged = split.fold == number
        learned = (split.fold >= 0) & split.learned_from(split.fold, number)
        mine = copied_captures(corpus, judged) & learned
        copies |= mine
        rows = judged[capture] & (marks > 0)
        known = np.unique(marks[(learned & ~mine)[capture]])
        alike += int(np.isin(marks[rows], known[known > 0]).sum())
        tellable += int(rows.sum())
    share = float(copies.mean())
    text = (
        f"{int(copies.sum())} captures hold flows that others hold too, to the microsecond, and "
        "are not learned from where those are judged. "
        f"{100 * alike / max(tellable, 1):.1f} % of judged flows of {LEAST_PACKETS} or more "
        "packets have the sizes and order of a flow that was learned, at other times."
    )
    if share > MOST_COPIES:
        text += " THAT MANY COPIES MAKE FIGURES OF THIS SPLIT UNSURE: remove them from the corpus."
    return Gate(name=name, passed=share <= MOST_COPIES, text=text)


def shortcut_gate(metadata: DetectorResult, others: list[DetectorResult]) -> Gate | None:
    """Hold what metadata alone reaches against the best detector, on publishers never seen."""
    wanted = ("publisher", "source", "group", "family")
    split = next((name for name in wanted if name in metadata.splits), None)
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
    hard = next((name for name in ("publisher", "source") if name in result.splits), None)
    if hard is None or "flow" not in result.splits:
        return None
    random, honest = (result.splits[name].levels.get("flow") for name in ("flow", hard))
    if random is None or honest is None:
        return None
    rates = [level.detection_rate_at_fpr["0.01"].value for level in (random, honest)]
    if any(rate is None or np.isnan(rate) for rate in rates):
        return None
    return (
        f"{result.name}: {rates[0]:.3f} of malicious flows found at 1 % false positives in a "
        f"random split of flows, {rates[1]:.3f} with whole {hard}s held out."
    )
