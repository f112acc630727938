"""Counters that a running sensor stored, as they are read back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MIN_DRIFT_FLOWS: Final = 1000
"""Fewest flows on either side of an index of drift over tenths of the score. Chance alone gives an
index of (10 - 1) (1/n + 1/m) on average (Yurdakul, Western Michigan University, 2018): 0.018 from
here on, well below the 0.1 that counts as movement."""


@dataclass(frozen=True, slots=True)
class CounterStep:
    """One counter of one sensor within one step of time.

    Attributes
    ----------
    start_ns
        Beginning of the step, ns since the epoch.
    sensor, name
        Whose, and which.
    total
        Sum of the stored values.
    most
        Largest value of a minute.
    minutes
        Minutes of the step that have a value.
    values
        Values that were added up: more than minutes where the sensor started within one.
    """

    start_ns: int
    sensor: str
    name: str
    total: float
    most: float
    minutes: int
    values: int


@dataclass(frozen=True, slots=True)
class CountedMinute:
    """A minute of which one run of a sensor stored any counter at all.

    Attributes
    ----------
    minute_ns
        Beginning of the minute, ns since the epoch.
    sensor, run
        Whose, and what tells its starts apart.
    """

    minute_ns: int
    sensor: str
    run: str
