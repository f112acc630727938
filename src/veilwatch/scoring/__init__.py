"""From flow tables to scores: flows, hosts, and why."""

from veilwatch.scoring.explain import reasons
from veilwatch.scoring.scorer import FlowScorer

__all__ = ["FlowScorer", "reasons"]
