"""Evaluation figures as a table on the console."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from veilwatch.cli.terminal import console
from veilwatch.report.listing import Listing, numbers, whole

if TYPE_CHECKING:
    from veilwatch.learning.models import FamilyCard

LEVELS = {
    "flow": "all flows",
    "flow_tls": "encrypted",
    "host_window": "windows",
    "capture": "captures",
    "capture_with_windows": "with windows",
}


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
    if emulated:
        console.print(
            "Emulated traffic: these figures say nothing about real malware.", style="yellow"
        )


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
