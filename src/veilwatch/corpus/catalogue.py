"""Flow tables of a whole corpus, extracted once and cached by content."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import polars as pl

from veilwatch.corpus.cache import DAMAGED, cache_entry, content_hashes, fault_of, fill, store
from veilwatch.corpus.manifest import CaptureEntry, read_manifest
from veilwatch.errors import VeilwatchError
from veilwatch.progress import SILENT, Progress
from veilwatch.schema.flows import FlowTable
from veilwatch.traffic.flow import MeterConfig
from veilwatch.traffic.pipeline import FlowReader


@dataclass(frozen=True, slots=True)
class Corpus:
    """Labelled flows of many captures.

    Attributes
    ----------
    entries
        The captures of the manifest, in its order.
    flows
        Flow tables of all of them one below the other, with a further column `capture`
        (UInt32, index into `entries`).
    hashes
        SHA-256 of each capture's file by its name in the manifest.
    faults
        For captures that could not be read to their end: name and reason.
    manifest
        Where it was loaded from; None for one that was made in memory.
    """

    entries: list[CaptureEntry]
    flows: pl.DataFrame
    hashes: dict[str, str]
    faults: dict[str, str]
    manifest: Path | None = None

    @property
    def emulated(self) -> bool:
        """Whether any capture is marked as emulated by its manifest row."""
        return any(
            entry.extra.get("emulated", "").lower() in ("1", "true") for entry in self.entries
        )


def load_corpus(
    manifest: Path,
    *,
    config: MeterConfig = MeterConfig(),  # noqa: B008 (frozen)
    workers: int | None = None,
    progress: Progress = SILENT,
) -> Corpus:
    """Read a manifest and the flows of its captures, from the cache where they have been read.

    Raises
    ------
    CorpusError
        If the manifest or a capture that it names cannot be used.
    """
    entries = read_manifest(manifest)
    hashes = content_hashes(entries)
    cached = [cache_entry("flows", hashes[entry.name], config) for entry in entries]
    # By cache entry: captures of equal content are read once.
    missing = {
        path: entry.file for entry, path in zip(entries, cached, strict=True) if not path.is_file()
    }
    if missing:
        progress.start(f"flows of {len(missing)} captures", len(missing))
        _extract_all(missing, config, workers, progress)
    progress.start(f"reading {len(entries)} flow tables", len(entries))
    frames, faults = [], {}
    for index, (entry, path) in enumerate(zip(entries, cached, strict=True)):
        frame = _read(path)
        if frame is None:
            progress.note(f"{entry.name}: its entry in the cache is damaged and is made anew")
            _extract(entry.file, path, config)
            frame = pl.read_parquet(path)
        if fault := fault_of(path):
            faults[entry.name] = fault
        frames.append(frame.with_columns(pl.lit(index, pl.UInt32).alias("capture")))
        progress.advance()
    return Corpus(entries, pl.concat(frames), hashes, faults, manifest)


def _read(path: Path) -> pl.DataFrame | None:
    """Read a flow table from the cache; None if it is damaged."""
    try:
        return FlowTable(pl.read_parquet(path)).check().frame
    except (*DAMAGED, VeilwatchError):
        return None


def _extract_all(
    sources: Mapping[Path, Path], config: MeterConfig, workers: int | None, progress: Progress
) -> None:
    """Extract captures, given by the cache entry that each is to become."""
    fill(sources, partial(_extract, config=config), workers, progress)


def _extract(source: Path, target: Path, config: MeterConfig) -> None:
    """Extract one capture into the cache; runs in a worker process."""
    store(source, target, partial(_flows, config=config))


def _flows(source: Path, config: MeterConfig) -> tuple[pl.DataFrame, str]:
    with FlowReader([source], config=config) as reader:
        frame = reader.read_all().frame
        faults = [report.fault for report in reader.captures.faults]
    return frame, "".join(faults[:1])
