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
from veilwatch.learning.models.model import Model, unit_of
from veilwatch.learning.models.persistence import check_model, load_model, save_model

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
