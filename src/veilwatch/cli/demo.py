"""`veilwatch demo`: the whole job on emulated traffic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.text import Text

from veilwatch import __version__
from veilwatch.cli.figures import print_figures
from veilwatch.cli.options import DEFAULTS, Seed
from veilwatch.cli.outputs import leaving, output_option
from veilwatch.cli.terminal import Quiet, console, errors, this_command, working
from veilwatch.files import make_folder, write_text
from veilwatch.jit import source_hash
from veilwatch.report.listing import Listing, numbers, whole

if TYPE_CHECKING:
    from veilwatch.cli.demo_truth import Found
    from veilwatch.runs import Detection

TARGET_RATE: Final = 0.02
"""The lowest rate of false alarms that 126 benign captures of the lab can speak of."""

COMPARED: Final = ("lightgbm", "catboost", "lstm", "mobilenet", "host_window", "header_words")
COMPARED_FOLDS: Final = 2
"""Folds of the comparison: two keep a demonstration short, each judging half of the variants."""

_STAMP: Final = "built.json"


def command(
    output: Annotated[
        Path,
        output_option(
            "DIR", "Folder for captures, model and results; those of a demo are replaced.", "--out"
        ),
    ] = Path("demo-output"),
    seed: Seed = 7,
    scale: Annotated[float, typer.Option(min=0.05, max=20, help="Factor on the traffic.")] = 1.0,
    no_comparison: Annotated[
        bool,
        typer.Option(
            "--no-comparison", help="Do not compare the detectors, which takes most of the time."
        ),
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Emulate a mobile core with ransomware-like families, train on it, detect in new traffic.

    Nothing is sent anywhere: captures are written as files, wrapped in GTP-U, and read back.

    Example: `veilwatch demo`
    """
    # LightGBM and scikit-learn take seconds to load: only the verbs that need them pay.
    from veilwatch.cli.compare import print_comparison
    from veilwatch.cli.demo_truth import hold_against_truth
    from veilwatch.corpus.catalogue import load_corpus
    from veilwatch.corpus.lab import build_lab, field_capture
    from veilwatch.learning.comparison import CompareOptions
    from veilwatch.learning.models import load_boxed_model, save_model
    from veilwatch.learning.training import TrainingOptions, train_model
    from veilwatch.report.detection.console import print_summary
    from veilwatch.runs import DETECTION_FILES, run_comparison, run_detection

    out = make_folder(output)
    kept = f"what was finished lies in {out}: the same command goes on from there"
    field = out / "field" / "n3.pcapng"
    with working(quiet) as progress, leaving(kept=kept):
        manifest = out / "lab" / "MANIFEST.csv"
        if not _is_built(out, seed, scale):
            build_lab(out / "lab", seed=seed, scale=scale, progress=progress)
            field_capture(field, seed=seed + 1, scale=scale, progress=progress)
            write_text(out / _STAMP, json.dumps(_stamp(seed, scale)))
        corpus = load_corpus(manifest, progress=progress)
        model = train_model(
            corpus,
            manifest,
            TrainingOptions(target_rate=TARGET_RATE),
            name="LightGBM on emulated traffic",
            progress=progress,
        )
        save_model(out / "model", model)
        detection = run_detection(
            [field],
            model,
            out / "results",
            config=DEFAULTS,
            command=this_command(),
            progress=progress,
        )
        # What a model of real captures says of traffic that was made up.
        boxed = run_detection([field], load_boxed_model(), None, config=DEFAULTS, progress=progress)
        if not no_comparison:
            comparison = run_comparison(
                manifest,
                out / "comparison",
                CompareOptions(
                    detectors=COMPARED,
                    splits=("group",),
                    folds=COMPARED_FOLDS,
                    target_rate=TARGET_RATE,
                    changed=0,
                ),
                command="veilwatch demo",
                progress=progress,
            )
    print_figures(
        model.manifest.held_out,
        title="Training corpus, whole variants held out (emulated)",
        emulated=True,
    )
    if not no_comparison:
        print_comparison(comparison)
    results = {what: out / "results" / name for what, name in DETECTION_FILES.items()}
    print_summary(detection.document, console, outputs=None if quiet else results)
    _print_truth(hold_against_truth(detection.flows, _alerted(detection), field))
    of_boxed = hold_against_truth(boxed.flows, _alerted(boxed), field)
    console.print(
        f"The model of the package, which learned from real captures and never saw the lab: "
        f"{sum(item.found for item in of_boxed.infected)} of {len(of_boxed.infected)} infected "
        f"subscribers found, {of_boxed.healthy_alerted} of {of_boxed.healthy} healthy ones "
        f"alerted, AUC by flow {of_boxed.auc:.3f}."
    )
    if not no_comparison:
        page = out / "comparison" / "comparison.html"
        console.print(Text(f"Comparison: {page.resolve()}"), soft_wrap=True)
    console.print(Text(f"Report: {results['report'].resolve()}", style="bold"))


def _alerted(detection: Detection) -> set[str]:
    return {alert.host for alert in detection.alerts if alert.kind == "host"}


def _stamp(seed: int, scale: float) -> dict[str, Any]:
    return {"seed": seed, "scale": scale, "veilwatch": __version__, "sources": source_hash()}


def _is_built(out: Path, seed: int, scale: float) -> bool:
    """Whether an earlier run left this very emulation behind."""
    try:
        return bool(json.loads((out / _STAMP).read_text()) == _stamp(seed, scale))
    except (OSError, ValueError):
        return False


def _print_truth(found: Found) -> None:
    """Hold the verdicts against what was emulated."""
    table = Listing(
        [
            *whole("subscriber", "infected with", "found"),
            *numbers("its flows", "alerted", "the person's flows", "alerted"),
        ],
        title="Truth: who was infected (emulated variants that the model never saw)",
    )
    for item in found.infected:
        table.add(
            *(item.subscriber, item.variant, "yes" if item.found else "no"),
            *(f"{item.flows:,}", f"{item.alerted:,}"),
            *(f"{item.others:,}", f"{item.others_alerted:,}"),
        )
    console.print()
    console.print(table)
    caught = sum(item.found for item in found.infected)
    console.print(
        f"Truth (emulated): {caught} of {len(found.infected)} infected subscribers found; "
        f"{found.healthy_alerted} of {found.healthy} healthy ones alerted. People use the infected "
        f"hosts too: a flow of an infection scores above any other flow on the link with a "
        f"probability of {found.auc:.3f} (AUC by flow)."
    )
    if found.strangers:
        errors.print("A host outside the emulation was alerted.", style="yellow")
