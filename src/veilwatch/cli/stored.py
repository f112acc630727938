"""What the verbs over a store share: where it is, moments, tables of what it holds."""

from __future__ import annotations

import getpass
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.text import Text

from veilwatch.errors import VeilwatchError
from veilwatch.schema.text import MAX_CELL, MAX_SHOWN_SENTENCE, visible
from veilwatch.schema.units import SECOND_NS
from veilwatch.sensor.config import DEFAULT_STATE
from veilwatch.store import Store

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

Host = Annotated[str, typer.Option(help="Address of the host, or pseudonym of the subscriber.")]
Limit = Annotated[int, typer.Option(min=1, max=1_000_000, help="At most so many, the latest.")]
StoreConfig = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="Configuration of the sensor, whose store is meant.",
        show_default=False,
    ),
]
Note = Annotated[str, typer.Option(metavar="TEXT", help="Why.")]
Who = Annotated[
    str,
    typer.Option(
        "--by", metavar="NAME", help="Who says so; by default your user name.", show_default=False
    ),
]


def open_store(url: str, config: Path | None = None) -> Store:
    """Open a store that is there; a question makes none."""
    if config is not None:
        from veilwatch.sensor.load import load_config

        url = load_config(config, environment=os.environ).config.store_url
    return Store(url, create=False)


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
    return Text(visible(text, MAX_CELL), style=style)


def sentence(text: str, style: str = "") -> Text:
    """Return a sentence that may hold such names."""
    return Text(visible(text, MAX_SHOWN_SENTENCE), style=style)


def severity_cell(number: int) -> Text:
    """Return a severity in its colour."""
    name, style = _SEVERITIES.get(number, (str(number), ""))
    return Text(name, style=style)


def tally(count: int, what: str, limit: int | None, asked: Mapping[str, object]) -> str:
    """Return how many were listed, whether that may not be all, and why there is none.

    Parameters
    ----------
    count, limit
        How many there are, and the most that were wanted.
    what
        One of them.
    asked
        Options that choose, by name, empty where they were not given.
    """
    if not count:
        chosen = " ".join(f"{name} {value}" for name, value in asked.items() if value)
        return (
            f"no {what} matches {visible(chosen, MAX_SHOWN_SENTENCE)}" if chosen else f"no {what}s"
        )
    more = f", more may match (--limit {limit:,})" if count == limit else ""
    return f"{count:,} {what}{'' if count == 1 else 's'}{more}"


def person(name: str) -> str:
    """Return who says something: as told, or the name of the user."""
    if name:
        return name
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError) as error:
        raise VeilwatchError("your user has no name", hint="give --by NAME") from error
