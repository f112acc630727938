"""`veilwatch evaluate`: how good a model, or a way of training one, is."""

from __future__ import annotations

import json
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from veilwatch import __version__
from veilwatch.cli.figures import print_figures
from veilwatch.cli.options import CorpusManifest
from veilwatch.cli.terminal import Quiet, console, working
from veilwatch.errors import TrainingError
from veilwatch.files import write_text

SPLITS = ("source", "group", "flow")
STDOUT = Path("-")


def command(
    corpus: CorpusManifest,
    model: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Model to evaluate on the corpus.")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="Without a model: train and test within the corpus, holding out whole sources "
            "(source), groups of one source, family and day (group), or single flows (flow, "
            "which flatters)."
        ),
    ] = None,
    detector: Annotated[str, typer.Option(help="Detector for --split.")] = "lightgbm",
    folds: Annotated[int, typer.Option(min=2, max=20, help="Folds for --split.")] = 5,
    target_fpr: Annotated[
        float, typer.Option(min=1e-6, max=0.5, help="Threshold target for --split.")
    ] = 0.01,
    shortcuts: Annotated[
        bool, typer.Option("--shortcuts", help="Shortcut features too, for --split.")
    ] = False,
    keep_background: Annotated[
        bool,
        typer.Option(
            "--keep-background",
            help="Learn background of infected hosts as malicious too, for --split.",
        ),
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed for --split.")] = 7,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write the figures; - for standard output."),
    ] = None,
    html_file: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write them as a page.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Measure detection and false-positive rates on labelled captures.

    Example: `veilwatch evaluate --model model --corpus OTHER.csv --json figures.json`

    Example: `veilwatch evaluate --corpus MANIFEST.csv --split source --json figures.json`
    """
    # LightGBM and scikit-learn take seconds to load: only the verbs that need them pay.
    from veilwatch.corpus.catalogue import load_corpus
    from veilwatch.detectors import DetectorSettings
    from veilwatch.registry import load_model
    from veilwatch.report.evaluation import render_evaluation
    from veilwatch.training import TrainingOptions, cross_validate, evaluate_model

    if (model is None) == (split is None):
        raise TrainingError("give either --model or --split", hint="see veilwatch evaluate --help")
    if split is not None and split not in SPLITS:
        raise TrainingError(f"unknown split {split!r}", hint=f"known: {', '.join(SPLITS)}")
    trained = load_model(model) if model is not None else None
    with working(quiet) as progress:
        labelled = load_corpus(corpus, progress=progress)
        for name, fault in labelled.faults.items():
            progress.note(f"{name}: {fault}")
        if trained is not None:
            figures = evaluate_model(trained, labelled)
        else:
            options = TrainingOptions(
                detector=detector,
                target_rate=target_fpr,
                folds=folds,
                shortcuts=shortcuts,
                keep_background=keep_background,
                settings=DetectorSettings(seed=seed),
            )
            by: Any = split
            figures = cross_validate(labelled, by, options, progress=progress)
    emulated = labelled.emulated or (trained is not None and trained.manifest.corpus.emulated)
    document = {
        "veilwatch": __version__,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["veilwatch", *sys.argv[1:]]),
        "emulated": emulated,
        "model": trained.manifest.name if trained else f"{detector}, {split} held out",
        **figures,
    }
    text = json.dumps(document, indent=1) + "\n"
    if json_file == STDOUT:
        sys.stdout.write(text)
    elif json_file is not None:
        write_text(json_file, text)
    if html_file is not None:
        write_text(
            html_file,
            render_evaluation(
                figures,
                model=document["model"],
                emulated=emulated,
                command=document["command"],
            ),
        )
    if not quiet and json_file != STDOUT:
        print_figures(figures, title=f"{document['model']} on {corpus}", emulated=emulated)
        if means := figures.get("mean_of_folds"):
            print_figures(means, title="Mean of the folds, each by itself", emulated=emulated)
        if seen := figures.get("set_aside"):
            console.print(
                f"{seen} captures that the model was trained on were set aside.", style="yellow"
            )
