"""The published experiment on header words, on any corpus that has its shape."""

from veilwatch.training.header_words.document import Reproduction
from veilwatch.training.header_words.experiment import ReproduceOptions, reproduce

__all__ = ["ReproduceOptions", "Reproduction", "reproduce"]
