"""Gradient-boosted trees on what a host does within five minutes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from veilwatch.detectors.lightgbm import PARAMETERS, LightGBMDetector
from veilwatch.schema.features import Unit


class HostWindowDetector(LightGBMDetector):
    """LightGBM on `host_window`."""

    name: ClassVar[str] = "host_window"
    feature_sets: ClassVar[Sequence[str]] = ("host_window",)
    unit: ClassVar[Unit] = "host_window"
    parameters: ClassVar[dict[str, Any]] = PARAMETERS
