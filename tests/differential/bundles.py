"""Real captures joined into one file that both sides read."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from veilwatch.errors import CaptureError
from veilwatch.traffic.capture import Interface, PcapngWriter, open_captures

Origins = list[tuple[str, int, int]]
"""For each record the capture it comes from, its number there, and its LINKTYPE_ value."""


def manifest(corpus: Path, folder: str) -> list[str]:
    """Return the captures of a folder, relative to the corpus, in the order of its manifest."""
    own = corpus / folder / "MANIFEST.csv"
    with (own if own.is_file() else corpus / "MANIFEST.csv").open(encoding="utf-8") as file:
        names = [row["file"] for row in csv.DictReader(file)]
    if own.is_file():
        return [f"{folder}/{name}" for name in names]
    return [name for name in names if name.startswith(f"{folder}/")]


def join(corpus: Path, names: Sequence[str], path: Path) -> Origins:
    """Write the records of captures, as our reader gives them, to a pcapng.

    How files are read is compared elsewhere (`tests/traffic/capture/test_tshark.py`); here both
    sides get the same records. One tshark for many small captures saves most of the time.
    """
    origins: Origins = []
    with PcapngWriter(path) as writer:
        for name in names:
            try:
                stream = open_captures([corpus / name])
            except CaptureError:
                continue  # not a capture: the business of `capture`
            with stream:
                for block in stream:
                    for record in block.records:
                        link, start = int(record["link"]), int(record["offset"])
                        data = block.buffer[start : start + int(record["captured"])].tobytes()
                        writer.write(
                            int(record["ts_ns"]),
                            data,
                            int(record["length"]),
                            interface=Interface(link, ""),
                        )
                        origins.append((name, int(record["number"]), link))
    return origins
