"""Models on disk: a manifest that says what a model is, and the files that it is made of."""

from veilwatch.learning.models.manifest import (
    BenignRange,
    CalibrationCard,
    CorpusCard,
    FamilyCard,
    FamilyFigures,
    FeatureCard,
    ModelManifest,
    Thresholds,
    WindowCard,
)
from veilwatch.learning.models.store import Model, check_model, load_model, save_model, unit_of

__all__ = [
    "BenignRange",
    "CalibrationCard",
    "CorpusCard",
    "FamilyCard",
    "FamilyFigures",
    "FeatureCard",
    "Model",
    "ModelManifest",
    "Thresholds",
    "WindowCard",
    "check_model",
    "load_model",
    "save_model",
    "unit_of",
]
