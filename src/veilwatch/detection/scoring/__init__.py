"""From flow tables to scores: flows, hosts, and why."""

from veilwatch.detection.scoring.buffer import DueWindows, WindowBuffer
from veilwatch.detection.scoring.explain import reasons
from veilwatch.detection.scoring.hosts import HostEvidence
from veilwatch.detection.scoring.live import LiveScorer
from veilwatch.detection.scoring.scorer import FlowScorer

__all__ = [
    "DueWindows",
    "FlowScorer",
    "HostEvidence",
    "LiveScorer",
    "WindowBuffer",
    "reasons",
]
