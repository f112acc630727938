"""`veilwatch compare`: detectors side by side under the whole protocol."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.text import Text

from veilwatch.cli.figures import LEVELS, MERGED
from veilwatch.cli.options import (
    CorpusManifest,
    Folds,
    KeepBackground,
    Processes,
    Seed,
    Shortcuts,
    TargetRate,
    check_detector,
)
from veilwatch.cli.outputs import Force, check_folder, leaving, output_option
from veilwatch.cli.terminal import AsJson, Quiet, console, this_command, working
from veilwatch.errors import TrainingError
from veilwatch.report.listing import Listing, numbers, texts, whole

if TYPE_CHECKING:
    from veilwatch.learning.comparison import Comparison

ALL: Final = "all"


def command(
    corpus: CorpusManifest,
    output: Annotated[
        Path, output_option("DIR", "Folder for the page, the tables and the results.", "--out")
    ],
    detectors: Annotated[
        str, typer.Option(metavar="NAMES", help="Names with commas between them, or all.")
    ] = ALL,
    splits: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="Of publisher, source, group, family, time, flow; with commas, or all.",
        ),
    ] = ALL,
    folds: Folds = 5,
    target_fpr: TargetRate = 0.01,
    shortcuts: Shortcuts = False,
    keep_background: KeepBackground = False,
    changed: Annotated[
        int,
        typer.Option(
            min=0,
            max=1000,
            help="Captures of each class that are judged again after their traffic was changed "
            "(padding, loss, jitter …); 0 leaves it out.",
        ),
    ] = 40,
    seed: Seed = 7,
    workers: Processes = 0,
    as_json: AsJson = False,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Compare detectors under every split, with gates against leaks and shortcuts.

    Results of single folds are kept in DIR: an interrupted run goes on where it ended.

    Example: `veilwatch compare --corpus MANIFEST.csv -o comparison`
    """
    from veilwatch.learning.comparison import SPLITS, CompareOptions
    from veilwatch.runs import COMPARISON_FILES, run_comparison

    chosen, parts = _names(detectors), _names(splits)
    for name in chosen:
        check_detector(name, "--detectors")
    for name in parts:
        if name not in SPLITS:
            hint = f"known: {', '.join(SPLITS)}"
            raise TrainingError(f"unknown split {name[:40]!r}", where="--splits", hint=hint)
    check_folder(output, *COMPARISON_FILES, force=force)
    options = CompareOptions(
        detectors=chosen,
        splits=parts or tuple(SPLITS),
        folds=folds,
        seed=seed,
        target_rate=target_fpr,
        shortcuts=shortcuts,
        keep_background=keep_background,
        changed=changed,
        workers=workers or os.cpu_count() or 1,
    )
    folds_kept = f"finished folds stay in {output / 'folds'}: the same command goes on from there"
    with working(quiet or as_json) as progress, leaving(kept=folds_kept):
        comparison = run_comparison(
            corpus, output, options, command=this_command(), progress=progress
        )
    if as_json:
        typer.echo(comparison.model_dump_json(indent=1))
        return
    print_comparison(comparison)
    if not quiet:
        page = output / "comparison.html"
        console.print(Text(f"Page: {page.resolve()}", style="bold"), soft_wrap=True)


def print_comparison(comparison: Comparison) -> None:
    """Print one row for each detector under each split, and false alarms under the hardest."""
    from veilwatch.learning.comparison.tables import false_alarms

    judged = {
        name for d in comparison.detectors for result in d.splits.values() for name in result.levels
    }
    levels = {name: words for name, words in LEVELS.items() if name in judged}
    for gate in comparison.gates:
        if not gate.passed:
            console.print(Text(f"{gate.name}: {gate.text}", style="yellow"))
    console.print()
    table = Listing(
        [*whole("split", "detector"), *numbers(*levels.values())],
        title="Found at a false-positive rate of 1 %, mean of folds",
    )
    for split in comparison.splits:
        for detector in comparison.detectors:
            result = detector.splits.get(split)
            cells = []
            for level in levels:
                found = result.levels.get(level) if result else None
                rate = found.detection_rate_at_fpr["0.01"].value if found else None
                cells.append("–" if rate is None else f"{rate:.3f}")
            table.add(split, detector.name, *cells)
    console.print(table)
    if any(level.startswith("used_host_x") for level in judged):
        console.print(MERGED)
    split = next(iter(comparison.splits))
    detectors, rows = false_alarms(comparison, split)
    kinds = Listing(
        [*texts("kind of benign traffic"), *numbers("captures", *detectors)],
        title=f"Benign captures alerted at own threshold, {split} held out",
    )
    for row in rows:
        counts = ["–" if count is None else f"{count:,}" for count in row.alerted]
        kinds.add(row.kind, f"{row.captures:,}", *counts)
    console.print()
    console.print(kinds)
    console.print()
    console.print(Text(comparison.recommendation.text))


def _names(text: str) -> tuple[str, ...]:
    return () if text == ALL else tuple(name.strip() for name in text.split(",") if name.strip())
