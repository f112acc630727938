"""The manifest of a model: what it was made from, what it promises, what it consists of."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

from veilwatch.learning.features.sketch import MAX_SKETCH

FORMAT: Final = 4
"""Version of the manifest's own format."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FeatureCard(_Part):
    """The feature schema that the model is bound to."""

    sets: list[str]
    shortcuts: bool
    hash: str
    names: list[str]


FlowNumber = Annotated[int, Field(ge=0, lt=1 << 53)]


class CorpusCard(_Part):
    """What the model learned from.

    `captures` holds the SHA-256 of each training capture, so that an evaluation can set aside
    what the model has seen. `flow_sketch` samples its flows, for captures that hold the same
    traffic in other files (`veilwatch.learning.features.sketch`); models of older versions have
    none.
    """

    manifest_sha256: str
    captures: dict[str, str]
    malicious_captures: int
    benign_captures: int
    malicious_units: int
    benign_units: int
    sources: list[str]
    emulated: bool
    flow_sketch: Annotated[list[FlowNumber], Field(max_length=MAX_SKETCH)] = []


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


class CalibrationCard(_Part):
    """What a host's score means: log-likelihood ratio = `slope` · log-odds + `intercept`.

    `prior` is the share of infected hosts that probabilities are given for.
    """

    slope: float
    intercept: float
    prior: float


class BenignRange(_Part):
    """Where benign flows of the training corpus usually lie: 5th to 95th percentile, median."""

    low: float
    median: float
    high: float


class PartCard(_Part):
    """Detectors of another unit that are heard where a host is decided about.

    Attributes
    ----------
    features
        The feature schema of the unit.
    members
        Folder of each detector.
    benign_ranges
        By feature.
    """

    features: FeatureCard
    members: list[str]
    benign_ranges: dict[str, BenignRange]


class BlendCard(_Part):
    """The used hosts that the decision about hosts was learned from (`veilwatch.corpus.blend`).

    Attributes
    ----------
    sizes
        How many used hosts were merged with a capture.
    malicious, benign
        Blends by the label of what was merged with used hosts.
    used_hosts
        Benign captures whose busiest host counted as used.
    """

    sizes: list[int]
    malicious: int
    benign: int
    used_hosts: int


class HostCard(_Part):
    """How a host, or a capture, is decided about: by its flows, channels and windows together.

    Attributes
    ----------
    features
        The feature schema of the evidence.
    members
        Folder of each detector that decides.
    channels, windows
        What is heard beside the flows.
    threshold
        From which score on a host or capture is an alert.
    target_false_positive_rate, benign_hosts
        What that threshold aims at, and how many benign hosts it rests on.
    calibration
        What the score means.
    benign_ranges
        By feature of the evidence.
    blends
        The used hosts that were learned from.
    """

    features: FeatureCard
    members: list[str]
    channels: PartCard
    windows: PartCard
    threshold: float
    target_false_positive_rate: float
    benign_hosts: int
    calibration: CalibrationCard
    benign_ranges: dict[str, BenignRange]
    blends: BlendCard


MAX_FAMILIES: Final = 256
"""Most families that a model names: training deals with dozens, and memory grows with them."""

MAX_FAMILY_NAME: Final = 200
"""Longest name of a family in characters: it is printed in every alert."""


class FamilyFigures(_Part):
    """How naming did on captures of groups, and of whole families, that were held out.

    Attributes
    ----------
    known_captures
        Captures of families that were learned from other groups; `named_rightly`,
        `named_wrongly` and `called_unknown` add up to it.
    unknown_captures, unknown_families
        Captures of families that were left out of learning, and how many families those are.
    unknown_called_unknown
        How many of these captures were given no name.
    not_raised
        Malicious captures without a flow at the detector's threshold: nobody asks for their name.
    by_family
        The same counts for each family that can be named.
    """

    known_captures: int
    named_rightly: int
    named_wrongly: int
    called_unknown: int
    unknown_captures: int
    unknown_families: int
    unknown_called_unknown: int
    not_raised: int
    by_family: dict[str, dict[str, int]]


class FamilyCard(_Part):
    """The families that the model can name, and when it does.

    Attributes
    ----------
    names
        In the order of the trees' classes.
    ransomware
        Those of them whose captures the corpus calls ransomware.
    features
        Hash of the feature schema of the trees.
    threshold
        From which certainty on a family is named; below it the malware is unknown.
    target_rate
        Share of captures of unknown families that the threshold lets be named.
    flow_threshold
        Flows from this score of the detector on are asked about.
    captures, flows
        What the trees learned from.
    held_out
        Figures.
    """

    names: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=MAX_FAMILY_NAME)]],
        Field(min_length=2, max_length=MAX_FAMILIES),
    ]
    ransomware: list[str] = []
    features: str
    threshold: float
    target_rate: float
    flow_threshold: float
    captures: int
    flows: int
    held_out: FamilyFigures


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
    hosts
        How hosts are decided about; None where the units alone decide, by `thresholds.group`.
    families
        None where the model names no families.
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
    calibration: CalibrationCard
    held_out: dict[str, Any]
    benign_ranges: dict[str, BenignRange]
    hosts: HostCard | None = None
    families: FamilyCard | None = None
    training_seconds: float
    files: dict[str, str] = {}
