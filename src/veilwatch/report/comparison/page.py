"""A comparison of detectors as a page of its own."""

from __future__ import annotations

from typing import Final

from veilwatch.learning.comparison import Comparison
from veilwatch.learning.comparison.tables import LEVELS, false_alarms
from veilwatch.report import units
from veilwatch.report.catalogue import catalogue
from veilwatch.report.comparison import plots as comparison_plots
from veilwatch.report.html import page

SHOWN_FAMILIES: Final = 24
"""Families in the table of families, those with most captures first."""


def render_comparison(comparison: Comparison, *, language: str = "en") -> str:
    """Return one self-contained HTML page of a comparison.

    Parameters
    ----------
    comparison
        What `veilwatch compare` found.
    language
        Text catalogue to say it in.
    """
    return page(
        "comparison.html.j2",
        catalogue(language),
        c=comparison,
        levels=LEVELS,
        curves=comparison_plots,
        families=_families(comparison),
        false_alarms=false_alarms,
    )


def _families(comparison: Comparison) -> dict[str, tuple[list[str], list[list[str]]]]:
    """Return by split the detectors and, for each family, its name, captures and shares found."""
    tables = {}
    for split in comparison.splits:
        judged = [d for d in comparison.detectors if split in d.splits]
        sizes: dict[str, int] = {}
        for detector in judged:
            for name, family in detector.splits[split].families.items():
                sizes[name] = max(sizes.get(name, 0), family.captures)
        chosen = sorted(sizes, key=lambda name: (-sizes[name], name))[:SHOWN_FAMILIES]
        rows = []
        for name in chosen:
            found = [detector.splits[split].families.get(name) for detector in judged]
            rows.append(
                [
                    name,
                    units.number(sizes[name]),
                    *(units.percent(f.found) if f else "–" for f in found),
                ]
            )
        if rows:
            tables[split] = ([detector.name for detector in judged], rows)
    return tables
