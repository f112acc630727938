"""Exact intervals of small counts."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel, ConfigDict
from scipy.stats import beta

CONFIDENCE: Final = 0.95


class Proportion(BaseModel):
    """A share with its 95 % interval of Clopper and Pearson; None where nothing was counted."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    hits: int
    of: int
    value: float | None
    low: float | None
    high: float | None


class ClassFigures(BaseModel):
    """Precision, recall and F1 with one class taken for positive."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    precision: Proportion
    recall: Proportion
    f1: float | None
    f1_low: float | None
    f1_high: float | None


def proportion(hits: int, of: int) -> Proportion:
    """Return a share with its exact interval (Clopper & Pearson, Biometrika 26, 1934).

    Examples
    --------
    >>> found = proportion(61, 62)
    >>> round(found.value, 4), round(found.low, 4), round(found.high, 4)
    (0.9839, 0.9134, 0.9996)
    """
    if of == 0:
        return Proportion(hits=0, of=0, value=None, low=None, high=None)
    tail = (1 - CONFIDENCE) / 2
    low = float(beta.ppf(tail, hits, of - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1 - tail, hits + 1, of - hits)) if hits < of else 1.0
    return Proportion(hits=hits, of=of, value=hits / of, low=low, high=high)


def class_figures(true: int, missed: int, false: int) -> ClassFigures:
    """Return the figures of a class.

    F1 is 2 J / (1 + J) with J = true / (true + missed + false), which is a share of a count: its
    interval is that of J carried over.

    Parameters
    ----------
    true
        Members of the class that were taken for such.
    missed
        Members that were not.
    false
        Others that were.
    """
    shared = proportion(true, true + missed + false)

    def carried(share: float | None) -> float | None:
        return None if share is None else 2 * share / (1 + share)

    return ClassFigures(
        precision=proportion(true, true + false),
        recall=proportion(true, true + missed),
        f1=carried(shared.value),
        f1_low=carried(shared.low),
        f1_high=carried(shared.high),
    )


def interval_text(found: Proportion, digits: int = 4) -> str:
    """Return a share for people: `0.9839 (0.9134 to 0.9996; 61 of 62)`."""
    if found.value is None:
        return "–"
    numbers: tuple[Any, ...] = (found.value, found.low, found.high)
    value, low, high = (f"{number:.{digits}f}" for number in numbers)
    return f"{value} ({low} to {high}; {found.hits} of {found.of})"
