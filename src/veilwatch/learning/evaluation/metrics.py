"""Figures of merit. The positive class is malicious, everywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from veilwatch.extras import from_extra

with from_extra("train", "training or evaluation"):
    from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

RATES: Final = ("0.1", "0.01", "0.001")
"""False-positive rates at which the detection rate is given."""

CURVE_POINTS: Final = 400
"""Most points of a ROC curve that is kept for plotting."""

Scores = npt.NDArray[np.float64]
Labels = npt.NDArray[np.bool_]


def detection_rate_at(score: Scores, malicious: Labels, rate: float) -> float:
    """Return the largest detection rate that keeps the false-positive rate at or below `rate`.

    With fewer than 1 / rate benign units it is the rate without any false positive.
    """
    benign = np.sort(score[~malicious])[::-1]
    allowed = int(np.floor(rate * len(benign) + 1e-9))
    if allowed >= len(benign):
        return 1.0
    return float(np.mean(score[malicious] > benign[allowed]))


def measure(score: Scores, malicious: Labels, threshold: Scores | float) -> dict[str, Any]:
    """Return the figures of one level (flows, TLS flows, captures).

    Parameters
    ----------
    score
        Scores in 0…1, shape (n,).
    malicious
        Truth, shape (n,).
    threshold
        The model's own: a score at or above it is an alert. One for each unit where units were
        scored by different models.

    Returns
    -------
    dict
        The contract of `evaluate`: `n_positive`, `n_negative`, `roc_auc`, `average_precision`,
        `detection_rate_at_fpr`, `threshold` (the median where there are several),
        `detection_rate`, `false_positive_rate`; `curve` for plotting where both classes are
        there; figures that the data cannot give are None.
    """
    positive, negative = int(malicious.sum()), int((~malicious).sum())
    both = positive > 0 and negative > 0
    alert = score >= threshold
    out: dict[str, Any] = {
        "n_positive": positive,
        "n_negative": negative,
        "roc_auc": float(roc_auc_score(malicious, score)) if both else None,
        "average_precision": float(average_precision_score(malicious, score)) if both else None,
        "detection_rate_at_fpr": {
            rate: detection_rate_at(score, malicious, float(rate)) if both else None
            for rate in RATES
        },
        "threshold": float(np.median(threshold)) if len(score) else None,
        "detection_rate": float(alert[malicious].mean()) if positive else None,
        "false_positive_rate": float(alert[~malicious].mean()) if negative else None,
    }
    if both:
        out["curve"] = _curve(score, malicious)
    return out


def _curve(score: Scores, malicious: Labels) -> dict[str, list[float]]:
    false, true, _ = roc_curve(malicious, score)
    if len(false) > CURVE_POINTS:
        # Evenly in rank on a logarithmic scale: the left end is what matters.
        steps = np.geomspace(1, len(false), CURVE_POINTS).astype(np.int64) - 1
        keep = np.unique(np.concatenate([[0], steps, [len(false) - 1]]))
        false, true = false[keep], true[keep]
    return {
        "false_positive_rate": [round(float(value), 6) for value in false],
        "detection_rate": [round(float(value), 6) for value in true],
    }


def mean_curve(curves: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, list[float]]:
    """Return the mean of ROC curves: what they find at each false-positive rate, on average.

    Between its points a curve is a step (vertical averaging; Fawcett, Pattern Recognition Letters
    27, 2006, section 9), so that at a rate it says what `detection_rate_at` says.
    """
    rates = np.unique(np.concatenate([np.geomspace(1e-4, 1, 121), [float(r) for r in RATES]]))
    found = []
    for curve in curves:
        false = np.asarray(curve["false_positive_rate"])
        last = np.searchsorted(false, rates + 1e-9, side="right") - 1
        found.append(np.asarray(curve["detection_rate"])[np.maximum(last, 0)])
    return {
        "false_positive_rate": [round(float(value), 6) for value in rates],
        "detection_rate": [round(float(value), 6) for value in np.mean(found, axis=0)],
    }
