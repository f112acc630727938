"""Detectors: one contract, one file each, one registry."""

from typing import Final

from veilwatch.detectors.base import Detector, DetectorSettings, TrainingSet
from veilwatch.detectors.catboost import CatBoostDetector
from veilwatch.detectors.lightgbm import LightGBMDetector

DETECTORS: Final[dict[str, type[Detector]]] = {
    kind.name: kind for kind in (LightGBMDetector, CatBoostDetector)
}
"""Every detector by the name that `--detector` takes."""

__all__ = ["DETECTORS", "Detector", "DetectorSettings", "TrainingSet"]
