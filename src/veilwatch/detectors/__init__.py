"""Detectors: one contract, one file each, one registry."""

from typing import Final

from veilwatch.detectors.base import Detector, DetectorSettings, TrainingSet
from veilwatch.detectors.lightgbm import LightGBMDetector

DETECTORS: Final[dict[str, type[Detector]]] = {LightGBMDetector.name: LightGBMDetector}
"""Every detector by the name that `--detector` takes."""

__all__ = ["DETECTORS", "Detector", "DetectorSettings", "LightGBMDetector", "TrainingSet"]
