"""Evaluation figures as a table on the console."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from veilwatch.cli.terminal import console

LEVELS = {"flow": "all flows", "flow_tls": "TLS and QUIC flows", "capture": "captures"}


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
    table = Table(title=title, title_justify="left", title_style="bold")
    for name in ("level", "malicious", "benign", "AUC", "AP"):
        table.add_column(name, justify="left" if name == "level" else "right")
    for rate in ("10 %", "1 %", "0.1 %"):
        table.add_column(f"found at\n{rate} FPR", justify="right")
    table.add_column("found at\nthreshold", justify="right")
    table.add_column("FPR at\nthreshold", justify="right")
    for level, words in LEVELS.items():
        row = figures[level]
        table.add_row(
            words,
            f"{row['n_positive']:,}",
            f"{row['n_negative']:,}",
            _number(row["roc_auc"]),
            _number(row["average_precision"]),
            *[_number(value) for value in row["detection_rate_at_fpr"].values()],
            _number(row["detection_rate"]),
            _number(row["false_positive_rate"], 4),
        )
    console.print(table)
    if emulated:
        console.print(
            "Emulated traffic: these figures say nothing about real malware.", style="yellow"
        )


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
