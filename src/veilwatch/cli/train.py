"""`veilwatch train`: a corpus to a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from veilwatch.cli.figures import print_families, print_figures
from veilwatch.cli.options import CorpusManifest
from veilwatch.cli.terminal import Quiet, console, working
from veilwatch.errors import TrainingError


def command(
    corpus: CorpusManifest,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the model.")],
    detector: Annotated[
        str, typer.Option(help="Which detector; a wrong name lists them.")
    ] = "lightgbm",
    target_fpr: Annotated[
        float,
        typer.Option(min=1e-6, max=0.5, help="False-positive rate the thresholds aim at."),
    ] = 0.01,
    folds: Annotated[int, typer.Option(min=2, max=20, help="Folds for cross-fitting.")] = 5,
    split: Annotated[
        str, typer.Option(help="What stays in one fold: group (source, family, day) or source.")
    ] = "group",
    shortcuts: Annotated[
        bool,
        typer.Option("--shortcuts", help="Also use addresses' ports, TTL and the like."),
    ] = False,
    keep_background: Annotated[
        bool,
        typer.Option(
            "--keep-background",
            help="Learn updates, advertising and the like of infected hosts as malicious.",
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
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 7,
    threads: Annotated[int, typer.Option(min=0, help="Threads; 0 takes every core.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Train a detector on labelled captures and calibrate its thresholds.

    Example: `veilwatch train --corpus MANIFEST.csv --out model`
    """
    # LightGBM and scikit-learn take seconds to load: only the verbs that need them pay.
    from veilwatch.corpus.catalogue import load_corpus
    from veilwatch.detectors import DetectorSettings
    from veilwatch.registry import save_model
    from veilwatch.training import TrainingOptions, train_model

    if split not in ("group", "source"):
        raise TrainingError(f"unknown split {split!r}", hint="use group or source")
    options = TrainingOptions(
        detector=detector,
        target_rate=target_fpr,
        folds=folds,
        split="source" if split == "source" else "group",
        shortcuts=shortcuts,
        keep_background=keep_background,
        prior=prior,
        families=not no_families,
        settings=DetectorSettings(seed=seed, threads=threads),
    )
    with working(quiet) as progress:
        labelled = load_corpus(corpus, progress=progress)
        for name, fault in labelled.faults.items():
            progress.note(f"{name}: {fault}")
        model = train_model(labelled, corpus, options, progress=progress)
        save_model(out, model)
    if not quiet:
        card = model.manifest.corpus
        console.print(
            f"Trained {detector} on {card.malicious_captures} malicious and "
            f"{card.benign_captures} benign captures in {model.manifest.training_seconds:.0f} s."
        )
        print_figures(
            model.manifest.held_out,
            title=f"Held out by {split}: scored by detectors that never saw the same {split}",
            emulated=card.emulated,
        )
        if model.manifest.families:
            print_families(model.manifest.families)
        console.print(f"Model: {out}", markup=False, soft_wrap=True)
