"""Thresholds of one site, learned from the scores of a quiet period.

A model's own thresholds come from the benign captures that it was trained on. What they let
through on another network is another number. In a period that its people name as quiet, every
flow and host is taken for benign, and the threshold is set where the wanted number of false
alerts a day lies: the upper split-conformal quantile of
`veilwatch.learning.evaluation.calibration`.

What the period cannot vouch for is refused. Without an error in n units their rate lies below
3 / n with 95 % confidence (rule of three); so a target of f false alerts a day takes 3 / f days.
An infection in the quiet period raises the thresholds and hides its like: the highest scores of
the period are worth a look before the thresholds are used.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import Annotated, Any, Final

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from veilwatch.errors import VeilwatchError
from veilwatch.learning.evaluation.calibration import conformal_threshold
from veilwatch.learning.models.manifest import Thresholds
from veilwatch.schema.units import DAY_NS

FORMAT: Final = 1
"""Version of the file of site thresholds."""

SUPPORT: Final = 3.0
"""False alerts that the target must promise within the period: the rule of three."""

CONFIDENCE: Final = 0.95

KEPT_SCORES: Final = 65_536
"""Highest scores that are kept of each level. The threshold is one of the highest: a target of a
thousand false alerts a day can be set from two months."""

MAX_RATE: Final = 0.05
"""Largest share of units that may pass, whatever the target: where ten hosts are scored a day, a
target of ten false alerts a day would make every host one."""

MAX_TEXT: Final = 200
"""Longest name of a period or model in characters: it is printed in reports."""

_WEEK_DAYS: Final = 7


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TopScores:
    """Count all scores and keep the highest, whatever their number.

    Parameters
    ----------
    kept
        How many are kept.

    Examples
    --------
    >>> top = TopScores(kept=2)
    >>> top.add(np.array([0.1, 0.9, 0.5]))
    >>> top.units, top.highest().tolist()
    (3, [0.5, 0.9])
    """

    def __init__(self, kept: int = KEPT_SCORES) -> None:
        self._kept = kept
        self._heap: list[float] = []
        self.units = 0

    def add(self, scores: npt.NDArray[np.floating]) -> None:
        """Take the scores of one table; those that are no numbers are not counted."""
        values = np.asarray(scores, dtype=np.float64)
        values = values[np.isfinite(values)]
        self.units += len(values)
        if len(self._heap) >= self._kept:
            values = values[values > self._heap[0]]
        for value in values.tolist():
            if len(self._heap) < self._kept:
                heapq.heappush(self._heap, value)
            else:
                heapq.heappushpop(self._heap, value)

    def state(self) -> dict[str, Any]:
        """Return what was counted, as plain values: a quiet period outlives a restart."""
        return {"units": self.units, "highest": sorted(self._heap)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken.

        Raises
        ------
        VeilwatchError
            If it is damaged.
        """
        try:
            units, highest = int(state["units"]), sorted(map(float, state["highest"]))
        except (KeyError, TypeError, ValueError) as error:
            raise VeilwatchError(
                "saved scores are damaged", hint="begin the period anew"
            ) from error
        self.units, self._heap = units, highest[-self._kept :]  # a sorted list is a heap

    def highest(self) -> npt.NDArray[np.float64]:
        """Return the scores kept, in rising order."""
        return np.array(sorted(self._heap), dtype=np.float64)


class QuietPeriod(_Part):
    """A span of time that the people of the site hold to be free of infections.

    Attributes
    ----------
    name
        What they call it: it is printed beside every threshold made from it.
    begins_ns, ends_ns
        Packet time, ns since the epoch.
    """

    name: Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]
    begins_ns: int
    ends_ns: int

    @property
    def days(self) -> float:
        """Length in days."""
        return (self.ends_ns - self.begins_ns) / DAY_NS


class LevelThreshold(_Part):
    """The threshold of one level, and what it rests on.

    Attributes
    ----------
    threshold
        From this score on there is an alert.
    target_per_day
        False alerts a day that were asked for.
    units
        Flows or hosts scored in the period, all held to be benign.
    units_per_day
        The same a day.
    rate
        Share of units that the target allows, at most `MAX_RATE`.
    passed
        Units of the period at or above the threshold.
    most_per_day
        False alerts a day that the period excludes with 95 % confidence (exact Poisson limit),
        if units are independent; flows of one host are not quite.
    """

    threshold: Annotated[float, Field(ge=0)]
    target_per_day: Annotated[float, Field(gt=0)]
    units: Annotated[int, Field(gt=0)]
    units_per_day: float
    rate: float
    passed: int
    most_per_day: float


class SiteThresholds(_Part):
    """Thresholds of one model at one site.

    Attributes
    ----------
    model
        Identity of the model whose scores these are: thresholds of one mean nothing for another.
    period
        What was learned from.
    unit, group
        Of flows (or windows) and of hosts; None where that level was not learned.
    cautions
        What to know before trusting them, in words.
    """

    format: int = FORMAT
    model: Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]
    period: QuietPeriod
    unit: LevelThreshold | None = None
    group: LevelThreshold | None = None
    cautions: tuple[str, ...] = ()


def learn_thresholds(
    period: QuietPeriod,
    *,
    model: str,
    target_per_day: float,
    units: TopScores | None = None,
    groups: TopScores | None = None,
) -> SiteThresholds:
    """Return the thresholds that let about `target_per_day` false alerts of each level through.

    Parameters
    ----------
    period
        The quiet period.
    model
        Identity of the model.
    target_per_day
        False alerts a day, of flows and of hosts each.
    units, groups
        Scores of the period.

    Raises
    ------
    VeilwatchError
        If the period is too short or has too few scores for the target.
    """
    if period.days <= 0:
        raise VeilwatchError(f"quiet period {period.name!r} has no length")
    if not target_per_day > 0:
        raise VeilwatchError("the target of false alerts a day must be above 0")
    if period.days * target_per_day < SUPPORT:
        raise VeilwatchError(
            f"{period.days:.2f} quiet days cannot vouch for {target_per_day:g} false alerts a day",
            where=f"quiet period {period.name!r}",
            hint=f"by the rule of three it takes {SUPPORT / target_per_day:.1f} days, or a target "
            f"of {SUPPORT / period.days:.2g}",
        )
    return SiteThresholds(
        model=model,
        period=period,
        unit=_level(period, target_per_day, units) if units else None,
        group=_level(period, target_per_day, groups) if groups else None,
        cautions=tuple(_cautions(period)),
    )


def _level(period: QuietPeriod, target_per_day: float, top: TopScores) -> LevelThreshold:
    # Two seconds of imports, which a sensor that only reads thresholds would wait for.
    from scipy.stats import chi2

    highest, days = top.highest(), period.days
    if not top.units:
        raise VeilwatchError("nothing was scored", where=f"quiet period {period.name!r}")
    rate = min(MAX_RATE, target_per_day * days / top.units)
    threshold = _quantile(highest, top.units, rate, period)
    passed = int(np.count_nonzero(highest >= threshold))
    return LevelThreshold(
        threshold=threshold,
        target_per_day=target_per_day,
        units=top.units,
        units_per_day=top.units / days,
        rate=rate,
        passed=passed,
        most_per_day=float(chi2.ppf(CONFIDENCE, 2 * (passed + 1)) / 2 / days),
    )


def _quantile(
    highest: npt.NDArray[np.float64], units: int, rate: float, period: QuietPeriod
) -> float:
    """Return the conformal threshold of `units` scores of which only the highest are at hand."""
    rank = int(np.ceil((units + 1) * (1 - rate)))
    if rank > units:
        raise VeilwatchError(
            f"{units:,} scores cannot vouch for a rate of {rate:.2g}",
            where=f"quiet period {period.name!r}",
            hint=f"it takes {int(np.ceil(1 / rate)):,}",
        )
    place = rank - 1 - (units - len(highest))
    if place < 0:
        raise VeilwatchError(
            "the target reaches below the scores that were kept",
            where=f"quiet period {period.name!r}",
            hint="set a lower target of false alerts a day",
        )
    if len(highest) == units:
        return conformal_threshold(highest, rate)
    return float(np.nextafter(highest[place], np.inf))


def _cautions(period: QuietPeriod) -> list[str]:
    if period.days < 1:
        return ["the period is shorter than a day: nights or working hours are missing"]
    if period.days < _WEEK_DAYS:
        return ["the period is shorter than a week: week-ends or backups may be missing"]
    return []


def apply_site(thresholds: Thresholds, site: SiteThresholds, *, model: str) -> Thresholds:
    """Return the model's thresholds with those of the site in their place.

    Raises
    ------
    VeilwatchError
        If the site's were learned with another model.
    """
    if site.model != model:
        raise VeilwatchError(
            f"thresholds of the site were learned with model {site.model}, not {model}",
            where=f"quiet period {site.period.name!r}",
            hint="learn them again with this model",
        )
    changed = {}
    if site.unit:
        changed["unit"] = site.unit.threshold
    if site.group:
        changed["group"] = site.group.threshold
    return thresholds.model_copy(update=changed)


def site_text(site: SiteThresholds) -> str:
    """Return the thresholds as JSON, to be written to a file."""
    return site.model_dump_json(indent=1) + "\n"


def parse_site(text: str, where: object = "site thresholds") -> SiteThresholds:
    """Read what `site_text` returned.

    Raises
    ------
    VeilwatchError
        If it is something else, or of another format.
    """
    try:
        site = SiteThresholds.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise VeilwatchError(
            f"not thresholds of a site: {field} {first['msg']}".replace("  ", " "), where=where
        ) from error
    if site.format != FORMAT:
        raise VeilwatchError(f"format {site.format} is not known", where=where)
    return site
