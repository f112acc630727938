"""`veilwatch compare`: detectors side by side under the whole protocol."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from veilwatch.cli.options import CorpusManifest
from veilwatch.cli.terminal import Quiet, console, working
from veilwatch.files import make_folder, write_text

if TYPE_CHECKING:
    from veilwatch.comparison import Comparison

ALL: Final = "all"


def command(
    corpus: CorpusManifest,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for the page, the tables and the results.")
    ],
    detectors: Annotated[str, typer.Option(help="Names with commas between them, or all.")] = ALL,
    splits: Annotated[
        str, typer.Option(help="Of source, group, family, time, flow; with commas, or all.")
    ] = ALL,
    folds: Annotated[int, typer.Option(min=2, max=20, help="Folds of each split.")] = 5,
    target_fpr: Annotated[
        float, typer.Option(min=1e-6, max=0.5, help="What the detectors' own thresholds aim at.")
    ] = 0.01,
    shortcuts: Annotated[bool, typer.Option("--shortcuts", help="Shortcut features too.")] = False,
    keep_background: Annotated[
        bool,
        typer.Option("--keep-background", help="Learn background of infected hosts too."),
    ] = False,
    changed: Annotated[
        int,
        typer.Option(
            min=0,
            max=1000,
            help="Captures of each class that are judged again after their traffic was changed "
            "(padding, loss, jitter …); 0 leaves it out.",
        ),
    ] = 40,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 7,
    workers: Annotated[
        int, typer.Option(min=0, help="Trainings at one time; 0 takes every core.")
    ] = 0,
    quiet: Quiet = False,
) -> None:
    """Compare detectors under every split, with gates against leaks and shortcuts.

    Results of single folds are kept in DIR: an interrupted run goes on where it ended.

    Example: `veilwatch compare --corpus MANIFEST.csv --out comparison`
    """
    from veilwatch.comparison import SPLITS, CompareOptions, compare

    make_folder(out)
    options = CompareOptions(
        detectors=_names(detectors),
        splits=_names(splits) or tuple(SPLITS),
        folds=folds,
        seed=seed,
        target_rate=target_fpr,
        shortcuts=shortcuts,
        keep_background=keep_background,
        changed=changed,
        workers=workers or os.cpu_count() or 1,
    )
    with working(quiet) as progress:
        comparison = compare(
            corpus,
            out / "folds",
            options,
            command=shlex.join(["veilwatch", *sys.argv[1:]]),
            progress=progress,
        )
    write_comparison(comparison, out)
    if not quiet:
        print_comparison(comparison)
        page = out / "comparison.html"
        console.print(Text(f"Page: {page.resolve()}", style="bold"), soft_wrap=True)


def write_comparison(comparison: Comparison, out: Path) -> None:
    """Write the document, the page and the tables into a folder."""
    from veilwatch.comparison.tables import families_csv, figures_csv, latex, robustness_csv
    from veilwatch.report.comparison import render_comparison

    write_text(out / "comparison.json", comparison.model_dump_json(indent=1) + "\n")
    write_text(out / "comparison.html", render_comparison(comparison))
    write_text(out / "figures.csv", figures_csv(comparison))
    write_text(out / "families.csv", families_csv(comparison))
    write_text(out / "robustness.csv", robustness_csv(comparison))
    write_text(out / "tables.tex", latex(comparison))


def print_comparison(comparison: Comparison) -> None:
    """Print one row for each detector under each split."""
    from veilwatch.comparison.tables import LEVELS

    for gate in comparison.gates:
        if not gate.passed:
            console.print(Text(f"{gate.name}: {gate.text}", style="yellow"))
    table = Table(
        title="Found at a false-positive rate of 1 %, mean of folds",
        title_justify="left",
        title_style="bold",
        box=SIMPLE,
        pad_edge=False,
    )
    table.add_column("split", no_wrap=True)
    table.add_column("detector", no_wrap=True)
    for words in LEVELS.values():
        table.add_column(words, justify="right")
    for split in comparison.splits:
        for k, detector in enumerate(comparison.detectors):
            result = detector.splits.get(split)
            cells = []
            for level in LEVELS:
                found = result.levels.get(level) if result else None
                rate = found.detection_rate_at_fpr["0.01"].value if found else None
                cells.append("–" if rate is None else f"{rate:.3f}")
            table.add_row("" if k else split, detector.name, *cells)
    console.print(table)
    console.print(Text(comparison.recommendation.text))


def _names(text: str) -> tuple[str, ...]:
    return () if text == ALL else tuple(name.strip() for name in text.split(",") if name.strip())
