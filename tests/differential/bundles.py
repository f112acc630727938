"""Real captures as files that both sides read."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from veilwatch.capture import open_captures
from veilwatch.capture.writer import PcapngWriter
from veilwatch.errors import CaptureError


@dataclass(frozen=True)
class Bundle:
    """Records of captures, all of one link type, in one file.

    Attributes
    ----------
    path
        A pcapng.
    link
        LINKTYPE_ value.
    origins
        For each record the capture that it comes from, and its number there.
    """

    path: Path
    link: int
    origins: list[tuple[str, int]]


def manifest(corpus: Path, folder: str) -> list[str]:
    """Return the captures of a folder, relative to the corpus, in the order of its manifest."""
    own = corpus / folder / "MANIFEST.csv"
    with (own if own.is_file() else corpus / "MANIFEST.csv").open(encoding="utf-8") as file:
        names = [row["file"] for row in csv.DictReader(file)]
    if own.is_file():
        return [f"{folder}/{name}" for name in names]
    return [name for name in names if name.startswith(f"{folder}/")]


def bundles(corpus: Path, names: Sequence[str], folder: Path) -> Iterator[Bundle]:
    """Write the records of captures as our reader gives them, a file for each link type.

    How files are read is compared elsewhere (`tests/capture/test_tshark.py`); here both sides
    get the same records. One tshark for many small captures saves most of the time.
    """
    made: dict[int, tuple[PcapngWriter, Bundle]] = {}
    with ExitStack() as files:
        for name in names:
            try:
                stream = open_captures([corpus / name])
            except CaptureError:
                continue  # not a capture: the capture room's business
            with stream:
                for block in stream:
                    for record in block.records:
                        link = int(record["link"])
                        if link not in made:
                            path = folder / f"{link}.pcapng"
                            writer = files.enter_context(PcapngWriter(path, link=link))
                            made[link] = writer, Bundle(path, link, [])
                        start = int(record["offset"])
                        data = block.buffer[start : start + int(record["captured"])].tobytes()
                        made[link][0].write(int(record["ts_ns"]), data, int(record["length"]))
                        made[link][1].origins.append((name, int(record["number"])))
    for _, bundle in made.values():
        yield bundle
        bundle.path.unlink()
