"""Models on disk: a manifest that says what a model is, and the files that it is made of."""

from veilwatch.learning.models.boxed import load_boxed_model
from veilwatch.learning.models.manifest import (
    BenignRange,
    BlendCard,
    CalibrationCard,
    CorpusCard,
    FamilyCard,
    FamilyFigures,
    FeatureCard,
    HostCard,
    ModelManifest,
    PartCard,
    Thresholds,
)
from veilwatch.learning.models.model import Model, unit_of
from veilwatch.learning.models.persistence import check_model, load_model, save_model

__all__ = [
    "BenignRange",
    "BlendCard",
    "CalibrationCard",
    "CorpusCard",
    "FamilyCard",
    "FamilyFigures",
    "FeatureCard",
    "HostCard",
    "Model",
    "ModelManifest",
    "PartCard",
    "Thresholds",
    "check_model",
    "load_boxed_model",
    "load_model",
    "save_model",
    "unit_of",
]
