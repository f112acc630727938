"""From flow tables to scores: flows, hosts, and why."""

from veilwatch.scoring.buffer import DueWindows, WindowBuffer
from veilwatch.scoring.explain import reasons
from veilwatch.scoring.hosts import HostEvidence
from veilwatch.scoring.live import LiveScorer, LiveScores
from veilwatch.scoring.scorer import FlowScorer

__all__ = [
    "DueWindows",
    "FlowScorer",
    "HostEvidence",
    "LiveScorer",
    "LiveScores",
    "WindowBuffer",
    "reasons",
]
