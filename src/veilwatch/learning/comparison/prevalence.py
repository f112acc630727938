"""How many alerts would be right where malware is rare: arithmetic that a corpus hides."""

from __future__ import annotations

from typing import Final

from veilwatch.learning.comparison.document import DetectorResult
from veilwatch.learning.evaluation.calibration import supported_rate
from veilwatch.learning.evaluation.evaluate import CAPTURE, USED_HOST, WITH_WINDOWS

PREVALENCE: Final = 1e-4
"""One infected unit in 10,000: a guess at the rare end, which no corpus can tell."""


def precision_at(recall: float, false_alarms: float, prevalence: float = PREVALENCE) -> float:
    """Return the share of alerts that are right (Bayes).

    Examples
    --------
    >>> round(precision_at(0.95, 1e-3), 2), round(precision_at(0.95, 1e-4), 2)
    (0.09, 0.49)
    """
    right, wrong = prevalence * recall, (1 - prevalence) * false_alarms
    return right / (right + wrong) if right + wrong else 0.0


def prevalence_note(detector: DetectorResult, split: str) -> str | None:
    """Say in one sentence what a detector's measured rates mean in the field, None if unknown."""
    levels = detector.splits[split].levels if split in detector.splits else {}
    name = next((name for name in (USED_HOST, WITH_WINDOWS, CAPTURE) if name in levels), None)
    level = levels[name] if name else None
    if level is None or not level.positives or not level.negatives:
        return None
    counts = level.confusion
    recall = counts.true_positive / level.positives
    measured = counts.false_positive / level.negatives
    # Without an error the rate is not zero: the rule of three bounds it.
    false_alarms = measured or supported_rate(level.negatives)
    used = " on hosts that people use (merged captures)" if name == USED_HOST else ""
    least = "" if measured else "at least "
    return (
        f"Where one capture in {round(1 / PREVALENCE):,} is malicious, {least}"
        f"{100 * precision_at(recall, false_alarms):.2f} % of the captures that {detector.name} "
        f"alerts at its own threshold would be ({split} held out: {100 * recall:.1f} % of "
        f"malicious captures{used} and {counts.false_positive} of {level.negatives:,} benign ones "
        "alerted)."
    )
