"""What a score means where it is used: the probability of an infection at the place's own prior.

A detector learns from about as many malicious captures as benign ones; in the field one host in
thousands is infected. Held-out scores tell how much more often a score comes from a malicious
capture than from a benign one; Bayes' rule puts that likelihood ratio to the prior.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from veilwatch.extras import from_extra
from veilwatch.learning.detectors.evidence import log_odds, probability

DEPLOYMENT_PRIOR: Final = 1e-3
"""Share of hosts taken to be infected unless somebody knows better: one in a thousand."""

STEEPEST: Final = 4.0
"""Largest slope believed: few benign captures, all scored low, would otherwise make every score
above them certain."""


@dataclass(frozen=True, slots=True)
class Platt:
    """Log-likelihood ratio of a score: `slope` · log-odds + `intercept` (Platt, 1999)."""

    slope: float
    intercept: float

    def posterior(
        self, score: npt.NDArray[np.float64], prior: float = DEPLOYMENT_PRIOR
    ) -> npt.NDArray[np.float64]:
        """Return the probability of malice at a prior, shape as `score`.

        Examples
        --------
        >>> Platt(1.0, 0.0).posterior(np.array([0.5]), prior=0.01).round(3)
        array([0.01])
        """
        ratio = self.slope * log_odds(score) + self.intercept
        return probability(ratio + np.log(prior / (1 - prior)))


def fit_platt(score: npt.NDArray[np.float64], malicious: npt.NDArray[np.bool_]) -> Platt:
    """Fit the log-likelihood ratio to held-out scores, both classes weighing alike.

    Parameters
    ----------
    score
        Scores of units that the scoring detector never learned from, shape (n,), both classes
        among them.
    malicious
        Truth, shape (n,).
    """
    # Who only asks for a posterior, as a sensor does, need not wait for what fits one.
    with from_extra("train", "calibration"):
        from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(class_weight="balanced")
    model.fit(log_odds(score)[:, None], malicious)
    # A score that falls with malice carries no evidence: it must not be read backwards.
    slope = float(np.clip(model.coef_[0, 0], 0.0, STEEPEST))
    return Platt(slope, float(model.intercept_[0]))
