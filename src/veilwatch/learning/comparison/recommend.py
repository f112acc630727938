"""Which detector to deploy, by a rule that is stated and figures that stand beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from veilwatch.counting import counted
from veilwatch.learning.comparison.document import (
    DetectorResult,
    Gate,
    Interval,
    Level,
    Recommendation,
)
from veilwatch.learning.comparison.plan import SPLITS
from veilwatch.learning.comparison.tables import LEVELS
from veilwatch.learning.evaluation.evaluate import CAPTURE, USED_HOST, WITH_WINDOWS

BARS: Final = {USED_HOST: 0.85, CAPTURE: 0.95, "flow_tls": 0.95}
"""Detection rates at a false-positive rate of `RATE` that a detector should reach, by level; levels
that were not judged are not asked about."""

BENIGN: Final = {"flow_tls": "encrypted flow", CAPTURE: "capture"}
"""What the benign side of a level is made of; that of used hosts is benign captures."""

RATE: Final = 0.01
"""False-positive rate at which detectors are compared. Without an error in n benign units the rate
lies below 3 / n with 95 % confidence (rule of three, Hanley & Lippman-Hand 1983): 300 show it."""


def recommend(
    detectors: Sequence[DetectorResult], gates: Sequence[Gate], *, emulated: bool
) -> Recommendation:
    """Choose by what is found at 1 % false positives under the hardest split there is.

    That is malicious captures on hosts that people use (merged captures) where any detector was
    judged on these, else captures as they were recorded.

    Detectors whose figure lies within the best one's interval are taken for equal; of them the
    one that judges flows goes first, since it can say which, and then the fastest. None is
    recommended where a gate failed or the benign units are too few for the rate: a figure at a
    false-positive rate that nobody could measure is no figure.
    """
    split = hardest_split(detectors)
    level = USED_HOST if any(_found(d, split, USED_HOST) for d in detectors) else CAPTURE
    judged = [
        (figure, detector)
        for detector in detectors
        if (figure := _found(detector, split, level)) is not None
    ]
    if not judged:
        why = "No detector could be judged on whole captures."
        return Recommendation(
            detector=detectors[0].name,
            text=f"{why} Nothing is recommended.",
            meets_bars=False,
            blocked=[why, *_failed(gates)],
        )
    best, _ = max(judged, key=lambda item: item[0].value or 0)
    floor = best.value if best.low is None else best.low
    equal = [d for figure, d in judged if (figure.value or 0) >= (floor or 0)]
    chosen = max(equal, key=lambda d: (d.unit == "flow", _value(d, split), d.cost.units_per_second))
    missed = [
        f"{LEVELS[_name(chosen, split, name)]} {rate.value:.3f} of {bar:.2f}"
        for name, bar in BARS.items()
        if (rate := _found(chosen, split, name)) is not None and (rate.value or 0) < bar
    ]
    figure = _found(chosen, split, level)
    assert figure is not None  # it is among those judged
    blocked = [*_failed(gates), *_unsupported(chosen, split)]
    begin = f"Deploy {chosen.name}"
    if blocked:
        begin = f"No detector is recommended. {chosen.name} did best of those compared"
    elif missed:
        begin = f"{chosen.name} comes nearest to what was asked for"
    text = (
        f"{begin}: at 1 % false positives and {split} held out it finds "
        f"{_words(figure)} of malicious captures"
        f"{' on hosts that people use (merged captures)' if level == USED_HOST else ''}, and "
        f"scores {chosen.cost.units_per_second:,.0f} {chosen.unit.replace('_', ' ')}s a second "
        "on one core."
    )
    others = [d.name for d in equal if d.name != chosen.name]
    apart = [d.name for d in detectors if d not in [one for _, one in judged]]
    if apart and level == USED_HOST:
        text += f" Not judged on used hosts: {', '.join(apart)}."
    if others:
        text += f" By this figure {', '.join(others)} cannot be told from the best with certainty."
    if blocked:
        text += f" {' '.join(blocked)}"
    if missed:
        text += f" Missed: {'; '.join(missed)}."
    if missed and not blocked:
        text += " Use it to rank hosts for people to look at, not to act without them."
    if not missed and not blocked:
        text += " It reaches what was asked for."
    if emulated:
        text += " The traffic is emulated: this says nothing about real malware."
    return Recommendation(detector=chosen.name, text=text, meets_bars=not missed, blocked=blocked)


def _failed(gates: Sequence[Gate]) -> list[str]:
    return [f'The gate "{gate.name}" failed.' for gate in gates if not gate.passed]


def _unsupported(detector: DetectorResult, split: str) -> list[str]:
    """Say where benign units are too few for the rate at which detectors are compared."""
    sentences = []
    if split == "flow":
        sentences.append(
            "Only a split of single flows was judged, with flows of one capture on both sides: "
            "this does not show what is found in captures that were never seen."
        )
    for name, words in BENIGN.items():
        level = _level(detector, split, name)
        if level is None or level.supported_false_positive_rate <= RATE:
            continue
        sentences.append(
            f"{counted(level.negatives, f'benign {words}')} cannot show a false-positive rate of "
            f"1 %: without one false alarm among them the rate may still be "
            f"{level.supported_false_positive_rate:.0%}, and it takes "
            f"{round(3 / RATE):,} (rule of three)."
        )
    return sentences


def hardest_split(detectors: Sequence[DetectorResult]) -> str:
    """Return the split nearest to a network that nobody recorded, of those that were judged."""
    return next(s for s in SPLITS if any(s in d.splits for d in detectors))


def _found(detector: DetectorResult, split: str, level: str) -> Interval | None:
    """Return what is found at 1 % false positives; of captures what is decided in the field."""
    found = _level(detector, split, level)
    if found is None or found.detection_rate_at_fpr["0.01"].value is None:
        return None
    return found.detection_rate_at_fpr["0.01"]


def _level(detector: DetectorResult, split: str, name: str) -> Level | None:
    result = detector.splits.get(split)
    return None if result is None else result.levels.get(_name(detector, split, name))


def _name(detector: DetectorResult, split: str, level: str) -> str:
    """Return the level that is decided by in the field in place of captures by units alone."""
    decided = level == CAPTURE and WITH_WINDOWS in detector.splits[split].levels
    return WITH_WINDOWS if decided else level


def _value(detector: DetectorResult, split: str) -> float:
    """Return the mean of what a detector finds on the levels that have a bar."""
    rates = [_found(detector, split, level) for level in BARS]
    values = [rate.value for rate in rates if rate is not None and rate.value is not None]
    return sum(values) / max(len(values), 1)


def _words(figure: Interval) -> str:
    if figure.low is None or figure.high is None:
        return f"{figure.value:.3f}"
    return f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"
