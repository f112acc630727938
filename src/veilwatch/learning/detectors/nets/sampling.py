"""Which flows an epoch shows, and which are held back to tell when to stop."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from veilwatch.learning.detectors.base import TrainingSet

HELD_BACK: Final = 0.15
"""Share of each class's weight that is held back, at most."""

Rows = npt.NDArray[np.intp]


def draw(weight: npt.NDArray[np.float64], count: int, rng: np.random.Generator) -> Rows:
    """Draw `count` rows by weight, with replacement, in random order.

    Systematic sampling (Madow 1949): each row, and each run of rows, comes as often as its weight
    says, up to one. With independent draws the share of the classes would jitter between epochs.

    Examples
    --------
    >>> sorted(draw(np.array([1.0, 2.0, 1.0]), 4, np.random.default_rng(0)).tolist())
    [0, 1, 1, 2]
    """
    total = np.cumsum(weight)
    points = (rng.random() + np.arange(count)) * (total[-1] / count)
    rows = np.minimum(np.searchsorted(total, points, side="right"), len(weight) - 1)
    return rng.permutation(rows)


def hold_back(training: TrainingSet, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Choose whole groups of each class to be held back, shape (units,).

    Groups are taken in random order as long as they fit into `HELD_BACK` of their class's weight,
    and the lightest where none fits. Nothing is held back where that would leave a class without
    flows on either side: with one group of a class there is no telling when to stop.
    """
    held = np.zeros(len(training.malicious), bool)
    for label in (False, True):
        own = training.malicious == label
        groups, inverse = np.unique(training.group[own], return_inverse=True)
        weights = np.bincount(inverse, training.weight[own])
        budget = HELD_BACK * weights.sum()
        chosen = []
        for k in rng.permutation(len(groups)):
            if weights[k] <= budget:
                budget -= weights[k]
                chosen.append(groups[k])
        held |= np.isin(training.group, chosen or groups[[weights.argmin()]])
    for side in (held, ~held):
        if len(np.unique(training.malicious[side])) < 2:
            return np.zeros(len(held), bool)
    return held
