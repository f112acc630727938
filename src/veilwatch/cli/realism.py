"""Distances between emulated and real traffic on the console."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from rich.text import Text

from veilwatch.cli.terminal import console
from veilwatch.report.listing import Listing, numbers, texts, whole

if TYPE_CHECKING:
    from veilwatch.learning.evaluation.realism import Sample

FAR: Final = 0.9
"""AUC from which emulated flows count as easily told from real ones."""


def print_realism(samples: Sequence[Sample], features: int) -> None:
    """Print what tells emulated from real flows, by class and service and by feature."""
    table = Listing(
        [
            *whole("class", "service"),
            *numbers("emulated", "real", "told apart (AUC)", "median distance"),
            *texts("told by"),
        ],
        title="Emulated beside real flows; captures are the units",
    )
    for item in samples:
        table.add(
            *(item.label, item.service, f"{item.emulated:,}", f"{item.real:,}"),
            *(f"{item.auc:.3f}", f"{item.median_distance:.2f}", Text(", ".join(item.telling))),
        )
    console.print(table)
    for item in samples:
        shown = Listing(
            [
                *whole("feature"),
                *numbers("distance", "95 %", "among real", "emulated", "real"),
            ],
            title=f"{item.label} {item.service}: the most different features",
        )
        for found in item.features[:features]:
            shown.add(
                *(found.feature, f"{found.distance:.2f}", f"{found.low:.2f}–{found.high:.2f}"),
                *(f"{found.among_real:.2f}", f"{found.emulated:.4g}", f"{found.real:.4g}"),
            )
        console.print()
        console.print(shown)
    console.print()
    told = [item for item in samples if item.auc >= FAR]
    console.print(
        f"In {len(told)} of {len(samples)} classes and services a small classifier tells emulated "
        f"from real flows (AUC {FAR} or more). What was learned or measured on emulated traffic "
        "holds for emulated traffic.",
        style="yellow",
    )
