"""Features: what a detector sees of a flow. One registry, every column documented."""

from veilwatch.learning.features.registry import (
    DEFAULT_SETS,
    FEATURE_SETS,
    capture_features,
    compute_features,
    feature_schema,
)

__all__ = ["DEFAULT_SETS", "FEATURE_SETS", "capture_features", "compute_features", "feature_schema"]
