"""Which captures each detector learns from and is judged by, under every split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final, cast, get_args

import numpy as np
import numpy.typing as npt

from veilwatch.corpus.manifest import CaptureEntry
from veilwatch.errors import TrainingError
from veilwatch.learning.evaluation.splits import SplitBy, assign_folds, deal

SPLITS: Final[dict[str, str]] = {
    "publisher": "everything of one author held out: a network that nobody recorded",
    "source": "whole repositories held out",
    "group": "source, family and day held out together: unseen days and variants",
    "family": "whole families held out: malware that nobody has seen",
    "time": "trained on earlier captures, judged by later ones",
    "flow": "single units dealt out at random: flatters, shown for the gap",
}
"""Every split and what it asks, from the hardest on."""

TIME_PARTS: Final = 4
"""Stretches of equal numbers of captures; the first is only learned from."""

EARLIEST: Final = date(1990, 1, 1)
"""Captures dated before it were written by a machine whose clock was not set (it began at 1970 or
1980): they are set aside in the split by time."""

KEPT_PARTS: Final = 5
"""One part in so many of what an ordered fold could learn from chooses its thresholds instead."""


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

    def kept_for_thresholds(
        self, entries: Sequence[CaptureEntry], number: int, seed: int
    ) -> npt.NDArray[np.bool_]:
        """Return which captures choose the thresholds of fold `number` instead of being learned.

        Where a fold is judged by what came before, the other folds were not all judged by
        detectors that an honest threshold may come from: whole groups of what could be learned
        are kept for it. Elsewhere the other folds' held-out scores serve, and nothing is kept.
        """
        kept = np.zeros(len(entries), bool)
        if not self.ordered:
            return kept
        known = np.flatnonzero((self.fold >= 0) & self.learned_from(self.fold, number))
        earlier = [entries[int(k)] for k in known]
        part = deal([e.group for e in earlier], earlier, folds=KEPT_PARTS, seed=seed)
        malicious = np.array([e.label == "malicious" for e in earlier])
        for chosen in range(KEPT_PARTS):
            mine, rest = part == chosen, part != chosen
            if all(len(np.unique(malicious[side])) == 2 for side in (mine, rest)):
                kept[known[mine]] = True
                break
        return kept


def make_split(name: str, entries: Sequence[CaptureEntry], *, folds: int, seed: int) -> Split:
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
    fold: npt.NDArray[np.int64]
    if name in get_args(SplitBy):
        fold = assign_folds(entries, cast(SplitBy, name), folds=folds, seed=seed)
    elif name == "family":
        keys = _family_keys(entries)
        folds = _fewer_folds(keys, entries, folds)
        fold = deal(keys, entries, folds=folds, seed=seed)
    else:
        return _by_time(entries)
    return _checked(Split(name, fold, folds), entries)


def _family_keys(entries: Sequence[CaptureEntry]) -> list[str]:
    """Return what each capture must stay together with: its family and its group.

    A capture of two families ("Locky+Kovter") ties them: who has learned from it has seen both.
    """
    tied: dict[str, str] = {}

    def root(name: str) -> str:
        while tied.setdefault(name, name) != name:
            tied[name] = tied[tied[name]]
            name = tied[name]
        return name

    for entry in entries:
        group = f"group {entry.group}"
        if entry.label == "malicious" and entry.family:
            for part in entry.family.split("+"):
                tied[root(f"family {part}")] = root(group)
    return [root(f"group {entry.group}") for entry in entries]


def _fewer_folds(keys: Sequence[str], entries: Sequence[CaptureEntry], folds: int) -> int:
    """Return as many folds as there are families, if they are fewer."""
    families = {k for k, entry in zip(keys, entries, strict=True) if entry.label == "malicious"}
    if len(families) < 2:
        raise TrainingError(
            "one family cannot be left out and learned from",
            hint="add captures of other families, or leave out the split by family",
        )
    return min(folds, len(families))


def _by_time(entries: Sequence[CaptureEntry]) -> Split:
    """Cut the captures, in the order of their dates, into stretches of equal numbers."""
    days = np.array([_day(entry.capture_start) for entry in entries])
    dated = np.flatnonzero(days > 0)
    if not len(dated):
        raise TrainingError(
            "no capture has a date", hint="fill in capture_start, or leave out the split by time"
        )
    fold = np.full(len(days), -1, np.int64)
    ordered = np.sort(days[dated])
    edges = ordered[np.linspace(0, len(dated), TIME_PARTS + 1).astype(np.int64)[1:-1]]
    # Captures of one day stay together.
    fold[dated] = np.searchsorted(edges, days[dated], side="right")
    return _checked(Split("time", fold, TIME_PARTS, ordered=True), entries)


def _day(text: str) -> int:
    """Return the ordinal of a date, 0 for none: no date, or that of a clock nobody had set."""
    try:
        found = date.fromisoformat(text[:10])
    except ValueError:
        return 0
    return found.toordinal() if found >= EARLIEST else 0


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
