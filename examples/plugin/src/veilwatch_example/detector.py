"""Gaussian naive Bayes: each feature speaks for itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, Literal

import numpy as np
import numpy.typing as npt

from veilwatch import (
    DetectorSettings,
    FeatureFrame,
    FeatureSchema,
    ModelError,
    Progress,
    TrainingSet,
)

FILE: Final = "naive_bayes.json"

MAX_BYTES: Final = 16 * 1024 * 1024
"""Largest file read: a thousand features take 100 KB."""

CALM: Final = 8.0
"""Standard deviations beyond which a value says no more than at it: one wild value of one feature
must not outvote all others."""

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Fitted:
    """What was learned, by class (benign, malicious) and feature; log-odds of the classes."""

    mean: Numbers
    deviation: Numbers
    prior: float

    def evidence(self, values: Numbers) -> Numbers:
        """Return what each feature adds to the log-odds, 0 where it is missing."""
        parts = []
        for k in range(2):
            off = (values - self.mean[k]) / self.deviation[k]
            parts.append(-0.5 * np.clip(off, -CALM, CALM) ** 2 - np.log(self.deviation[k]))
        # Features repeat each other: added up as they are, they would be sure of everything.
        scale = np.sqrt(values.shape[1])
        return np.asarray(np.nan_to_num(parts[1] - parts[0]) / scale)


class NaiveBayesDetector:
    """Gaussian naive Bayes on `statistics`."""

    name: ClassVar[str] = "naive_bayes"
    feature_sets: ClassVar[Sequence[str]] = ("statistics",)
    unit: ClassVar[Literal["flow", "host_window", "capture"]] = "flow"

    def __init__(self) -> None:
        self._fitted: Fitted | None = None
        self._schema: FeatureSchema | None = None

    def fit(
        self,
        training: TrainingSet,
        settings: DetectorSettings,
        progress: Progress | None = None,
    ) -> None:
        """Learn mean and deviation of each feature in each class; nothing here is random."""
        training.require_both_classes()
        values = training.features.values.astype(np.float64)
        both = _moments(values, training.weight)
        means, deviations, weights = [], [], []
        for malicious in (False, True):
            rows = training.malicious == malicious
            mean, deviation = _moments(values[rows], training.weight[rows])
            # A feature that a class never shows is taken to be as in both together.
            means.append(np.where(np.isnan(mean), both[0], mean))
            least = 1e-3 * np.nan_to_num(both[1]) + 1e-9  # of a feature that is constant
            deviations.append(np.maximum(np.nan_to_num(deviation), least))
            weights.append(float(training.weight[rows].sum()))
        prior = float(np.log(weights[1] / weights[0]))
        self._fitted = Fitted(np.nan_to_num(np.array(means)), np.array(deviations), prior)
        self._schema = training.features.schema

    def predict_proba(self, features: FeatureFrame) -> Numbers:
        """Return the probability that each unit is malicious, shape (units,)."""
        fitted = self._for(features)
        odds = fitted.evidence(features.values.astype(np.float64)).sum(axis=1) + fitted.prior
        return np.asarray(1 / (1 + np.exp(-np.clip(odds, -50, 50))))

    def explain(self, features: FeatureFrame) -> Numbers:
        """Return what each feature adds to the log-odds, shape (units, features)."""
        return self._for(features).evidence(features.values.astype(np.float64))

    def save(self, folder: Path) -> list[str]:
        """Write what was learned as JSON."""
        if self._fitted is None or self._schema is None:
            raise ModelError("the detector has not been trained")
        fitted = self._fitted
        document = {
            "schema": self._schema.hash,
            "mean": fitted.mean.tolist(),
            "deviation": fitted.deviation.tolist(),
            "prior": fitted.prior,
        }
        (folder / FILE).write_text(json.dumps(document, allow_nan=False))
        return [FILE]

    @classmethod
    def load(cls, folder: Path, schema: FeatureSchema) -> NaiveBayesDetector:
        """Read what `save` wrote; whatever does not fit is a `ModelError`."""
        path = folder / FILE
        try:
            if path.stat().st_size > MAX_BYTES:
                raise ValueError("the file is too large")
            document = json.loads(path.read_bytes())
            if document["schema"] != schema.hash:
                raise ValueError("trained on other features")
            mean, deviation = (np.array(document[key], float) for key in ("mean", "deviation"))
            prior = float(document["prior"])
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ModelError(f"cannot read the detector: {error}", where=path) from error
        shape = (2, len(schema.features))
        numbers = np.concatenate([mean.ravel(), deviation.ravel(), [prior]])
        if not (mean.shape == deviation.shape == shape and np.isfinite(numbers).all()):
            raise ModelError("holds other features, or no numbers", where=path)
        if not (deviation > 0).all():
            raise ModelError("a deviation is not positive", where=path)
        detector = cls()
        detector._fitted, detector._schema = Fitted(mean, deviation, prior), schema
        return detector

    def _for(self, features: FeatureFrame) -> Fitted:
        if self._fitted is None or self._schema is None:
            raise ModelError("the detector has not been trained")
        if self._schema.hash != features.schema.hash:
            raise ModelError("the detector was trained on another feature schema")
        return self._fitted


def _moments(values: Numbers, weight: Numbers) -> tuple[Numbers, Numbers]:
    """Return the weighted mean and deviation of each column, NaN where nothing is known."""
    known = ~np.isnan(values)
    share = np.where(known, weight[:, None], 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        share /= share.sum(axis=0)
        mean = (np.where(known, values, 0.0) * share).sum(axis=0)
        spread = (np.where(known, values - mean, 0.0) ** 2 * share).sum(axis=0)
    return mean, np.sqrt(spread)
