"""The published experiment on header words, on any corpus that has its shape."""

from veilwatch.learning.training.header_words.document import Reproduction
from veilwatch.learning.training.header_words.experiment import ReproduceOptions, reproduce

__all__ = ["ReproduceOptions", "Reproduction", "reproduce"]
