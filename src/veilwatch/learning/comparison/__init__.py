"""The whole evaluation protocol in one run: detectors side by side, and what to make of it."""

from veilwatch.learning.comparison.compare import CompareOptions, compare
from veilwatch.learning.comparison.document import Comparison
from veilwatch.learning.comparison.plan import SPLITS

__all__ = ["SPLITS", "CompareOptions", "Comparison", "compare"]
