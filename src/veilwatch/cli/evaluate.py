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
from veilwatch.cli.corpus import CACHED
from veilwatch.cli.figures import print_figures
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
from veilwatch.cli.terminal import AsJson, Quiet, console, warn, working
from veilwatch.errors import TrainingError
from veilwatch.files import write_text

SPLITS = ("source", "group", "flow")
FORMS = (".json", ".html")


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
            help="Without a model: train and test within the corpus, holding out whole sources "
            "(source), groups of one source, family and day (group), or single flows (flow, "
            "which flatters).",
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

    Example: `veilwatch evaluate --corpus MANIFEST.csv --split source -o figures.html`
    """
    # LightGBM and scikit-learn take seconds to load: only the verbs that need them pay.
    from veilwatch.corpus.catalogue import load_corpus
    from veilwatch.learning.detectors import DetectorSettings
    from veilwatch.learning.models import load_model
    from veilwatch.learning.training import TrainingOptions, cross_validate, evaluate_model
    from veilwatch.report.evaluation.page import render_evaluation

    if (model is None) == (split is None):
        raise TrainingError("give either --model or --split", hint="see veilwatch evaluate --help")
    if split is not None and split not in SPLITS:
        hint = f"known: {', '.join(SPLITS)}"
        raise TrainingError(f"unknown split {split[:40]!r}", where="--split", hint=hint)
    check_detector(detector)
    files = [path for path in output or () if path != STDOUT]
    for path in files:
        suffix_of(path, FORMS)
    check_output(*files, force=force)
    as_json |= len(files) < len(output or ())
    trained = load_model(model) if model is not None else None
    with working(quiet or as_json) as progress, leaving(*files, kept=CACHED):
        labelled = load_corpus(corpus, workers=threads or None, progress=progress)
        for name, fault in labelled.faults.items():
            warn(f"{name}: {fault}")
        if trained is not None:
            figures = evaluate_model(trained, labelled)
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
    text = json.dumps(document, indent=1)
    for path in files:
        if suffix_of(path, FORMS) == ".json":
            write_text(path, text + "\n")
            continue
        page = render_evaluation(
            figures, model=document["model"], emulated=emulated, command=document["command"]
        )
        write_text(path, page)
    if as_json:
        typer.echo(text)
        return
    print_figures(figures, title=f"{document['model']} on {corpus}", emulated=emulated)
    if means := figures.get("mean_of_folds"):
        print_figures(means, title="Mean of the folds, each by itself", emulated=emulated)
    if seen := figures.get("set_aside"):
        console.print(
            f"{seen} captures that the model was trained on were set aside.", style="yellow"
        )
