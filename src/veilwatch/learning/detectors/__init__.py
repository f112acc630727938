"""Detectors: one contract, one file each, one registry."""

from typing import Final

from veilwatch.learning.detectors.base import Detector, DetectorSettings, TrainingSet
from veilwatch.learning.detectors.table import DetectorTable

DETECTORS: Final = DetectorTable(
    lightgbm="LightGBMDetector",
    catboost="CatBoostDetector",
    lstm="LSTMDetector",
    mobilenet="MobileNetDetector",
    ensemble="EnsembleDetector",
    channel="ChannelDetector",
    host_window="HostWindowDetector",
    header_words="HeaderWordsDetector",
)
"""Every detector by the name that `--detector` takes."""

__all__ = ["DETECTORS", "Detector", "DetectorSettings", "TrainingSet"]
