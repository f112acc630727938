"""`veilwatch reproduce`: published experiments run again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.text import Text

from veilwatch.cli.corpus import CACHED
from veilwatch.cli.options import CorpusManifest, Seed, Threads
from veilwatch.cli.outputs import STDOUT, Force, check_output, leaving, output_option
from veilwatch.cli.terminal import AsJson, Quiet, console, this_command, working
from veilwatch.cli.times import duration_option
from veilwatch.errors import TrainingError
from veilwatch.files import write_text
from veilwatch.report.listing import Listing, numbers, texts, whole

if TYPE_CHECKING:
    from veilwatch.learning.evaluation.intervals import ClassFigures
    from veilwatch.learning.training.header_words import Reproduction
    from veilwatch.learning.training.header_words.document import (
        Ablation,
        Figures,
        Numbers,
        Setting,
    )

MOST_WRONG: Final = 5
"""Captures named for each setting: a page, not a list of all."""

app = typer.Typer(
    no_args_is_help=True,
    help="Published experiments, run again on captures of yours.",
    rich_markup_mode=None,
)


@app.callback()
def _several() -> None:
    """Keep the name of the only experiment a word of the command line."""


@app.command(name="header-words")
def header_words(
    corpus: CorpusManifest,
    scaled: Annotated[
        bool,
        typer.Option("--scaled", help="Shrink all numbers where the corpus is too small for them."),
    ] = False,
    merge: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FAMILY,…",
            help="Take several families for one; may be given more than once.",
            show_default=False,
        ),
    ] = None,
    benign: Annotated[
        str,
        typer.Option(
            metavar="SETTING,…",
            help="Take benign captures of these settings only (the manifest's column); else all.",
            show_default=False,
        ),
    ] = "",
    repeats: Annotated[
        int, typer.Option(min=1, max=100, help="Runs, each with captures and seed of its own.")
    ] = 1,
    ablation_s: Annotated[
        float,
        duration_option("--ablation", help_text="Time for the ablation: 600, 10m.", least=0.0),
    ] = 0.0,
    seed: Seed = 7,
    threads: Threads = 0,
    output: Annotated[
        Path | None, output_option("FILE.json", "File for the result; - for standard output.")
    ] = None,
    as_json: AsJson = False,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Skip-gram and LSTM over header words: 251 captures to learn from, 62 unseen ones to judge.

    Families merged by name, then the largest of the corpus, stand in for the published five. Each
    setting learns from the same captures and judges the same ones, which belong to other groups;
    two more settings judge captures of publishers that training never met.

    Example: `veilwatch reproduce header-words --corpus MANIFEST.csv --repeats 5`
    """
    # scikit-learn and PyTorch take seconds to load: only the verbs that need them pay.
    from veilwatch.learning.training.header_words import ReproduceOptions, reproduce

    options = ReproduceOptions(
        seed=seed,
        repeats=repeats,
        scaled=scaled,
        merge=_merge(merge or []),
        benign=tuple(name.strip() for name in benign.split(",") if name.strip()),
        ablation_s=ablation_s,
        threads=threads,
    )
    if output is not None:
        check_output(output, force=force)
    as_json |= output == STDOUT
    command = this_command()
    files = [] if output is None else [output]
    with working(quiet or as_json) as progress, leaving(*files, kept=CACHED):
        result = reproduce(corpus, options, command=command, progress=progress)
    text = result.model_dump_json(indent=1)
    if output is not None and output != STDOUT:
        write_text(output, text + "\n")
    if as_json:
        typer.echo(text)
    else:
        print_reproduction(result)


def _merge(asked: Sequence[str]) -> dict[str, list[str]]:
    """Return families by the name that they are to stand under."""
    out: dict[str, list[str]] = {}
    for text in asked:
        name, equals, families = text.partition("=")
        items = [item.strip() for item in families.split(",") if item.strip()]
        if not (name.strip() and equals and items) or name.strip() in out:
            raise TrainingError(
                f"cannot merge {text!r}", hint="give --merge NAME=FAMILY,FAMILY once for each name"
            )
        out[name.strip()] = items
    return out


def print_reproduction(result: Reproduction) -> None:
    """Print the published table beside ours."""
    size = (
        "the published numbers"
        if result.exact
        else f"SCALED to {result.scale:.2f} of the published numbers"
    )
    taken = _class_numbers(result.classes)
    console.print(Text(f"Captures to learn from + unseen ones to judge ({size}): {taken}"))
    if result.by_publisher:
        taken = _class_numbers(result.by_publisher)
        console.print(Text(f"With whole publishers held out: {taken}"))
    ran = [setting for setting in result.settings if setting.runs]
    tables = [("published paper", result.published)]
    tables += [(setting.name, setting.together) for setting in ran]
    for table in (_verdicts(result.published, ran), _classes(tables), _wrong(ran)):
        console.print()
        console.print(table)
    console.print()
    for line in _notes(result):
        console.print(Text(line), style="yellow")
    for ablation in result.ablation:
        _print_ablation(ablation)


def _class_numbers(classes: Sequence[Numbers]) -> str:
    return ", ".join(f"{c.name} {c.train} + {c.validation}" for c in classes)


def _verdicts(published: Figures, settings: Sequence[Setting]) -> Listing:
    from veilwatch.learning.evaluation.intervals import interval_text

    table = Listing(
        [
            *whole("setting", "median accuracy", "lowest to highest"),
            *whole("malicious found", "benign alerted"),
        ],
        title="Verdicts on captures, 95 % intervals of Clopper and Pearson",
    )
    rows = [("published paper", published.accuracy, "", published)]
    for setting in settings:
        runs = [run.figures.accuracy.value or 0.0 for run in setting.runs]
        spread = f"{min(runs):.3f} to {max(runs):.3f} of {len(runs)}"
        rows.append((setting.name, setting.median, spread, setting.together))
    for name, accuracy, spread, found in rows:
        table.add(
            *(name, interval_text(accuracy), spread),
            *(interval_text(found.malicious.recall), interval_text(found.false_alarms)),
        )
    return table


def _wrong(settings: Sequence[Setting]) -> Listing:
    """Name the captures that were judged wrongly most often: what to look at first."""
    table = Listing(
        [*whole("setting", "judged wrongly"), *texts("capture")],
        title="Captures judged wrongly in most runs (all of them are in the result's file)",
    )
    for setting in settings:
        often = Counter(name for run in setting.runs for name in run.errors)
        for name, times in often.most_common(MOST_WRONG):
            table.add(setting.name, f"{times} times", name)
    return table


def _classes(rows: Sequence[tuple[str, Figures]]) -> Listing:
    table = Listing(
        whole("setting", "positive", "precision", "recall", "F1"),
        title="Each class for positive (the paper's positive class is benign)",
    )
    for name, found in rows:
        for positive in ("benign", "malicious"):
            table.add(name, positive, *_class_cells(getattr(found, positive)))
    return table


def _class_cells(found: ClassFigures) -> list[str]:
    from veilwatch.learning.evaluation.intervals import interval_text

    f1 = "–"
    if found.f1 is not None:
        f1 = f"{found.f1:.4f} ({found.f1_low:.4f} to {found.f1_high:.4f})"
    return [interval_text(found.precision), interval_text(found.recall), f1]


def _notes(result: Reproduction) -> list[str]:
    published = result.published
    low, high = published.false_alarms.low or 0.0, published.false_alarms.high or 1.0
    notes = [
        f"The published 61 of 62 prove a detection rate of at least "
        f"{published.malicious.recall.low:.3f} and a false-alarm rate between "
        f"{low:.1%} and {high:.0%}, no more.",
    ]
    if any(len(setting.runs) > 1 for setting in result.settings):
        notes.append(
            "Captures recur between runs: intervals over all runs are narrower than they are worth."
        )
    for reason in sorted({setting.left_out for setting in result.settings} - {""}):
        notes.append(f"No publisher was held out: {reason}.")
    notes.append("Otherwise than published: " + "; ".join(result.differs) + ".")
    if not result.exact:
        notes.append("Scaled numbers: fewer captures than published, and wider intervals.")
    if result.emulated:
        notes.append("Emulated traffic: these figures say nothing about real malware.")
    return notes


def _print_ablation(ablation: Ablation) -> None:
    table = Listing(
        [*whole("field", "tells the place"), *numbers("alone", "without it")],
        title=f"What fields are worth to {ablation.setting!r} on the first run "
        f"(accuracy with all: {ablation.accuracy:.3f})",
    )
    for item in ablation.worth:
        table.add(
            *(item.field, "yes" if item.identifying else ""),
            *(_number(item.alone), _number(item.without)),
        )
    console.print(table)
    if ablation.skipped:
        console.print(
            f"{ablation.skipped} trainings of the ablation did not fit into its time.",
            style="yellow",
        )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
