"""`veilwatch demo`: the whole job on emulated traffic."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.text import Text

from veilwatch import __version__
from veilwatch.cli.figures import print_figures
from veilwatch.cli.options import DEFAULTS, Seed
from veilwatch.cli.outputs import leaving, output_option
from veilwatch.cli.terminal import Quiet, console, errors, this_command, working
from veilwatch.files import make_folder, write_text
from veilwatch.jit import source_hash

TARGET_RATE: Final = 0.01

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
    from veilwatch.corpus.catalogue import load_corpus
    from veilwatch.corpus.lab import build_lab, field_capture
    from veilwatch.learning.comparison import CompareOptions
    from veilwatch.learning.models import save_model
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
    found = {alert.host for alert in detection.alerts if alert.kind == "host"}
    _print_truth(field.with_suffix(".truth.csv"), found)
    if not no_comparison:
        page = out / "comparison" / "comparison.html"
        console.print(Text(f"Comparison: {page.resolve()}"), soft_wrap=True)
    console.print(Text(f"Report: {results['report'].resolve()}", style="bold"))


def _stamp(seed: int, scale: float) -> dict[str, Any]:
    return {"seed": seed, "scale": scale, "veilwatch": __version__, "sources": source_hash()}


def _is_built(out: Path, seed: int, scale: float) -> bool:
    """Whether an earlier run left this very emulation behind."""
    try:
        return bool(json.loads((out / _STAMP).read_text()) == _stamp(seed, scale))
    except (OSError, ValueError):
        return False


def _print_truth(truth: Path, found: set[str]) -> None:
    """Hold the verdicts on hosts against what was emulated."""
    with truth.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    infected = {row["subscriber"]: row["variant"] for row in rows if row["label"] == "malicious"}
    caught = found & infected.keys()
    missed = ", ".join(sorted(infected[host] for host in infected.keys() - found)) or "none"
    healthy = {row["subscriber"] for row in rows} - infected.keys()
    console.print(
        f"Truth (emulated): {len(caught)} of {len(infected)} infected subscribers found "
        f"(missed: {missed}); {len(found & healthy)} of {len(healthy)} healthy ones alerted."
    )
    if found - {row["subscriber"] for row in rows}:
        errors.print("A host outside the emulation was alerted.", style="yellow")
