"""Evaluation figures as a table on the console."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from veilwatch.cli.terminal import console
from veilwatch.report.listing import Listing, numbers, texts, whole
from veilwatch.schema.text import visible

if TYPE_CHECKING:
    from veilwatch.learning.models import FamilyCard

LEVELS: Final = {
    "flow": "all flows",
    "flow_tls": "encrypted",
    "host_window": "windows",
    "channel": "channels",
    "capture": "captures",
    "capture_with_windows": "decided",
    "used_host_x1": "used hosts x1",
    "used_host_x3": "used hosts x3",
}
"""Levels of figures in the order of tables, in words short enough for a column."""

MERGED: Final = (
    "Used hosts are merged captures: malicious ones beside 1 or 3 benign hosts under one address."
)
"""What is said of every figure on blends."""

SHOWN_KINDS: Final = 40
"""Most kinds of benign traffic on the console, those with most false alarms first."""


def print_figures(figures: Mapping[str, Any], *, title: str, emulated: bool) -> None:
    """Print one row for each level.

    Parameters
    ----------
    figures
        In the form of `veilwatch evaluate --json`.
    title
        What the figures were measured on.
    emulated
        Whether that was emulated traffic.
    """
    table = Listing(
        [
            *whole("level"),
            *numbers("malicious", "benign", "AUC", "found at 1 % FPR", "found at 0.1 %"),
            *numbers("found at own threshold", "FPR there"),
        ],
        title=title,
    )
    for level, words in LEVELS.items():
        if level not in figures:
            continue
        row = figures[level]
        rates = row["detection_rate_at_fpr"]
        table.add(
            *(words, f"{row['n_positive']:,}", f"{row['n_negative']:,}", _number(row["roc_auc"])),
            *(_number(rates["0.01"]), _number(rates["0.001"])),
            *(_number(row["detection_rate"]), _number(row["false_positive_rate"], 4)),
        )
    console.print()
    console.print(table)
    if any(level.startswith("used_host_x") for level in figures):
        console.print(MERGED)
    if emulated:
        console.print(
            "Emulated traffic: these figures say nothing about real malware.", style="yellow"
        )


def print_kinds(figures: Mapping[str, Any]) -> None:
    """Print how many benign captures of each kind were alerted, the most first."""
    kinds = figures.get("benign_kinds") or {}
    if not kinds:
        return
    table = Listing(
        [*texts("kind of benign traffic"), *numbers("captures", "alerted")],
        title="False alarms at own threshold",
    )
    ordered = sorted(kinds.items(), key=lambda item: (-item[1]["alerted"], -item[1]["n"], item[0]))
    for name, count in ordered[:SHOWN_KINDS]:
        table.add(visible(name), f"{count['n']:,}", f"{count['alerted']:,}")
    console.print()
    console.print(table)
    if len(ordered) > SHOWN_KINDS:
        more = len(ordered) - SHOWN_KINDS
        console.print(f"… and {more:,} more kinds: --json and FILE.json hold them all.")


def print_families(card: FamilyCard) -> None:
    """Print how well families are named, in two sentences with their counts."""
    found = card.held_out
    known, unknown = found.known_captures, found.unknown_captures
    console.print(
        f"Families: {len(card.names)} can be named. Of {known:,} captures of other groups "
        f"{_share(found.named_rightly, known)} were named rightly, "
        f"{_share(found.named_wrongly, known)} wrongly, {_share(found.called_unknown, known)} "
        f"called unknown. Of {unknown:,} captures of {found.unknown_families} families left out "
        f"{_share(found.unknown_called_unknown, unknown)} were called unknown.",
        highlight=False,
    )


def _share(part: int, whole: int) -> str:
    return f"{part:,} ({part / whole:.0%})" if whole else f"{part:,}"


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
