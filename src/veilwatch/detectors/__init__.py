"""Detectors: one contract, one file each, one registry."""

from typing import Final

from veilwatch.detectors.base import Detector, DetectorSettings, TrainingSet
from veilwatch.detectors.lightgbm import LightGBMDetector
from veilwatch.detectors.lstm import LSTMDetector
from veilwatch.detectors.mobilenet import MobileNetDetector

DETECTORS: Final[dict[str, type[Detector]]] = {
    kind.name: kind for kind in (LightGBMDetector, LSTMDetector, MobileNetDetector)
}
"""Every detector by the name that `--detector` takes."""

__all__ = [
    "DETECTORS",
    "Detector",
    "DetectorSettings",
    "LSTMDetector",
    "LightGBMDetector",
    "MobileNetDetector",
    "TrainingSet",
]
