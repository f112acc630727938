"""How detectors do on traffic that was changed: held-out captures, before and after.

A bounded sample of captures of both classes is changed in every way of `perturb`, written as a
corpus of its own and read through the whole pipeline, so that detectors of every unit judge it as
they judge anything else.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from veilwatch.corpus.catalogue import Corpus
from veilwatch.corpus.manifest import CaptureEntry, write_manifest
from veilwatch.files import make_folder
from veilwatch.learning.comparison.document import Change
from veilwatch.learning.comparison.perturb import (
    PERTURBATIONS,
    perturb,
    read_packets,
    write_packets,
)
from veilwatch.learning.comparison.plan import Split, judged_folds
from veilwatch.learning.evaluation.labelled import Labels
from veilwatch.learning.models import Thresholds
from veilwatch.learning.training.calibrate import capture_scores
from veilwatch.progress import SILENT, Progress

PER_CLASS: Final = 40
"""Captures of each class that are changed where nobody says how many: each is written, read and
judged once for every change, and a share of 40 is known to within a sixth."""

MANIFEST: Final = "MANIFEST.csv"

CAPTURE: Final = "capture"
"""Column of the manifest of changed captures: index of the capture in its corpus."""

CHANGE: Final = "change"
"""Column of that manifest: what was done."""


def choose_split(splits: Sequence[Split]) -> Split | None:
    """Return the split whose detectors are tried: they must find something to lose.

    Where whole groups are held out detectors find most; random units leave no capture unseen.
    """
    whole = [split for split in splits if len(split.fold)]
    return next((s for s in whole if s.name == "group"), whole[0] if whole else None)


def choose_captures(corpus: Corpus, split: Split, count: int, *, seed: int) -> list[int]:
    """Return indices of captures to change, at most `count` of each class.

    They are of judged folds and hold flows; sources and families take turns.
    """
    rng = np.random.default_rng(seed)
    judged = np.isin(split.fold, judged_folds(split, corpus.entries))
    filled = np.isin(np.arange(len(corpus.entries)), corpus.flows["capture"].to_numpy())
    out: list[int] = []
    for label in ("malicious", "benign"):
        turns: Counter[tuple[str, str]] = Counter()
        order: list[tuple[int, int, int]] = []
        for index in rng.permutation(len(corpus.entries)).tolist():
            entry = corpus.entries[index]
            if entry.label == label and judged[index] and filled[index]:
                key = entry.source_repo, entry.family if label == "malicious" else ""
                turns[key] += 1
                order.append((turns[key], len(order), index))
        out += [index for _, _, index in sorted(order)[:count]]
    return out


def make_trials(
    corpus: Corpus,
    chosen: Sequence[int],
    folder: Path,
    *,
    seed: int,
    progress: Progress = SILENT,
) -> Path:
    """Write every chosen capture changed in every way; return the manifest of what was written.

    What `folder` holds whole already is kept.

    Raises
    ------
    CaptureError
        If a capture can no longer be read.
    OutputError
        If the folder cannot be written to.
    """
    manifest = folder / MANIFEST
    if manifest.is_file():
        return manifest
    make_folder(folder)
    progress.start(f"changing {len(chosen)} captures in {len(PERTURBATIONS)} ways", len(chosen))
    rows: list[CaptureEntry] = []
    for index in chosen:
        entry = corpus.entries[index]
        packets = sorted(read_packets(entry.file), key=lambda packet: packet.ts_ns)
        for name in PERTURBATIONS:
            file = f"{name}/{index}.pcapng"
            # Each capture has chance of its own, or all of them would lose the same packets.
            write_packets(folder / file, perturb(packets, name, seed + 7919 * index))
            extra = {CAPTURE: str(index), CHANGE: name}
            rows.append(replace(entry, file=folder / file, name=file, extra=extra))
        progress.advance()
    write_manifest(manifest, rows)
    return manifest


def trials_key(content: str, chosen: Sequence[int], seed: int) -> str:
    """Return the name of the folder of changed captures: a hash of what they are made from."""
    code = hashlib.sha256((Path(__file__).parent / "perturb.py").read_bytes()).hexdigest()
    text = json.dumps([content, list(chosen), seed, code])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def original_captures(trials: Corpus) -> npt.NDArray[np.int64]:
    """Return which capture of the corpus each changed one was made from, shape (trials,)."""
    return np.array([int(entry.extra[CAPTURE]) for entry in trials.entries], np.int64)


def changes(
    trials: Corpus,
    labels: Labels,
    score: npt.NDArray[np.float64],
    split: Split,
    thresholds: Mapping[int, Thresholds],
) -> dict[str, Change]:
    """Return what was found at the detectors' own thresholds, by what was changed.

    Parameters
    ----------
    trials
        The changed captures.
    labels
        Their units.
    score
        Held-out score of each unit, NaN where it was not judged, shape (units,).
    thresholds
        Of each judged fold of the split.
    """
    fold = split.fold[original_captures(trials)]
    unit_alert = np.zeros(len(score), bool)
    alert = np.zeros(len(trials.entries), bool)
    for number, chosen in thresholds.items():
        unit_alert |= (fold[labels.capture] == number) & (score >= chosen.unit)
        captures = capture_scores(score, labels, chosen.upper_share)
        # A capture of which nothing is left that could be judged is not found: NaN is below all.
        alert |= (fold == number) & (captures >= chosen.group)
    judged = np.isin(fold, list(thresholds))
    done = np.array([entry.extra[CHANGE] for entry in trials.entries])
    malicious = labels.capture_malicious
    used = ~np.isnan(score)

    def change(name: str) -> Change:
        captures = judged & (done == name)
        units = used & captures[labels.capture]
        return Change(
            malicious=int((captures & malicious).sum()),
            benign=int((captures & ~malicious).sum()),
            found=_share(alert[captures & malicious]),
            false_alarms=_share(alert[captures & ~malicious]),
            units_found=_share(unit_alert[units & labels.malicious]),
            units_false_alarms=_share(unit_alert[units & ~labels.malicious]),
        )

    return {name: change(name) for name in PERTURBATIONS}


def _share(alert: npt.NDArray[np.bool_]) -> float | None:
    return float(alert.mean()) if len(alert) else None
