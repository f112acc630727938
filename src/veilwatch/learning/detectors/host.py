"""The decision about a host: gradient-boosted trees on what its flows, channels and windows say.

More evidence never speaks for a host: the trees grow monotonically in everything. They learn from
scores of captures that the scoring detectors never learned from, pure and merged into hosts
that people use (`veilwatch.corpus.blend`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Final

from veilwatch.learning.detectors.base import DetectorSettings, TrainingSet
from veilwatch.learning.detectors.lightgbm import PARAMETERS, LightGBMDetector
from veilwatch.learning.features.host_evidence import EVIDENCE_SCHEMA
from veilwatch.progress import SILENT, Progress
from veilwatch.schema.features import Unit

LEAVES: Final = 20
"""A leaf need hold no more than this part of the hosts learned from: hosts are few where flows are
many, and of a dozen captures no tree could grow at all otherwise."""

HOST_PARAMETERS: Final[dict[str, Any]] = {
    **PARAMETERS,
    "num_leaves": 7,
    "feature_fraction": 0.5,
    "num_boost_round": 150,
    "monotone_constraints": [1] * len(EVIDENCE_SCHEMA.names),
}


class HostDetector(LightGBMDetector):
    """LightGBM on `host_evidence`."""

    name: ClassVar[str] = "host"
    feature_sets: ClassVar[Sequence[str]] = ("host_evidence",)
    unit: ClassVar[Unit] = "host"
    parameters: ClassVar[dict[str, Any]] = HOST_PARAMETERS

    def fit(
        self, training: TrainingSet, settings: DetectorSettings, progress: Progress = SILENT
    ) -> None:
        """Learn from hosts, be they few."""
        least = min(HOST_PARAMETERS["min_data_in_leaf"], max(1, len(training.features) // LEAVES))
        few = replace(settings, parameters={"min_data_in_leaf": least, **settings.parameters})
        super().fit(training, few, progress)
