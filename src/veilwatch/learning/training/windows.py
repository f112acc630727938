"""Host windows learned beside a detector of flows: a second model for hosts and captures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from veilwatch.corpus.catalogue import Corpus
from veilwatch.learning.detectors import DETECTORS, Detector, DetectorSettings
from veilwatch.learning.models.model import WINDOW_DETECTOR
from veilwatch.learning.training.crossfit import cross_fit
from veilwatch.learning.training.units import Units, read_units
from veilwatch.progress import SILENT, Progress
from veilwatch.schema.features import FeatureFrame


@dataclass(frozen=True, slots=True)
class WindowFit:
    """Detectors of host windows, one for each fold, and what each said of what it never saw.

    Attributes
    ----------
    members
        The detectors.
    units
        The windows of the corpus.
    score
        Held-out score of each window, shape (windows,).
    """

    members: Sequence[Detector]
    units: Units
    score: npt.NDArray[np.float64]

    @property
    def features(self) -> FeatureFrame:
        """What the members learned from."""
        return self.units.features


def fit_windows(
    corpus: Corpus,
    fold: npt.NDArray[np.int64],
    settings: DetectorSettings,
    progress: Progress = SILENT,
) -> WindowFit:
    """Cross-fit host windows along the folds of a detector of flows.

    Parameters
    ----------
    fold
        Fold of each capture, shape (captures,).
    settings
        Of the detector of flows; its parameters are not for these trees.

    Raises
    ------
    TrainingError
        If the windows outside some fold are of one class only.
    """
    units = read_units(corpus, WINDOW_DETECTOR)
    fit = cross_fit(
        WINDOW_DETECTOR,
        units.training_set(corpus),
        fold[units.labels.capture],
        replace(settings, parameters={}, checkpoints=None),
        progress,
    )
    return WindowFit(fit.members, units, fit.score)


def takes_windows(detector: str) -> bool:
    """Whether host windows can be heard beside a detector: those that judge flows."""
    return DETECTORS[detector].unit == "flow"
