"""From a labelled corpus to a model: weights, cross-fitting, thresholds, manifest."""

from veilwatch.training.crossfit import CrossFit, cross_fit
from veilwatch.training.train import TrainingOptions, train_model

__all__ = ["CrossFit", "TrainingOptions", "cross_fit", "train_model"]
