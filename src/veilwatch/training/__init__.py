"""From a labelled corpus to a model: weights, cross-fitting, thresholds, manifest."""

from veilwatch.training.crossvalidate import cross_validate
from veilwatch.training.train import TrainingOptions, train_model

__all__ = ["TrainingOptions", "cross_validate", "train_model"]
