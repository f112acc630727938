"""Times and durations on the command line: `24h`, `90s`, `2026-06-01`."""

from __future__ import annotations

import math
import re
import time
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer

from veilwatch.errors import VeilwatchError
from veilwatch.schema.text import visible
from veilwatch.schema.units import DAY_S, HOUR_S

MAX_NS: Final = 2**63 - 1
"""Latest time that a store holds, in the year 2262."""

MAX_S: Final = 10**9
"""Longest duration, thirty years: beyond any capture, and within 63 bits of nanoseconds."""

LEAST_S: Final = 0.001
"""Shortest time-out or length."""

MAX_AGE: Final = 1_000_000
"""Most units of an age: what goes back before 1970 is all that there is."""

UNITS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": HOUR_S, "d": DAY_S, "w": 7 * DAY_S}

_DURATION: Final = re.compile(r"(\d{1,12}(?:\.\d{1,9})?) ?(ms|s|m|h|d|w)?", re.A)

HOW: Final = "30m, 24h or 7d; a number alone is seconds"

Since = Annotated[
    str,
    typer.Option(
        metavar="WHEN", help="From then on: 2026-06-01, 2026-06-01T08:40 (UTC), or an age: 24h, 7d."
    ),
]
Until = Annotated[str, typer.Option(metavar="WHEN", help="Before then; as --since.")]


def seconds(text: str) -> float:
    """Return a duration in seconds.

    Raises
    ------
    VeilwatchError
        If it is none.

    Examples
    --------
    >>> seconds("90s"), seconds("1.5h"), seconds("30")
    (90.0, 5400.0, 30.0)
    """
    found = _DURATION.fullmatch(text.strip())
    value = float(found[1]) * UNITS[found[2] or "s"] if found else math.inf
    if value > MAX_S:
        raise VeilwatchError(f"{visible(text, 40)!r} is no duration", hint=f"write {HOW}")
    return value


def duration_option(*names: str, help_text: str, least: float = LEAST_S, **more: Any) -> Any:
    """Return an option that takes a duration, as every verb has them."""

    def parse(value: Any) -> float:
        try:
            found = float(value) if isinstance(value, int | float) else seconds(str(value))
        except VeilwatchError as error:
            raise typer.BadParameter(f"{error.what}: write {HOW}") from error
        if found < least:
            raise typer.BadParameter(f"{found:g} s is less than {least:g} s")
        return found

    return typer.Option(*names, metavar="TIME", parser=parse, help=help_text, **more)


def moment(text: str, option: str = "") -> int | None:
    """Return a time in ns since the epoch: a date, a time, or an age; None for ''.

    Raises
    ------
    VeilwatchError
        If it is none of these.
    """
    if not text:
        return None
    with_unit = _DURATION.fullmatch(text)
    if with_unit and with_unit[2] and float(with_unit[1]) < MAX_AGE:
        age_ns = round(float(with_unit[1]) * UNITS[with_unit[2]] * 1000) * 1_000_000
        return max(0, time.time_ns() - age_ns)
    try:
        parsed = datetime.fromisoformat(text)
        parsed = parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
        ns = round(parsed.timestamp() * 1000) * 1_000_000
        return min(max(ns, 0), MAX_NS)
    except (ValueError, OverflowError) as error:
        raise _no_time(text, option) from error


def period(since: str, until: str) -> tuple[int | None, int | None]:
    """Return the ends of a period.

    Raises
    ------
    VeilwatchError
        If one of them is no time, or the period ends before it begins.
    """
    first, last = moment(since, "--since"), moment(until, "--until")
    if first is not None and last is not None and first > last:
        raise VeilwatchError(
            "the period ends before it begins",
            where="--since, --until",
            hint="give the earlier time to --since",
        )
    return first, last


def _no_time(text: str, option: str) -> VeilwatchError:
    return VeilwatchError(
        f"{visible(text, 40)!r} is no time",
        where=option,
        hint="write 2026-06-01, 2026-06-01T08:40 or 24h",
    )
