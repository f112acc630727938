"""Thresholds from scores of benign flows that the scoring model never learned from."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def conformal_threshold(benign: npt.NDArray[np.float64], rate: float) -> float:
    """Return the threshold that a new benign unit passes with probability `rate` at most.

    Split conformal prediction (Vovk et al. 2005): of n exchangeable benign scores the one of
    rank ⌈(n + 1)(1 - rate)⌉ bounds the next with that confidence. With fewer than 1 / rate - 1
    units no rank is high enough; the threshold then lies just above the largest score seen,
    which is the strictest the data supports.

    Parameters
    ----------
    benign
        Scores of benign units, shape (n,), n > 0.
    rate
        Target false-positive rate.

    Examples
    --------
    >>> conformal_threshold(np.linspace(0, 0.99, 100), 0.1) > 0.89
    True
    """
    ordered = np.sort(benign)
    rank = int(np.ceil((len(ordered) + 1) * (1 - rate)))
    value = ordered[min(rank, len(ordered)) - 1]
    # An alert is "at or above": step just past the benign score itself.
    return float(np.nextafter(value, np.inf))


def supported_rate(units: int) -> float:
    """Return the smallest false-positive rate that `units` benign units can vouch for.

    Rule of three (Hanley & Lippman-Hand 1983): without an error in n units the rate lies below
    3 / n with 95 % confidence.
    """
    return 3 / units if units > 3 else 1.0
