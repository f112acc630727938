"""The decision about hosts under one split, beside every detector of flows; kept on disk.

What channels and host windows say is the same beside every detector: it is learned once a split.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from veilwatch.corpus.catalogue import Corpus
from veilwatch.errors import TrainingError
from veilwatch.files import replacing
from veilwatch.jit import source_hash
from veilwatch.learning.comparison.copies import copied_captures
from veilwatch.learning.comparison.jobs import LEARNS, code_hash
from veilwatch.learning.comparison.plan import Split, judged_folds
from veilwatch.learning.detectors import DetectorSettings
from veilwatch.learning.training.hosts import HostParts, fit_decision, fit_parts, host_limits
from veilwatch.progress import SILENT, Progress

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Decided:
    """What was decided about captures and about used hosts that captures were merged with.

    Attributes
    ----------
    score
        Held-out score of each host, NaN for those that take no part, shape (hosts,).
    limit
        From which score on each is an alert, set by the other folds, shape (hosts,).
    base
        Capture of each host, shape (hosts,).
    size
        How many used hosts were merged with it, 0 for captures as recorded, shape (hosts,).
    malicious
        Label of the capture, shape (hosts,).
    """

    score: Floats
    limit: Floats
    base: Integers
    size: Integers
    malicious: Mask


def decide(
    corpus: Corpus,
    content: str,
    split: Split,
    scores: Mapping[str, Floats],
    folder: Path,
    settings: DetectorSettings,
    target_rate: float,
    progress: Progress = SILENT,
) -> dict[str, Decided]:
    """Decide about the hosts of a split beside each detector; what `folder` holds is kept.

    A capture of which another fold holds a copy takes no part: channels and host windows have
    learned from that copy.

    Parameters
    ----------
    content
        Hash of the corpus.
    split
        One that holds out whole captures, without an order (`takes_decision`).
    scores
        By detector the held-out score of each flow of the corpus; NaN in folds that are not
        judged.

    Raises
    ------
    TrainingError
        If fewer than two folds can be judged, or no benign host is left to choose thresholds on.
    """
    files = {
        name: folder / f"hosts-{_key(content, split, score, settings.seed, target_rate)}.npz"
        for name, score in scores.items()
    }
    missing = [name for name, file in files.items() if not file.is_file()]
    if missing:
        folds = judged_folds(split, corpus.entries)
        if len(folds) < 2:
            raise TrainingError(
                "one fold alone has malicious and benign captures on both sides",
                hint="use fewer folds, or add captures of the class that is missing",
            )
        chosen = np.isin(split.fold, folds)
        part, rows = _captures_of(corpus, chosen)
        index = np.flatnonzero(chosen).astype(np.int64)
        fold = np.unique(split.fold[index], return_inverse=True)[1].astype(np.int64)
        copied = _copied_elsewhere(corpus, split, folds)[index]
        parts = fit_parts(part, fold, settings, progress)
        for name in missing:
            found = _decide(parts, scores[name][rows], index, copied, settings, target_rate)
            with replacing(files[name]) as stream:
                np.savez(
                    stream,
                    score=found.score,
                    limit=found.limit,
                    base=found.base,
                    size=found.size,
                    malicious=found.malicious,
                )
    return {name: _read(file) for name, file in files.items()}


def takes_decision(split: Split) -> bool:
    """Whether hosts can be decided about under a split: each lies whole in one of equal folds."""
    return bool(len(split.fold)) and not split.ordered


def _decide(
    parts: HostParts,
    flow_score: Floats,
    index: Integers,
    copied: Mask,
    settings: DetectorSettings,
    target_rate: float,
) -> Decided:
    """Decide beside one detector.

    Parameters
    ----------
    index
        Capture of the whole corpus that each of these is.
    copied
        Which of these take no part.
    """
    hosts = parts.hosts
    decided = fit_decision(parts, flow_score, settings).decision.score
    score = np.where(copied[hosts.base], np.nan, decided)
    limit = host_limits(hosts, parts.side, score, target_rate)
    return Decided(score, limit, index[hosts.base], hosts.size, hosts.malicious)


def _captures_of(corpus: Corpus, chosen: Mask) -> tuple[Corpus, Integers]:
    """Return a corpus of some captures, and the rows of its flows in the whole."""
    place = np.cumsum(chosen) - 1
    capture = corpus.flows["capture"].to_numpy()
    rows = np.flatnonzero(chosen[capture])
    renumbered = pl.Series("capture", place[capture[rows]], corpus.flows.schema["capture"])
    flows = corpus.flows[rows].with_columns(renumbered)
    entries = [entry for entry, taken in zip(corpus.entries, chosen, strict=True) if taken]
    return Corpus(entries, flows, corpus.hashes, corpus.faults), rows.astype(np.int64)


def _copied_elsewhere(corpus: Corpus, split: Split, folds: Sequence[int]) -> Mask:
    """Return which captures hold traffic of a capture of another fold, shape (captures,)."""
    out = np.zeros(len(corpus.entries), bool)
    for number in folds:
        mine = split.fold == number
        out |= mine & copied_captures(corpus, ~mine & np.isin(split.fold, folds))
    return out


def _read(path: Path) -> Decided:
    with np.load(path, allow_pickle=False) as file:
        return Decided(
            file["score"].astype(np.float64),
            file["limit"].astype(np.float64),
            file["base"].astype(np.int64),
            file["size"].astype(np.int64),
            file["malicious"].astype(bool),
        )


_DECIDES: Final = (
    *LEARNS,
    *("learning/evaluation/calibration.py", "learning/comparison/hosts.py"),
    *(f"learning/training/{name}.py" for name in ("crossfit", "hosts")),
)
"""Code that decides, beside that which learns."""


def _key(content: str, split: Split, score: Floats, seed: int, target_rate: float) -> str:
    """Return what a decision is filed under: everything that could change it."""
    parts = [content, split.name, seed, target_rate, source_hash(), code_hash(_DECIDES)]
    digest = hashlib.sha256(json.dumps(parts).encode())
    digest.update(split.fold.tobytes())
    digest.update(score.tobytes())
    return digest.hexdigest()[:32]
