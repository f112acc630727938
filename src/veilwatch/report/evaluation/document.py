"""Figures of an evaluation as a document."""

from __future__ import annotations

from pydantic import Field

from veilwatch.report.part import Part


class Figures(Part):
    """Figures of one level of an evaluation (flows, TLS flows or captures)."""

    n_positive: int
    n_negative: int
    roc_auc: float | None = None
    average_precision: float | None = None
    detection_rate_at_fpr: dict[str, float | None] = Field(default_factory=dict)
    detection_rate: float | None = None
    false_positive_rate: float | None = None
    curve: tuple[tuple[float, float], ...] = ()  # (false-positive rate, detection rate)


class FamilyFigures(Part):
    """Detection of one family."""

    name: str
    n: int
    detection_rate: float | None


class KindFigures(Part):
    """Benign captures of one kind, and how many were alerted at the model's own threshold."""

    name: str
    n: int
    alerted: int


class Evaluation(Part):
    """Figures on traffic that the model was not trained on."""

    levels: dict[str, Figures]  # by name, see report.evaluation.build.LEVELS
    fold_levels: dict[str, Figures]  # the same as the mean over folds, empty without folds
    families: tuple[FamilyFigures, ...]
    kinds: tuple[KindFigures, ...] = ()
