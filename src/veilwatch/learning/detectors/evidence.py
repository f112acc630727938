"""From flow scores to one score for all of them: a host's, a capture's.

One odd flow of a busy host must not condemn it, and a thousand harmless flows must not hide a
beacon. The evidence of a group is therefore the mean log-odds of its more suspicious part.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

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
    order = np.lexsort((-score, group))
    odds = log_odds(score)[order]
    sizes = np.bincount(group, minlength=groups)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    upper = np.maximum(1, np.ceil(sizes * upper_share).astype(np.int64))
    sums = np.concatenate([[0.0], np.cumsum(odds)])
    ends = np.minimum(starts + upper, starts + sizes)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = (sums[ends] - sums[starts]) / (ends - starts)
    return np.where(sizes > 0, probability(means), np.nan)


def fused_scores(scores: Sequence[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    """Return what several models say of the same groups, all of them weighing alike.

    Parameters
    ----------
    scores
        Of each model the score of every group in 0…1, NaN where it saw nothing of it; each of
        shape (groups,).

    Returns
    -------
    ndarray
        Probability of the mean log-odds of those that saw something, NaN where none did.

    Examples
    --------
    >>> fused_scores([np.array([0.9, 0.2]), np.array([0.5, np.nan])]).round(3)
    array([0.75, 0.2 ])
    """
    said = np.stack(scores)
    heard = ~np.isnan(said)
    odds = np.where(heard, log_odds(np.where(heard, said, 0.5)), 0.0)
    with np.errstate(invalid="ignore"):
        return probability(odds.sum(axis=0) / heard.sum(axis=0))
