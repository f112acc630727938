"""Arguments that more than one verb takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from veilwatch.flow import MeterConfig
from veilwatch.subscriber import KeyRing, Rotation, read_key_file

_CAPTURES = (
    "Capture files (pcap, pcapng, also gzip or zstd), globs, folders, or - for standard input. "
    "Several are read as one, in time order."
)

Captures = Annotated[
    list[str], typer.Argument(metavar="CAPTURE…", help=_CAPTURES, show_default=False)
]

CapturesOrInterface = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="CAPTURE…",
        help=f"{_CAPTURES} None of them where -i names a network interface.",
        show_default=False,
    ),
]

ModelFolder = Annotated[
    Path, typer.Option("--model", metavar="DIR", help="Folder that `veilwatch train` wrote.")
]

CorpusManifest = Annotated[
    Path,
    typer.Option("--corpus", metavar="MANIFEST.csv", help="Manifest of labelled captures."),
]

IdleTimeout = Annotated[
    float, typer.Option(min=0.001, help="A flow ends after this many seconds of silence.")
]

ActiveTimeout = Annotated[
    float, typer.Option(min=0.001, help="A longer flow is cut into records of this many seconds.")
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
