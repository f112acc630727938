"""Thresholds from held-out scores: of units, of captures, and of flows and windows together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from veilwatch.errors import TrainingError
from veilwatch.extras import from_extra
from veilwatch.learning.detectors.evidence import UPPER_SHARES, fused_scores, group_scores
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


def with_windows(by_flows: Floats, windows: Floats, labels: Labels, upper_share: float) -> Floats:
    """Return what flows and host windows together say of each capture, NaN where neither does.

    Parameters
    ----------
    by_flows
        Score of each capture by its flows.
    windows, labels, upper_share
        Score of each window, their truth, and the share of a capture's windows that speaks.
    """
    return fused_scores([by_flows, capture_scores(windows, labels, upper_share)])


@dataclass(frozen=True, slots=True)
class Together:
    """What flows and host windows say of captures when both are heard.

    Attributes
    ----------
    windows
        Thresholds of the windows by themselves.
    captures
        Score of each capture, NaN where nothing of it was scored, shape (captures,).
    group
        From which such a score on a capture, or a host, is an alert.
    """

    windows: Thresholds
    captures: Floats
    group: float


def calibrate_together(by_flows: Floats, windows: Floats, labels: Labels, rate: float) -> Together:
    """Hear host windows beside flows: log-odds of both, weighing alike.

    Weights that are learned would need captures that neither has learned from; see
    `veilwatch.learning.detectors.ensemble`.

    Parameters
    ----------
    by_flows
        Held-out score of each capture by its flows, NaN where it takes no part.
    windows
        Held-out score of each window, NaN where it takes no part.
    labels
        Truth of the windows.

    Raises
    ------
    TrainingError
        If no benign window is left to calibrate on.
    """
    thresholds = calibrate(windows, labels, rate)
    captures = with_windows(by_flows, windows, labels, thresholds.upper_share)
    benign = captures[~labels.capture_malicious & ~np.isnan(captures)]
    return Together(thresholds, captures, conformal_threshold(benign, rate))


def _precision(captures: Floats, labels: Labels) -> float:
    """Return the average precision of capture scores, 0 where it is not defined."""
    seen = ~np.isnan(captures)
    malicious = labels.capture_malicious[seen]
    return float(average_precision_score(malicious, captures[seen])) if malicious.any() else 0.0
