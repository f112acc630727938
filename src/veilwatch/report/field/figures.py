"""Figures of a field report: a share's interval, quantiles, a trend of memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Literal

import numpy as np

from veilwatch.report.field.document import Estimate
from veilwatch.schema.units import DAY_S

Z95: Final = 1.959963984540054
"""Quantile of the normal distribution for a two-sided interval of 95 %."""

WARM_UP: Final = 0.1
"""Share of a series at its beginning that says nothing of a trend: caches and tables fill."""

MIN_POINTS: Final = 8
"""Fewest points that a trend is read from."""

FLAT_SHARE: Final = 0.05
FLAT_BYTES: Final = 16 << 20
"""Memory counts as flat while its trend moves it by less than either over the whole span: what
allocators keep moves by as much in a process that leaks nothing."""


MIN_VERDICTS: Final = 30
"""Fewest alerts with a result that a share is estimated from: with fewer, its interval can be
wider than a third of the scale (Wilson, at one half)."""

MIN_DAYS: Final = 1.0
"""Shortest time that a rate a day is estimated from: nights and days differ, and an hour times 24
is neither."""

MIN_TENTHS: Final = 10
"""Fewest delays of which nine in ten mean anything: below it they are all but the longest."""

MIN_TREND_S: Final = DAY_S
"""Shortest time that a trend of memory is read from: tables follow the traffic of the day, so a
morning looks like a leak."""

Trend = Literal["flat", "growing", "shrinking", "short"]


def wilson(hits: int, of: int) -> Estimate:
    """Return a share with its 95 % interval (Wilson, J. Am. Stat. Assoc. 22, 1927).

    Examples
    --------
    >>> found = wilson(8, 10)
    >>> round(found.low, 3), found.value, round(found.high, 3)
    (0.49, 0.8, 0.943)
    """
    if of <= 0:
        return Estimate()
    share, square = hits / of, Z95 * Z95
    middle = (share + square / (2 * of)) / (1 + square / of)
    half = Z95 / (1 + square / of) * math.sqrt(share * (1 - share) / of + square / (4 * of * of))
    # At 0 and 1 the bound is the share itself; rounding would put it a hair beside.
    low = 0.0 if hits == 0 else max(middle - half, 0.0)
    high = 1.0 if hits == of else min(middle + half, 1.0)
    return Estimate(value=share, low=low, high=high)


def poisson(count: float) -> tuple[float, float]:
    """Return the 95 % interval of a rate of which `count` came (Byar's approximation).

    See Breslow and Day, Statistical Methods in Cancer Research II, 1987, section 2.3. Where none
    came the upper bound is 3.7: the rule of three, for both sides.

    Examples
    --------
    >>> [round(bound, 2) for bound in poisson(10)]
    [4.79, 18.39]
    """
    low = 0.0
    if count > 0:
        low = count * max(1 - 1 / (9 * count) - Z95 / (3 * math.sqrt(count)), 0.0) ** 3
    above = count + 1
    return low, above * (1 - 1 / (9 * above) + Z95 / (3 * math.sqrt(above))) ** 3


def false_per_day(false: int, decided: int, alerts: int, days: float) -> Estimate:
    """Estimate false alerts a day: those known, and those among the others at the same share.

    The interval holds both doubts: how many of the others are false (Wilson), and by how much
    another time of that length would differ by chance (Poisson). Nothing is estimated from less
    than `MIN_DAYS`, nor from fewer than `MIN_VERDICTS` alerts unless they are all.

    Parameters
    ----------
    false
        Alerts whose verdict says that they were false.
    decided
        Alerts whose verdict says what they were.
    alerts
        All alerts.
    days
        Time in which they came.
    """
    share = wilson(false, decided)
    enough = days >= MIN_DAYS and (decided >= MIN_VERDICTS or decided == alerts)
    if share.value is None or share.low is None or share.high is None or not enough:
        return Estimate()
    rest = alerts - decided
    low, _ = poisson(false + share.low * rest)
    _, high = poisson(false + share.high * rest)
    return Estimate(value=(false + share.value * rest) / days, low=low / days, high=high / days)


def quantile(ordered: Sequence[float], q: float) -> float | None:
    """Return the smallest value that at least a share `q` of all does not exceed.

    Examples
    --------
    >>> quantile([1.0, 2.0, 3.0, 4.0], 0.5), quantile([], 0.5)
    (2.0, None)
    """
    if not len(ordered):
        return None
    return float(ordered[max(math.ceil(q * len(ordered) - 1e-9), 1) - 1])


def memory_trend(points: Sequence[tuple[float, float]]) -> tuple[Trend, float | None]:
    """Tell whether memory grows, and by how many bytes a day.

    The slope is the median of the slopes between all pairs of points (Theil and Sen), which a
    peak or a restart does not bend.

    Parameters
    ----------
    points
        (seconds, bytes) in order of time, over `MIN_TREND_S` at least (a tenth of it may be
        missing at the edges); the first `WARM_UP` of them is left aside.
    """
    kept = points[math.ceil(len(points) * WARM_UP) :]
    if len(kept) < MIN_POINTS or points[-1][0] - points[0][0] < 0.9 * MIN_TREND_S:
        return "short", None
    at, size = np.asarray(kept, dtype=np.float64).T
    i, j = np.triu_indices(len(kept), 1)
    slope = float(np.median((size[j] - size[i]) / (at[j] - at[i])))
    growth = slope * float(at[-1] - at[0])
    limit = max(FLAT_SHARE * float(np.median(size)), FLAT_BYTES)
    if abs(growth) < limit:
        return "flat", slope * DAY_S
    return ("growing" if growth > 0 else "shrinking"), slope * DAY_S
