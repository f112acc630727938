"""Detectors that break a rule each.

They stand here, and not beside the tests, as a process that only scores loads them as well.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from veilwatch.errors import ModelError
from veilwatch.learning.detectors.lightgbm import LightGBMDetector


class Deaf(LightGBMDetector):
    """Does not heed weights, and changes what it is given."""

    def fit(self, training: Any, *arguments: Any) -> None:
        training.features.values[0, 0] = -1.0
        training.weight[:] = 1.0
        super().fit(training, *arguments)


class Sure(LightGBMDetector):
    """Scores anything, without being trained, and says one without looking."""

    def predict_proba(self, features: Any) -> Any:
        return np.ones(len(features), np.float32)


class Credulous(LightGBMDetector):
    """Loads whatever lies there."""

    @classmethod
    def load(cls, folder: Path, schema: Any) -> Any:
        detector = cls()
        try:
            detector._booster = super().load(folder, schema)._booster
        except ModelError:
            return detector
        detector._schema = schema
        return detector


class Raising(LightGBMDetector):
    """Raises what nobody expects."""

    def explain(self, features: Any) -> Any:
        raise ZeroDivisionError("in vain")


class Careless(LightGBMDetector):
    """Names a file that it did not write."""

    def save(self, folder: Path) -> list[str]:
        return [*super().save(folder), "another"]


class Nearby(LightGBMDetector):
    """Ranks units within the frame that they come in."""

    def predict_proba(self, features: Any) -> Any:
        score = super().predict_proba(features)
        return score if len(score) < 2 else (score.argsort().argsort() + 1) / (len(score) + 1)


class Framed(LightGBMDetector):
    """Loads a training framework in order to score."""

    @classmethod
    def load(cls, folder: Path, schema: Any) -> Any:
        import onnx  # noqa: F401

        return super().load(folder, schema)
