"""Arguments that more than one verb takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from veilwatch.flow import MeterConfig

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

DEFAULTS = MeterConfig()
