"""The result of a comparison: one typed document that the page and the tables only read."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel, ConfigDict

FORMAT: Final = 2


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Interval(_Part):
    """A figure with its 95 % interval, by bootstrap over captures."""

    value: float | None
    low: float | None = None
    high: float | None = None


class ClassFigures(_Part):
    """Precision, recall and F1 with one class taken for positive."""

    precision: float | None
    recall: float | None
    f1: float | None


class Confusion(_Part):
    """Units at the detector's own threshold; malicious is positive."""

    true_positive: int
    false_negative: int
    false_positive: int
    true_negative: int


class Calibration(_Part):
    """Whether a score of 0.8 is malicious in 8 of 10 cases, classes weighed alike."""

    brier: float
    expected_error: float
    predicted: list[float]
    observed: list[float]
    share: list[float]


class Level(_Part):
    """Figures of one detector under one split at one level.

    `detection_rate_at_fpr` and `roc_auc` are means over folds, each judged by itself; `supported`
    tells which rates the benign units can vouch for (rule of three). `roc` and `precision_recall`
    are means over the same folds and run through those figures; `calibration` and `confusion` hold
    the units of all folds together.
    """

    positives: int
    negatives: int
    folds: int
    roc_auc: Interval
    average_precision: float | None
    detection_rate_at_fpr: dict[str, Interval]
    supported_false_positive_rate: float
    accuracy: float | None
    malicious: ClassFigures
    benign: ClassFigures
    confusion: Confusion
    calibration: Calibration | None
    roc: list[tuple[float, float]]
    precision_recall: list[tuple[float, float]]


class Family(_Part):
    """How many captures of a family were found at the detector's own threshold."""

    captures: int
    found: float
    is_ransomware: bool


class BenignKind(_Part):
    """How many benign captures of a kind were alerted at the detector's own threshold."""

    captures: int
    alerted: int


class SplitResult(_Part):
    """One detector under one split.

    Attributes
    ----------
    levels, without_background
        Its figures by level, and the same without background. Levels `used_host_x…` are of
        malicious captures that were merged with so many used hosts, beside benign captures as
        they were recorded.
    families
        By family what was found.
    benign_kinds
        By kind of benign traffic what was alerted.
    benign_blends
        The same of benign captures that were merged with used hosts, by level.
    """

    levels: dict[str, Level]
    without_background: dict[str, Level]
    families: dict[str, Family]
    benign_kinds: dict[str, BenignKind]
    benign_blends: dict[str, BenignKind]


class Cost(_Part):
    """What a detector costs: means over the folds of all splits; of memory the most, in bytes."""

    train_seconds: float
    train_cpu_seconds: float
    peak_memory: int
    units_per_second: float
    bytes: int


class Change(_Part):
    """What was found of a sample of held-out captures after their traffic was changed.

    Shares of captures, and of their units, that were alerted at the detector's own threshold.
    """

    malicious: int
    benign: int
    found: float | None
    false_alarms: float | None
    units_found: float | None
    units_false_alarms: float | None


class DetectorResult(_Part):
    """Everything about one detector."""

    name: str
    unit: str
    splits: dict[str, SplitResult]
    cost: Cost
    importance: dict[str, float]
    robustness: dict[str, Change]


class Gate(_Part):
    """Something that would make the figures worthless, and whether it was found."""

    name: str
    passed: bool
    text: str


class Recommendation(_Part):
    """Which detector is best, and whether the figures carry the advice to deploy it.

    Attributes
    ----------
    detector
        The best by the rule of `veilwatch.learning.comparison.recommend`; where `blocked` says so
        it is named and not recommended.
    meets_bars
        Whether its figures reach the bars.
    blocked
        Why nothing is recommended, a sentence each: gates that failed, rates that the benign
        units do not support.
    """

    detector: str
    text: str
    meets_bars: bool
    blocked: list[str] = []

    @property
    def verdict(self) -> str:
        """What the headline says: "blocked", "below" the bars, or "deploy"."""
        if self.blocked:
            return "blocked"
        return "deploy" if self.meets_bars else "below"


class Point(_Part):
    """A flow on the map of what the detectors see."""

    x: float
    y: float
    label: str


class Comparison(_Part):
    """The whole comparison.

    Attributes
    ----------
    changes
        What was done to traffic, by the keys of `DetectorResult.robustness`.
    notes
        What was left out and why, and what the figures do not say.
    map
        Flows in two dimensions, labelled with their family or "benign".
    """

    format: int = FORMAT
    veilwatch: str
    made: str
    command: str
    emulated: bool
    corpus: dict[str, Any]
    folds: int
    seed: int
    splits: dict[str, str]
    detectors: list[DetectorResult]
    gates: list[Gate]
    recommendation: Recommendation
    changes: dict[str, str]
    notes: list[str]
    map: list[Point]
