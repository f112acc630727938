"""Verdicts: what an analyst says of an alert."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class VerdictKind(StrEnum):
    """What an alert turned out to be."""

    TRUE_POSITIVE = "true_positive"
    """Malware."""

    FALSE_POSITIVE = "false_positive"
    """Nothing: the detector was wrong."""

    BENIGN = "benign"
    """What the alert says is so, and it is wanted: a scanner, a test."""

    UNKNOWN = "unknown"
    """Looked at without a result."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one person said of one event.

    Attributes
    ----------
    event_id
        Of the event.
    kind
        The verdict.
    who
        Name of the person.
    at_ns
        When, wall clock, ns since the epoch. Of several verdicts the latest counts.
    note
        Why, in words.
    """

    event_id: str
    kind: VerdictKind
    who: str
    at_ns: int
    note: str = ""
