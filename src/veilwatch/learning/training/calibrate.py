"""Thresholds from held-out scores: of units, and of captures by their units."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from veilwatch.errors import TrainingError
from veilwatch.extras import from_extra
from veilwatch.learning.detectors.evidence import UPPER_SHARES, group_scores
from veilwatch.learning.evaluation.calibration import conformal_threshold
from veilwatch.learning.evaluation.labelled import Labels
from veilwatch.learning.models import Thresholds

with from_extra("train", "training"):
    from sklearn.metrics import average_precision_score

Floats = npt.NDArray[np.float64]


def calibrate(score: Floats, labels: Labels, rate: float) -> Thresholds:
    """Choose thresholds on held-out scores of benign units and benign captures.

    The share of units that speaks for a capture is the one whose capture scores have the highest
    average precision. Units whose score is NaN take no part.

    Raises
    ------
    TrainingError
        If no benign flow is left to calibrate on.
    """
    used = ~np.isnan(score)
    benign = score[used & ~labels.malicious]
    if not len(benign):
        raise TrainingError(
            f"no benign {labels.unit.replace('_', ' ')} is left to choose thresholds on",
            hint="use fewer folds, or add benign captures from other sources",
        )
    upper_share = max(
        UPPER_SHARES,
        key=lambda share: _precision(capture_scores(score, labels, share), labels),
    )
    captures = capture_scores(score, labels, upper_share)
    benign_captures = captures[~labels.capture_malicious & ~np.isnan(captures)]
    return Thresholds(
        target_false_positive_rate=rate,
        unit=conformal_threshold(benign, rate),
        group=conformal_threshold(benign_captures, rate),
        upper_share=upper_share,
        benign_units=len(benign),
        benign_captures=len(benign_captures),
    )


def capture_scores(score: Floats, labels: Labels, upper_share: float) -> Floats:
    """Return the score of each capture, NaN where it has no scored unit."""
    used = ~np.isnan(score)
    return group_scores(
        score[used],
        labels.capture[used],
        len(labels.capture_malicious),
        upper_share=upper_share,
    )


def _precision(captures: Floats, labels: Labels) -> float:
    """Return the average precision of capture scores, 0 where it is not defined."""
    seen = ~np.isnan(captures)
    malicious = labels.capture_malicious[seen]
    return float(average_precision_score(malicious, captures[seen])) if malicious.any() else 0.0
