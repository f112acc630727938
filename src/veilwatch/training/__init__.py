"""From a labelled corpus to a model: weights, cross-fitting, thresholds, manifest."""

from veilwatch.training.crossvalidate import cross_validate
from veilwatch.training.train import TrainingOptions, capture_scores, train_model

__all__ = ["TrainingOptions", "capture_scores", "cross_validate", "train_model"]
