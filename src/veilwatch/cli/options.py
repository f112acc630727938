"""Arguments that more than one verb takes: each is spelled, meant and explained alike in all."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Annotated

import typer

from veilwatch.cli.times import duration_option
from veilwatch.errors import TrainingError
from veilwatch.traffic.flow import MeterConfig
from veilwatch.traffic.subscriber import KeyRing, Rotation, read_key_file

_CAPTURES = (
    "Capture files (pcap, pcapng, also gzip or zstd), globs, folders, or - for standard input. "
    "Several are read as one, in time order."
)

Captures = Annotated[
    list[str], typer.Argument(metavar="CAPTURE", help=_CAPTURES, show_default=False)
]

CapturesOrInterface = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="CAPTURE",
        help=f"{_CAPTURES} None of them where -i names a network interface.",
        show_default=False,
    ),
]

ModelFolder = Annotated[
    Path | None,
    typer.Option(
        "--model",
        metavar="DIR",
        help="Folder that veilwatch train wrote; without it the model of the package.",
        show_default=False,
    ),
]

CorpusManifest = Annotated[
    Path,
    typer.Option("--corpus", metavar="MANIFEST.csv", help="Manifest of labelled captures."),
]

ConfigFile = Annotated[
    Path, typer.Option("--config", "-c", metavar="FILE", help="Configuration of the sensor.")
]

Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SECTION.KEY=VALUE",
        help="A setting that wins over the file, such as capture.ring_mb=128; may be given more "
        "than once. Everybody on this machine can read it (ps): give secrets in files.",
        show_default=False,
    ),
]

Detector = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="lightgbm, catboost, lstm, mobilenet, ensemble, host_window or header_words.",
    ),
]

Folds = Annotated[int, typer.Option(min=2, max=20, help="Folds of the corpus.")]

TargetRate = Annotated[
    float,
    typer.Option(
        "--target-fpr", min=1e-6, max=0.5, help="False-positive rate that thresholds aim at."
    ),
]

Shortcuts = Annotated[
    bool,
    typer.Option(
        "--shortcuts", help="Shortcut features too: ports, TTL, TCP windows and the like."
    ),
]

KeepBackground = Annotated[
    bool,
    typer.Option(
        "--keep-background",
        help="Learn updates, advertising and the like of infected hosts as malicious too.",
    ),
]

Seed = Annotated[int, typer.Option(min=0, help="Seed of everything random.")]

Threads = Annotated[
    int, typer.Option(min=0, max=1024, help="Threads of a training; 0 takes every core.")
]

Processes = Annotated[
    int,
    typer.Option("--workers", min=0, max=1024, help="Processes at one time; 0 takes every core."),
]

IdleTimeout = Annotated[
    float, duration_option(help_text="A flow ends after so long a silence: 120, 2m.")
]

ActiveTimeout = Annotated[
    float, duration_option(help_text="A longer flow is cut into records of so long: 1800, 30m.")
]

MaxFlows = Annotated[
    int,
    typer.Option(min=1, max=16_777_216, help="Most live flows; beyond it the oldest are ended."),
]

GtpPorts = Annotated[
    list[int] | None,
    typer.Option(
        "--gtp-port",
        min=1,
        max=65_535,
        help="UDP port at which to look for GTP-U beside 2152; may be given more than once.",
        show_default=False,
    ),
]

SubscriberKeyFile = Annotated[
    Path | None,
    typer.Option(
        "--subscriber-key-file",
        metavar="FILE",
        help="Secret key of pseudonyms, at least 32 bytes, readable by its owner only. "
        "Without one, pseudonyms last one run.",
        show_default=False,
    ),
]

SubscriberRotation = Annotated[
    Rotation,
    typer.Option(
        "--subscriber-rotation",
        help="How often pseudonyms of subscribers change, in packet time (UTC).",
    ),
]


def key_ring(file: Path | None, rotation: Rotation) -> KeyRing:
    """Return what makes the pseudonyms that these options ask for."""
    return KeyRing(None if file is None else read_key_file(file), rotation)


DEFAULTS = MeterConfig()


def check_detector(name: str, option: str = "--detector") -> None:
    """Refuse a detector that does not exist, before anything is read.

    Raises
    ------
    TrainingError
        If there is none of that name.
    """
    from veilwatch.learning.detectors import DETECTORS

    if name not in DETECTORS:
        near = get_close_matches(name, DETECTORS, 1)
        guess = f"did you mean {near[0]}? " if near else ""
        raise TrainingError(
            f"unknown detector {name[:40]!r}",
            where=option,
            hint=f"{guess}known: {', '.join(DETECTORS)}",
        )
