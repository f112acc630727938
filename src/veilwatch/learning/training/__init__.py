"""From a labelled corpus to a model, and a model held against a corpus."""

from veilwatch.learning.training.apply import evaluate_model
from veilwatch.learning.training.crossvalidate import cross_validate
from veilwatch.learning.training.train import TrainingOptions, train_model

__all__ = ["TrainingOptions", "cross_validate", "evaluate_model", "train_model"]
