"""Which captures each detector learns from and is judged by, under every split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from veilwatch.corpus.manifest import CaptureEntry
from veilwatch.errors import TrainingError
from veilwatch.evaluation.splits import assign_folds, deal

SPLITS: Final[dict[str, str]] = {
    "source": "whole publishers held out: a network that nobody recorded",
    "group": "source, family and day held out together: unseen days and variants",
    "family": "whole families held out: malware that nobody has seen",
    "time": "trained on earlier captures, judged by later ones",
    "flow": "single units dealt out at random: flatters, shown for the gap",
}
"""Every split and what it asks."""

TIME_PARTS: Final = 4
"""Stretches of equal numbers of captures; the first is only learned from."""


@dataclass(frozen=True, slots=True)
class Split:
    """One way to part a corpus.

    Attributes
    ----------
    name
        A key of `SPLITS`.
    fold
        int64, fold in which each capture is judged, -1 for never, shape (captures,); empty where
        units are dealt out without regard to captures.
    folds
        Number of folds.
    ordered
        Whether a fold is judged by detectors that learned from earlier folds only.
    """

    name: str
    fold: npt.NDArray[np.int64]
    folds: int
    ordered: bool = False

    def unit_folds(self, capture: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.int64]:
        """Return the fold of each unit, shape (units,)."""
        if len(self.fold):
            return self.fold[capture]
        return np.random.default_rng(seed).integers(0, self.folds, len(capture))

    def learned_from(self, fold: npt.NDArray[np.int64], number: int) -> npt.NDArray[np.bool_]:
        """Return which folds' members train the detector that judges fold `number`."""
        return fold < number if self.ordered else fold != number


def make_split(
    name: str, entries: Sequence[CaptureEntry], *, folds: int, seed: int
) -> Split:
    """Part a corpus.

    Raises
    ------
    TrainingError
        If the corpus cannot be parted so; the message says what is missing.
    """
    if name not in SPLITS:
        raise TrainingError(f"unknown split {name!r}", hint=f"known: {', '.join(SPLITS)}")
    if name == "flow":
        return Split(name, np.zeros(0, np.int64), folds)
    if name == "source" or name == "group":
        fold = assign_folds(entries, name, folds=folds, seed=seed)
    elif name == "family":
        _require_families(entries, folds)
        # A family is left out whole; benign captures stay together by group.
        keys = [e.family if e.label == "malicious" else f"benign {e.group}" for e in entries]
        fold = deal(keys, entries, folds=folds, seed=seed)
    else:
        return _by_time(entries)
    return _checked(Split(name, fold, folds), entries)


def _require_families(entries: Sequence[CaptureEntry], folds: int) -> None:
    families = {entry.family for entry in entries if entry.label == "malicious"}
    if len(families) < folds:
        raise TrainingError(
            f"{len(families)} families cannot fill {folds} folds",
            hint="use fewer folds, or leave out the split by family",
        )


def _by_time(entries: Sequence[CaptureEntry]) -> Split:
    """Cut the captures, in the order of their dates, into stretches of equal numbers."""
    dates = np.array([entry.capture_start for entry in entries])
    missing = int((dates == "").sum())
    if missing == len(dates):
        raise TrainingError(
            "no capture has a date", hint="fill in capture_start, or leave out the split by time"
        )
    fold = np.full(len(dates), -1, np.int64)
    dated = np.flatnonzero(dates != "")
    days = np.array([date[:10] for date in dates[dated]])
    order = np.argsort(days, kind="stable")
    edges = days[order][np.linspace(0, len(dated), TIME_PARTS + 1).astype(np.int64)[1:-1]]
    # Captures of one day stay together.
    fold[dated] = np.searchsorted(edges, days, side="right")
    return _checked(Split("time", fold, TIME_PARTS, ordered=True), entries)


def _checked(split: Split, entries: Sequence[CaptureEntry]) -> Split:
    """Refuse a split none of whose folds has both classes on both sides."""
    if not judged_folds(split, entries):
        raise TrainingError(
            f"split by {split.name}: no fold has malicious and benign captures on both sides",
            hint="use fewer folds, or add captures of the class that is missing",
        )
    return split


def judged_folds(split: Split, entries: Sequence[CaptureEntry]) -> list[int]:
    """Return the folds that have both classes among what is learned and what is judged."""
    if not len(split.fold):
        return list(range(split.folds))
    malicious = np.array([entry.label == "malicious" for entry in entries])

    def both(mask: npt.NDArray[np.bool_]) -> bool:
        return bool(malicious[mask].any() and (~malicious[mask]).any())

    known = split.fold >= 0
    return [
        number
        for number in range(split.folds)
        if both(known & split.learned_from(split.fold, number)) and both(split.fold == number)
    ]
