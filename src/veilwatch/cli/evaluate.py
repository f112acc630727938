"""`veilwatch evaluate`: how good a model, or a way of training one, is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from veilwatch.cli.corpus import CACHED
from veilwatch.cli.figures import print_figures, print_kinds
from veilwatch.cli.options import (
    CorpusManifest,
    Detector,
    Folds,
    KeepBackground,
    Seed,
    Shortcuts,
    TargetRate,
    Threads,
    check_detector,
)
from veilwatch.cli.outputs import STDOUT, Force, check_output, leaving, output_option, suffix_of
from veilwatch.cli.terminal import AsJson, Quiet, console, this_command, warn, working
from veilwatch.errors import TrainingError

SPLITS = ("publisher", "source", "group", "flow")


def command(
    corpus: CorpusManifest,
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder of a model to evaluate on the corpus.", show_default=False
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default=False,
            help="Without a model: train and test within the corpus, holding out everything of an "
            "author (publisher), whole repositories (source), groups of one source, family and "
            "day (group), or single flows (flow, which flatters).",
        ),
    ] = None,
    detector: Detector = "lightgbm",
    folds: Folds = 5,
    target_fpr: TargetRate = 0.01,
    shortcuts: Shortcuts = False,
    keep_background: KeepBackground = False,
    seed: Seed = 7,
    threads: Threads = 0,
    output: Annotated[
        list[Path] | None,
        output_option(
            "FILE", "FILE.json for the figures, FILE.html for a page; may be given more than once."
        ),
    ] = None,
    as_json: AsJson = False,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Measure detection and false-positive rates on labelled captures.

    Detector, folds, target, features, seed and threads are those of --split.

    Example: `veilwatch evaluate --model model --corpus OTHER.csv -o figures.json`

    Example: `veilwatch evaluate --corpus MANIFEST.csv --split publisher -o figures.html`
    """
    # LightGBM and scikit-learn take seconds to load: only the verbs that need them pay.
    from veilwatch.corpus.catalogue import load_corpus
    from veilwatch.learning.detectors import DetectorSettings
    from veilwatch.learning.models import load_model
    from veilwatch.learning.training import TrainingOptions
    from veilwatch.runs import EVALUATION_FORMS, run_cross_validation, run_evaluation

    if (model is None) == (split is None):
        raise TrainingError("give either --model or --split", hint="see veilwatch evaluate --help")
    if split is not None and split not in SPLITS:
        hint = f"known: {', '.join(SPLITS)}"
        raise TrainingError(f"unknown split {split[:40]!r}", where="--split", hint=hint)
    check_detector(detector)
    files = [path for path in output or () if path != STDOUT]
    for path in files:
        suffix_of(path, EVALUATION_FORMS)
    check_output(*files, force=force)
    as_json |= len(files) < len(output or ())
    trained = load_model(model) if model is not None else None
    with working(quiet or as_json) as progress, leaving(*files, kept=CACHED):
        labelled = load_corpus(corpus, workers=threads or None, progress=progress)
        for name, fault in labelled.faults.items():
            warn(f"{name}: {fault}")
        if trained is not None:
            evaluation = run_evaluation(labelled, trained, command=this_command())
        else:
            options = TrainingOptions(
                detector=detector,
                target_rate=target_fpr,
                folds=folds,
                shortcuts=shortcuts,
                keep_background=keep_background,
                settings=DetectorSettings(seed=seed, threads=threads),
            )
            by: Any = split
            evaluation = run_cross_validation(
                labelled, by, options, command=this_command(), progress=progress
            )
        for path in files:
            evaluation.report(path)
    if as_json:
        typer.echo(json.dumps(evaluation.document(), indent=1))
        return
    figures, emulated = evaluation.figures, evaluation.emulated
    print_figures(figures, title=f"{evaluation.model} on {corpus}", emulated=emulated)
    if means := figures.get("mean_of_folds"):
        print_figures(means, title="Mean of the folds, each by itself", emulated=emulated)
    print_kinds(figures)
    if seen := figures.get("set_aside"):
        console.print(
            f"{seen} captures that the model was trained on were set aside.", style="yellow"
        )
