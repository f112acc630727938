"""Flow tables of a whole corpus, extracted once and cached by content."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from veilwatch.corpus.manifest import CaptureEntry, read_manifest
from veilwatch.errors import CorpusError, VeilwatchError
from veilwatch.files import replacing
from veilwatch.flow import MeterConfig
from veilwatch.jit import cache_home, source_hash
from veilwatch.pipeline import FlowReader
from veilwatch.progress import SILENT, Progress
from veilwatch.schema.flows import FlowTable


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
    """

    entries: list[CaptureEntry]
    flows: pl.DataFrame
    hashes: dict[str, str]
    faults: dict[str, str]

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
    hashes = {entry.name: _content_hash(entry.file) for entry in entries}
    cached = [_cached(hashes[entry.name], config) for entry in entries]
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
        fault = _fault_path(path)
        if fault.is_file():
            faults[entry.name] = fault.read_text()
        frames.append(frame.with_columns(pl.lit(index, pl.UInt32).alias("capture")))
        progress.advance()
    return Corpus(entries, pl.concat(frames), hashes, faults)


def _read(path: Path) -> pl.DataFrame | None:
    """Read a flow table from the cache; None if it is damaged."""
    try:
        return FlowTable(pl.read_parquet(path)).check().frame
    except (OSError, pl.exceptions.PolarsError, VeilwatchError):
        return None


def _extract_all(
    sources: Mapping[Path, Path],
    config: MeterConfig,
    workers: int | None,
    progress: Progress,
) -> None:
    """Extract captures, given by the cache entry that each is to become."""
    jobs = [(source, target) for target, source in sources.items()]
    count = min(workers or os.cpu_count() or 1, len(jobs))
    if count == 1:
        for source, target in jobs:
            _extract(source, target, config)
            progress.advance()
        return
    # The first capture is read here, so that kernels are compiled once and not by every worker.
    _extract(*jobs[0], config)
    progress.advance()
    # Spawned, not forked: Numba's and Polars' threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, context, initializer=leave_quietly) as pool:
        futures = [pool.submit(_extract, *job, config) for job in jobs[1:]]
        try:
            for future in as_completed(futures):
                future.result()
                progress.advance()
        except BaseException:
            # Waiting here: leaving the block would wait without cancelling, and undo this.
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def leave_quietly() -> None:
    """Make Ctrl-C end a worker like an error does: cleaned up, and without a traceback."""
    signal.signal(signal.SIGINT, lambda *_: sys.exit(128 + signal.SIGINT))


def _extract(source: Path, target: Path, config: MeterConfig) -> None:
    """Extract one capture into the cache; runs in a worker process."""
    try:
        with FlowReader([source], config=config) as reader:
            frame = reader.read_all().frame
            faults = [report.fault for report in reader.captures.faults]
    except VeilwatchError as error:
        raise CorpusError(
            error.what, where=error.where, hint=error.hint or "mend or remove its manifest row"
        ) from error
    if faults:
        with replacing(_fault_path(target)) as stream:
            stream.write(faults[0].encode())
    with replacing(target) as stream:
        frame.write_parquet(stream, compression="lz4")


def _content_hash(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise CorpusError(
            f"cannot read: {error.strerror}", where=file, hint="mend or remove its manifest row"
        ) from error


def _cached(content: str, config: MeterConfig) -> Path:
    """Return where the flow table of this content, made by this code and config, is kept."""
    name = hashlib.sha256(f"{source_hash()} {config} {content}".encode()).hexdigest()
    return cache_home() / "flows" / name[:2] / f"{name}.parquet"


def _fault_path(path: Path) -> Path:
    return path.with_suffix(".fault")
