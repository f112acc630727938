"""Rates and areas of scored units with weights: what a bootstrap over captures asks for often."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


class Ranked:
    """Scores of one fold, sorted once and weighed many times.

    Parameters
    ----------
    score
        Scores, shape (n,).
    malicious
        Truth, shape (n,).
    """

    def __init__(self, score: Floats, malicious: npt.NDArray[np.bool_]) -> None:
        self._bad = np.flatnonzero(malicious)[np.argsort(-score[malicious], kind="stable")]
        self._good = np.flatnonzero(~malicious)[np.argsort(-score[~malicious], kind="stable")]
        bad, good = -score[self._bad], -score[self._good]
        self._above = np.searchsorted(bad, good, side="left")
        self._level = np.searchsorted(bad, good, side="right")

    @property
    def both(self) -> bool:
        """Whether both classes are there."""
        return bool(len(self._bad) and len(self._good))

    @property
    def size(self) -> int:
        """How many units there are."""
        return len(self._bad) + len(self._good)

    def detection_rate(self, weight: Floats, rate: float) -> float:
        """Return the largest detection rate with a false-positive rate of at most `rate`."""
        bad, good = self._sums(weight)
        if bad[-1] <= 0 or good[-1] <= 0:
            return np.nan
        first = int(np.searchsorted(good[1:], rate * good[-1] + 1e-9, side="right"))
        if first >= len(self._good):
            return 1.0
        return float(bad[self._above[first]] / bad[-1])

    def roc_auc(self, weight: Floats) -> float:
        """Return the area under the curve; ties count half."""
        bad, good = self._sums(weight)
        if bad[-1] <= 0 or good[-1] <= 0:
            return np.nan
        beaten = (bad[self._above] + bad[self._level]) / 2
        return float((np.diff(good) * beaten).sum() / good[-1] / bad[-1])

    def _sums(self, weight: Floats) -> tuple[Floats, Floats]:
        zero = np.zeros(1)
        return (
            np.concatenate([zero, np.cumsum(weight[self._bad])]),
            np.concatenate([zero, np.cumsum(weight[self._good])]),
        )
