"""A trained model in memory: detectors that score together, and what they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from veilwatch.learning.detectors import Detector
from veilwatch.learning.detectors.evidence import log_odds, probability
from veilwatch.learning.detectors.family import FamilyModel
from veilwatch.learning.features import compute_features, feature_schema
from veilwatch.learning.models.manifest import CalibrationCard, HostCard, ModelManifest
from veilwatch.schema.features import FeatureFrame, Unit
from veilwatch.schema.flows import FlowTable

WINDOW_DETECTOR: Final = "host_window"
CHANNEL_DETECTOR: Final = "channel"
HOST_DETECTOR: Final = "host"
"""Detectors of host windows and channels that are heard beside flows, and the one that decides."""


@dataclass(frozen=True, slots=True)
class Model:
    """A trained model: detectors whose log-odds are averaged, and its manifest.

    Attributes
    ----------
    members
        One detector for each training fold.
    manifest
        What the model is.
    families
        Tells families apart; None where `manifest.families` is.
    windows, channels, hosts
        Detectors of host windows and of channels, and those that decide about a host by the
        evidence of both and of its flows; empty where `manifest.hosts` is None.
    """

    members: Sequence[Detector]
    manifest: ModelManifest
    families: FamilyModel | None = None
    windows: Sequence[Detector] = ()
    channels: Sequence[Detector] = ()
    hosts: Sequence[Detector] = ()

    @property
    def unit(self) -> Unit:
        """What the model judges."""
        return unit_of(self.manifest)

    @property
    def host_card(self) -> HostCard:
        """How hosts are decided about, for models that have evidence beside flows."""
        card = self.manifest.hosts
        assert card is not None, "asked of a model that decides by its units alone"
        return card

    @property
    def host_threshold(self) -> float:
        """From which score on a host, or a capture, is an alert."""
        card = self.manifest
        return card.hosts.threshold if card.hosts else card.thresholds.group

    @property
    def ransomware(self) -> frozenset[str]:
        """Families that the model can name and that are known as ransomware."""
        card = self.manifest.families
        return frozenset(card.ransomware) if card else frozenset()

    @property
    def calibration(self) -> CalibrationCard:
        """What the score of a host, or a capture, means."""
        card = self.manifest
        return card.hosts.calibration if card.hosts else card.calibration

    def window_features(self, flows: FlowTable) -> FeatureFrame:
        """Compute the host windows of flows as the model's own detectors of windows see them.

        Parameters
        ----------
        flows
            All flows of the inputs; `veilwatch.learning.features.windows.READ_COLUMNS` are enough.
        """
        card = self.host_card.windows.features
        return compute_features(flows, card.sets, shortcuts=card.shortcuts)

    def channel_features(self, flows: FlowTable) -> FeatureFrame:
        """Compute the channels of flows; as `window_features`."""
        card = self.host_card.channels.features
        return compute_features(flows, card.sets, shortcuts=card.shortcuts)

    def score_windows(self, features: FeatureFrame) -> npt.NDArray[np.float64]:
        """Return the score of each host window in 0…1, shape (windows,)."""
        return mean_score(self.windows, features)

    def score_channels(self, features: FeatureFrame) -> npt.NDArray[np.float64]:
        """Return the score of each channel in 0…1, shape (channels,)."""
        return mean_score(self.channels, features)

    def decide(self, evidence: FeatureFrame) -> npt.NDArray[np.float64]:
        """Return the score of each host by its evidence in 0…1, shape (hosts,)."""
        return mean_score(self.hosts, evidence)

    def features(self, table: FlowTable) -> FeatureFrame:
        """Compute the features that the model was trained on.

        Parameters
        ----------
        table
            Flows; for a model of host windows all flows of the inputs.
        """
        card = self.manifest.features
        return compute_features(table, card.sets, shortcuts=card.shortcuts)

    def score(self, features: FeatureFrame) -> npt.NDArray[np.float64]:
        """Return the score of each unit in 0…1, shape (units,)."""
        return mean_score(self.members, features)

    def explain(self, features: FeatureFrame) -> npt.NDArray[np.float64]:
        """Return what each feature adds to the log-odds, shape (units, features)."""
        return _mean_explanation(self.members, features)

    def explain_windows(self, features: FeatureFrame) -> npt.NDArray[np.float64]:
        """Return what each feature adds to the log-odds of a window, shape (windows, features)."""
        return _mean_explanation(self.windows, features)

    def explain_channels(self, features: FeatureFrame) -> npt.NDArray[np.float64]:
        """Return what each feature adds to the log-odds of a channel."""
        return _mean_explanation(self.channels, features)


def mean_score(members: Sequence[Detector], features: FeatureFrame) -> npt.NDArray[np.float64]:
    """Average detectors in log-odds; shape (units,)."""
    odds = [log_odds(member.predict_proba(features)) for member in members]
    return probability(np.mean(odds, axis=0))


def _mean_explanation(
    members: Sequence[Detector], features: FeatureFrame
) -> npt.NDArray[np.float64]:
    return np.asarray(np.mean([member.explain(features) for member in members], axis=0))


def unit_of(manifest: ModelManifest) -> Unit:
    """Return what a model judges, by its features: "flow", "host_window" or "capture"."""
    card = manifest.features
    return feature_schema(card.sets, shortcuts=card.shortcuts).unit
