"""The contract that every detector keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from veilwatch.errors import ModelError, TrainingError
from veilwatch.progress import SILENT, Progress
from veilwatch.schema.features import FeatureFrame, FeatureSchema, Unit

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """What a detector learns from. All arrays have one entry a unit (flow, window or capture).

    Attributes
    ----------
    features
        The units.
    malicious
        bool, the label of the unit's capture.
    capture
        int64, index of the capture a unit came from: whatever a detector holds back for itself
        is split along captures.
    group
        int64, captures that must stay on one side of a split share a number.
    weight
        float64, weight of the unit, positive.
    """

    features: FeatureFrame
    malicious: npt.NDArray[np.bool_]
    capture: npt.NDArray[np.int64]
    group: npt.NDArray[np.int64]
    weight: npt.NDArray[np.float64]

    def require_both_classes(self) -> None:
        """Refuse to learn from one class: nothing can be told apart. Every `fit` begins so.

        Raises
        ------
        TrainingError
            If units of one class are missing.
        """
        unit = self.features.schema.unit.replace("_", " ")
        for wanted, present in (
            ("malicious", self.malicious.any()),
            ("benign", (~self.malicious).any()),
        ):
            if not present:
                raise TrainingError(
                    f"no {wanted} {unit} to learn from",
                    hint=f"add {wanted} captures, or use fewer folds",
                )

    def take(self, rows: npt.NDArray[np.intp]) -> TrainingSet:
        """Return some of the units."""
        return TrainingSet(
            self.features.take(rows),
            self.malicious[rows],
            self.capture[rows],
            self.group[rows],
            self.weight[rows],
        )


@dataclass(frozen=True, slots=True)
class DetectorSettings:
    """What the user chooses about a detector.

    Attributes
    ----------
    seed
        Seed of everything random.
    threads
        Threads for training; 0 takes every core.
    parameters
        Values that replace a detector's own.
    checkpoints
        Folder in which long training keeps its state, so that a second run goes on where an
        interrupted one ended; None keeps nothing. A detector that trains in seconds ignores it.
    """

    seed: int = 7
    threads: int = 0
    parameters: dict[str, Any] = field(default_factory=dict)
    checkpoints: Path | None = None


@runtime_checkable
class Detector(Protocol):
    """Something that learns to tell malicious units (flows, windows, captures) from benign ones.

    A detector is bound to the feature schema it was fitted on. Its file format holds data only:
    nothing in it is executed on loading.
    """

    name: ClassVar[str]
    feature_sets: ClassVar[Sequence[str]]
    unit: ClassVar[Unit]

    def fit(
        self, training: TrainingSet, settings: DetectorSettings, progress: Progress = SILENT
    ) -> None:
        """Learn from labelled units; the same units and seed give the same scores.

        Raises
        ------
        TrainingError
            If units of one class are missing.
        """

    def predict_proba(self, features: FeatureFrame) -> Scores:
        """Return a score in 0…1 for each unit, shape (n,); threads may call it at one time.

        Raises
        ------
        ModelError
            If the detector was not trained, or on another feature schema.
        """

    def explain(self, features: FeatureFrame) -> npt.NDArray[np.float64]:
        """Return what each feature adds to the log-odds of each unit, shape (n, features).

        Raises
        ------
        ModelError
            As `predict_proba`.
        """

    def save(self, folder: Path) -> list[str]:
        """Write the detector's files into `folder` and return their names.

        Raises
        ------
        ModelError
            If the detector was not trained.
        OutputError
            If the folder cannot be written to.
        """

    @classmethod
    def load(cls, folder: Path, schema: FeatureSchema) -> Detector:
        """Read what `save` wrote.

        Raises
        ------
        ModelError
            If a file is missing, damaged, or made for another feature schema.
        """


def require_schema(trained: FeatureSchema | None, features: FeatureFrame) -> None:
    """Refuse features that a detector was not trained on, or a detector that was not trained.

    Parameters
    ----------
    trained
        What the detector learned from, None before `fit`.

    Raises
    ------
    ModelError
        If it is not the schema of `features`.
    """
    if trained is None:
        raise ModelError("the detector has not been trained", hint="run veilwatch train")
    if trained is not features.schema and trained.hash != features.schema.hash:
        raise ModelError(
            f"the detector was trained on feature schema {trained.hash}, not on "
            f"{features.schema.hash}",
            hint="train the model anew with this version",
        )
