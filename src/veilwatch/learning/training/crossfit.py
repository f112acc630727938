"""Cross-fitting: each capture is scored by a detector that never saw its fold.

The detectors of all folds together are the model, and the scores that they gave to what they
never saw calibrate its thresholds: no capture has to be given up for calibration alone, and no
threshold comes from a capture that shaped the score (CV+, Barber et al., Annals of Statistics
2021).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from veilwatch.errors import TrainingError
from veilwatch.learning.detectors import DETECTORS, Detector, DetectorSettings, TrainingSet
from veilwatch.progress import SILENT, Progress


@dataclass(frozen=True, slots=True)
class CrossFit:
    """Result of cross-fitting.

    Attributes
    ----------
    members
        One detector for each fold, trained on the other folds.
    score
        float64, score of each flow by the detector that did not learn from its fold,
        shape (flows,).
    """

    members: list[Detector]
    score: npt.NDArray[np.float64]


def cross_fit(
    detector: str,
    training: TrainingSet,
    fold: npt.NDArray[np.int64],
    settings: DetectorSettings,
    progress: Progress = SILENT,
    *,
    aside: npt.NDArray[np.bool_] | None = None,
    kind: type[Detector] | None = None,
) -> CrossFit:
    """Train one detector for each fold and score every unit from outside.

    Parameters
    ----------
    fold
        Fold of each unit, shape (units,).
    aside
        Units that are scored but not learned from, shape (units,).
    kind
        Class of the detector where it is none that users choose.

    Raises
    ------
    TrainingError
        If the flows outside some fold are of one class only.
    """
    folds = int(fold.max()) + 1
    aside = np.zeros(len(fold), bool) if aside is None else aside
    score = np.full(len(fold), np.nan)
    members: list[Detector] = []
    for number in range(folds):
        progress.start(f"training {detector}, fold {number + 1} of {folds}")
        inside = np.flatnonzero(fold == number)
        outside = np.flatnonzero((fold != number) & ~aside)
        if len(np.unique(training.malicious[outside])) < 2:
            raise TrainingError(
                f"all captures of one class fall into fold {number + 1} of {folds}",
                hint="use fewer folds, or add captures from other sources",
            )
        member = (kind or DETECTORS[detector])()
        member.fit(training.take(outside), settings, progress)
        score[inside] = member.predict_proba(training.features.take(inside))
        members.append(member)
    return CrossFit(members, score)
