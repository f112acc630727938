"""`veilwatch train`: a corpus to a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from veilwatch.cli.corpus import CACHED
from veilwatch.cli.figures import print_families, print_figures, print_kinds
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
from veilwatch.cli.outputs import Force, check_folder, leaving, output_option
from veilwatch.cli.terminal import Quiet, console, warn, working
from veilwatch.errors import TrainingError

MODEL: Final = "model.json"
"""File that makes a folder a model."""

SPLITS: Final = ("group", "source", "publisher")


def command(
    corpus: CorpusManifest,
    output: Annotated[Path, output_option("DIR", "Folder for the model.", "--out")],
    detector: Detector = "lightgbm",
    target_fpr: TargetRate = 0.01,
    folds: Folds = 5,
    split: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="What stays in one fold: group (source, family, day), source or publisher.",
        ),
    ] = "group",
    shortcuts: Shortcuts = False,
    keep_background: KeepBackground = False,
    no_hosts: Annotated[
        bool,
        typer.Option(
            "--no-hosts", help="Judge hosts by their flows alone, not by channels and windows."
        ),
    ] = False,
    no_families: Annotated[
        bool, typer.Option("--no-families", help="Do not learn to name malware families.")
    ] = False,
    prior: Annotated[
        float,
        typer.Option(
            min=1e-9, max=0.5, help="Share of infected hosts where the model will be used."
        ),
    ] = 0.001,
    seed: Seed = 7,
    threads: Threads = 0,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Train a detector on labelled captures and calibrate its thresholds.

    Example: `veilwatch train --corpus MANIFEST.csv -o model`
    """
    # LightGBM and scikit-learn take seconds to load: only the verbs that need them pay.
    from veilwatch.corpus.catalogue import load_corpus
    from veilwatch.learning.detectors import DetectorSettings
    from veilwatch.learning.models import save_model
    from veilwatch.learning.training import TrainingOptions, train_model

    if split not in SPLITS:
        hint = f"known: {', '.join(SPLITS)}"
        raise TrainingError(f"unknown split {split[:40]!r}", where="--split", hint=hint)
    by: Any = split
    check_detector(detector)
    check_folder(output, MODEL, force=force)
    options = TrainingOptions(
        detector=detector,
        target_rate=target_fpr,
        folds=folds,
        split=by,
        shortcuts=shortcuts,
        keep_background=keep_background,
        prior=prior,
        hosts=not no_hosts,
        families=not no_families,
        settings=DetectorSettings(seed=seed, threads=threads),
    )
    with working(quiet) as progress, leaving(output / MODEL, kept=CACHED):
        labelled = load_corpus(corpus, workers=threads or None, progress=progress)
        for name, fault in labelled.faults.items():
            warn(f"{name}: {fault}")
        model = train_model(labelled, corpus, options, progress=progress)
        save_model(output, model)
    card = model.manifest.corpus
    if not quiet:
        console.print(
            f"Trained {detector} on {card.malicious_captures} malicious and "
            f"{card.benign_captures} benign captures in {model.manifest.training_seconds:.0f} s."
        )
    print_figures(
        model.manifest.held_out,
        title=f"Held out by {split}: scored by detectors that never saw the same {split}",
        emulated=card.emulated,
    )
    print_kinds(model.manifest.held_out)
    if model.manifest.families:
        print_families(model.manifest.families)
    if not quiet:
        console.print(f"Model: {output}", markup=False, soft_wrap=True)
