"""The manifest of a model: what it was made from, what it promises, what it consists of."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel, ConfigDict

FORMAT: Final = 2
"""Version of the manifest's own format."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FeatureCard(_Part):
    """The feature schema that the model is bound to."""

    sets: list[str]
    shortcuts: bool
    hash: str
    names: list[str]


class CorpusCard(_Part):
    """What the model learned from.

    `captures` holds the SHA-256 of each training capture, so that an evaluation can set aside
    what the model has seen.
    """

    manifest_sha256: str
    captures: dict[str, str]
    malicious_captures: int
    benign_captures: int
    malicious_units: int
    benign_units: int
    sources: list[str]
    emulated: bool


class Thresholds(_Part):
    """From which score on a unit, host or capture is an alert, and what that rests on.

    A unit is what the detector judges: a flow, a host window or a capture. `upper_share` is the
    share of a host's units, the highest-scoring ones, that its score is made of.
    """

    target_false_positive_rate: float
    unit: float
    group: float
    upper_share: float
    benign_units: int
    benign_captures: int


class BenignRange(_Part):
    """Where benign flows of the training corpus usually lie: 5th to 95th percentile, median."""

    low: float
    median: float
    high: float


class ModelManifest(_Part):
    """What `model.json` holds.

    Attributes
    ----------
    members
        Folder of each detector.
    held_out
        Figures on captures that the scoring member never learned from, in the form of
        `veilwatch evaluate`.
    benign_ranges
        By feature name; features that benign flows never carry are absent.
    files
        SHA-256 of each file by its path within the folder.
    """

    format: int = FORMAT
    name: str
    detector: str
    created: str
    veilwatch: str
    seed: int
    parameters: dict[str, Any]
    members: list[str]
    features: FeatureCard
    corpus: CorpusCard
    thresholds: Thresholds
    held_out: dict[str, Any]
    benign_ranges: dict[str, BenignRange]
    training_seconds: float
    files: dict[str, str] = {}
