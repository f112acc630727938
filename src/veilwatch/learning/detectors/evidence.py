"""From flow scores to one score for all of them: a host's, a capture's.

One odd flow of a busy host must not condemn it, and a thousand harmless flows must not hide a
beacon. The evidence of a group is therefore the mean log-odds of its more suspicious part.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from veilwatch.learning.features.host_evidence import Evidence, upper_means

UPPER_SHARES: Final = (0.25, 0.5, 1.0)
"""Shares of a group's flows, the highest-scoring ones, that may speak for the group. Which one
does is chosen in training: an infected host with much background needs a small one, one whose
every flow is a little odd a large one."""

EPSILON: Final = 1e-6
"""Probabilities are kept this far from 0 and 1: one flow can add about 14 to the log-odds."""


def log_odds(score: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the log-odds of probabilities."""
    clipped = np.clip(score, EPSILON, 1 - EPSILON)
    return np.asarray(np.log(clipped / (1 - clipped)))


def probability(odds: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the probabilities of log-odds."""
    return np.asarray(1 / (1 + np.exp(-odds)))


def group_scores(
    score: npt.NDArray[np.float64],
    group: npt.NDArray[np.int64],
    groups: int,
    *,
    upper_share: float,
) -> npt.NDArray[np.float64]:
    """Return one score in 0…1 for each group of flows, NaN for a group without flows.

    Parameters
    ----------
    score
        Flow scores in 0…1, shape (flows,).
    group
        Index of each flow's group, shape (flows,).
    groups
        Number of groups.
    upper_share
        Share of each group's flows, the highest-scoring ones, whose mean log-odds count.

    Examples
    --------
    >>> group_scores(np.array([0.9, 0.1, 0.5]), np.array([0, 0, 1]), 2, upper_share=0.25).round(3)
    array([0.9, 0.5])
    """
    said = Evidence(group, log_odds(score), np.zeros(len(group), np.int64))
    return probability(upper_means(groups, said, (upper_share,))[:, 0])


def rank_within(group: npt.NDArray[np.int64], key: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    """Return how many rows of the same group have a larger key, shape (rows,); ties by place."""
    order = np.lexsort((-key, group))
    ordered = group[order]
    rank = np.empty(len(order), np.intp)
    rank[order] = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    return rank
