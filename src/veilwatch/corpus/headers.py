"""Headers of the first packets of a corpus' captures, extracted once and cached by content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from veilwatch.corpus.cache import DAMAGED, cache_entry, fill, store
from veilwatch.corpus.manifest import CaptureEntry
from veilwatch.progress import SILENT, Progress
from veilwatch.schema.headers import HEADER_FIELDS, HEADER_PACKETS, HeaderTable
from veilwatch.traffic.pipeline import read_headers

_SCHEMA = {field.name: pl.Int64 for field in HEADER_FIELDS}


def load_headers(
    entries: Sequence[CaptureEntry],
    hashes: Mapping[str, str],
    *,
    workers: int | None = None,
    progress: Progress = SILENT,
) -> list[HeaderTable]:
    """Return the headers of each capture, from the cache where they have been read.

    Parameters
    ----------
    entries
        Captures.
    hashes
        SHA-256 of each capture's file by its name; see `corpus.cache.content_hashes`.

    Raises
    ------
    CorpusError
        If a capture cannot be read.
    """
    cached = [cache_entry("headers", hashes[entry.name], HEADER_PACKETS) for entry in entries]
    missing = {
        path: entry.file for entry, path in zip(entries, cached, strict=True) if not path.is_file()
    }
    if missing:
        progress.start(f"headers of {len(missing)} captures", len(missing))
        fill(missing, _extract, workers, progress)
    tables = []
    for entry, path in zip(entries, cached, strict=True):
        table = _read(path)
        if table is None:
            progress.note(f"{entry.name}: its entry in the cache is damaged and is made anew")
            _extract(entry.file, path)
            table = _table(pl.read_parquet(path))
        tables.append(table)
    return tables


def _read(path: Path) -> HeaderTable | None:
    """Read a table from the cache; None if it is damaged."""
    try:
        frame = pl.read_parquet(path)
    except DAMAGED:
        return None
    whole = frame.schema == _SCHEMA and frame.height <= HEADER_PACKETS
    return _table(frame) if whole and not sum(frame.null_count().row(0)) else None


def _table(frame: pl.DataFrame) -> HeaderTable:
    return HeaderTable(np.ascontiguousarray(frame.to_numpy()).reshape(-1, len(HEADER_FIELDS)))


def _extract(source: Path, target: Path) -> None:
    """Extract one capture into the cache; runs in a worker process."""
    store(source, target, _headers)


def _headers(source: Path) -> tuple[pl.DataFrame, str]:
    table, report = read_headers([source])
    faults = [file.fault for file in report.faults]
    return pl.DataFrame(table.values, schema=_SCHEMA), "".join(faults[:1])
