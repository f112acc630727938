"""What the verbs over a store share: where it is, moments, tables of what it holds."""

from __future__ import annotations

import getpass
import os
import re
import time
from datetime import UTC, datetime
from typing import Annotated, Final

import typer
from rich.table import Table
from rich.text import Text

from veilwatch.errors import VeilwatchError
from veilwatch.report.names import MAX_SENTENCE, visible
from veilwatch.sensor.config import DEFAULT_STATE
from veilwatch.store import Store

SECOND_NS: Final = 10**9

MAX_NS: Final = 2**63 - 1
"""Latest time that a store holds, in the year 2262."""

_AGE = re.compile(r"(\d{1,6})([smhdw])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_SEVERITIES: Final = {1: ("high", "bold red"), 2: ("medium", "yellow"), 3: ("low", "")}
SEVERITY_NAMES: Final = {"high": 1, "medium": 2, "low": 3}

StoreUrl = Annotated[
    str,
    typer.Option(
        "--store",
        metavar="URL",
        envvar="VEILWATCH_STORE",
        help="Store of the sensor: path, sqlite:///path or postgresql://user@host/name.",
    ),
]

DEFAULT_STORE: Final = str(DEFAULT_STATE / "veilwatch.db")

Since = Annotated[
    str,
    typer.Option(
        metavar="WHEN", help="From then on: 2026-06-01, 2026-06-01T08:40 (UTC), or an age: 24h, 7d."
    ),
]
Until = Annotated[str, typer.Option(metavar="WHEN", help="Before then; as --since.")]
Host = Annotated[str, typer.Option(help="Address of the host, or pseudonym of the subscriber.")]
Limit = Annotated[int, typer.Option(min=1, max=1_000_000, help="At most so many, the latest.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Who = Annotated[
    str,
    typer.Option(
        "--by", metavar="NAME", help="Who says so; by default your user name.", show_default=False
    ),
]


def open_store(url: str) -> Store:
    """Open a store that is there; a question makes none."""
    return Store(url, create=False)


def moment(text: str) -> int | None:
    """Return a time in ns since the epoch: a date, a time, or an age; None for ''.

    Raises
    ------
    VeilwatchError
        If it is none of these.
    """
    if not text:
        return None
    if age := _AGE.fullmatch(text):
        return max(0, time.time_ns() - int(age[1]) * _SECONDS[age[2]] * SECOND_NS)
    try:
        parsed = datetime.fromisoformat(text)
        parsed = parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
        ns = round(parsed.timestamp() * 1000) * 1_000_000
        return min(max(ns, 0), MAX_NS)
    except (ValueError, OverflowError) as error:
        raise VeilwatchError(
            f"{visible(text)!r} is no time", hint="write 2026-06-01, 2026-06-01T08:40 or 24h"
        ) from error


def severity_number(name: str) -> int:
    """Return the number of a severity.

    Raises
    ------
    VeilwatchError
        If it is none.
    """
    number = SEVERITY_NAMES.get(name.lower())
    if number is None:
        raise VeilwatchError(
            f"{visible(name)!r} is no severity", hint=f"known: {', '.join(SEVERITY_NAMES)}"
        )
    return number


def shown_time(ns: int) -> str:
    """Return a time as `2026-06-01 08:40:00`, UTC."""
    return datetime.fromtimestamp(ns // SECOND_NS, UTC).strftime("%Y-%m-%d %H:%M:%S")


def cell(text: str, style: str = "") -> Text:
    """Return a name that a stranger chose, safe to show, without markup."""
    return Text(visible(text), style=style)


def sentence(text: str, style: str = "") -> Text:
    """Return a sentence that may hold such names."""
    return Text(visible(text, MAX_SENTENCE), style=style)


def severity_cell(number: int) -> Text:
    """Return a severity in its colour."""
    name, style = _SEVERITIES.get(number, (str(number), ""))
    return Text(name, style=style)


def tally(count: int, what: str, limit: int) -> str:
    """Return how many were listed, and whether that may not be all."""
    more = ", more may match" if count == limit else ""
    return f"{count:,} {what}{'' if count == 1 else 's'}{more}"


def plain_table(*columns: str) -> Table:
    """Return a table without lines."""
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def person(name: str) -> str:
    """Return who says something: as told, or the name of the user."""
    if name:
        return name
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError) as error:
        raise VeilwatchError("your user has no name", hint="give --by NAME") from error
