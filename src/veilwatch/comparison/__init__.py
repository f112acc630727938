"""The whole evaluation protocol in one run: detectors side by side, and what to make of it."""

from veilwatch.comparison.compare import CompareOptions, compare
from veilwatch.comparison.document import Comparison
from veilwatch.comparison.plan import SPLITS

__all__ = ["SPLITS", "CompareOptions", "Comparison", "compare"]
