"""Splits that a sceptic accepts: whole captures, grouped so that nothing of one leaks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from veilwatch.corpus.manifest import CaptureEntry
from veilwatch.errors import TrainingError

SplitBy = Literal["publisher", "source", "group"]
"""What stays together: everything of an author wherever it is mirrored, of a repository, or of one
source, family and day."""


def assign_folds(
    entries: Sequence[CaptureEntry], by: SplitBy = "group", *, folds: int = 5, seed: int = 7
) -> npt.NDArray[np.int64]:
    """Assign each capture to a fold so that no source (or group) stands in two folds.

    Parameters
    ----------
    by
        "publisher" keeps everything of one author together, the hardest question: networks and
        habits that nobody has seen; "source" a repository; "group" captures of one source, family
        and day.

    Returns
    -------
    ndarray of int64
        Fold of each capture, shape (captures,).

    Raises
    ------
    TrainingError
        If there are fewer sources or groups than folds.
    """
    keys = [_key(entry, by) for entry in entries]
    if len(set(keys)) < folds:
        raise TrainingError(
            f"{len(set(keys))} {by}s cannot fill {folds} folds",
            hint="use fewer folds, or add captures from other sources",
        )
    return deal(keys, entries, folds=folds, seed=seed)


def _key(entry: CaptureEntry, by: SplitBy) -> str:
    return {
        "publisher": entry.publisher,
        "source": entry.source_repo,
        "group": entry.group,
    }[by]


def deal(
    keys: Sequence[str], entries: Sequence[CaptureEntry], *, folds: int, seed: int
) -> npt.NDArray[np.int64]:
    """Deal captures out to folds so that those with one key stay together.

    Keys are dealt out from the largest to the smallest, each to the fold that holds least of its
    label, so that folds come out as even as the corpus allows.

    Returns
    -------
    ndarray of int64
        Fold of each capture, shape (captures,).
    """
    members: dict[str, list[int]] = defaultdict(list)
    for index, key in enumerate(keys):
        members[key].append(index)
    malicious = np.array([entry.label == "malicious" for entry in entries])
    order = np.random.default_rng(seed).permutation(sorted(members))
    sizes = {name: len(members[name]) for name in order}
    load = np.zeros((folds, 2))
    out = np.zeros(len(entries), np.int64)
    for name in sorted(order, key=lambda item: -sizes[item]):
        indices = members[name]
        counts = np.bincount(malicious[indices].astype(np.int64), minlength=2)
        label = int(counts.argmax())
        fold = int(np.lexsort((load.sum(axis=1), load[:, label]))[0])
        load[fold] += counts
        out[indices] = fold
    return out
