"""Gradient-boosted trees on what a host says to one service within an hour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final

from veilwatch.learning.detectors.lightgbm import PARAMETERS, LightGBMDetector
from veilwatch.schema.features import Unit

CHANNEL_PARAMETERS: Final[dict[str, Any]] = {**PARAMETERS, "num_leaves": 15}
"""Smaller trees than for flows: what channels say is heard beside what their flows say."""


class ChannelDetector(LightGBMDetector):
    """LightGBM on `channel`."""

    name: ClassVar[str] = "channel"
    feature_sets: ClassVar[Sequence[str]] = ("channel",)
    unit: ClassVar[Unit] = "channel"
    parameters: ClassVar[dict[str, Any]] = CHANNEL_PARAMETERS
