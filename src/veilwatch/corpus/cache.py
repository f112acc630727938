"""What was read from captures, kept by their content and by the code that read them."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path
from typing import Final

import polars as pl

from veilwatch.corpus.manifest import CaptureEntry
from veilwatch.errors import CorpusError, VeilwatchError
from veilwatch.files import replacing
from veilwatch.jit import cache_home, source_hash
from veilwatch.progress import Progress
from veilwatch.traffic.capture.live.privileges import end_with_parent

Read = Callable[[Path], tuple[pl.DataFrame, str]]
"""Reads a capture: its table, and why reading stopped early (or nothing)."""

DAMAGED: Final = (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException)
"""How the reading of an entry fails whose bytes were changed: some panic within Polars, which is
then no `Exception`."""

Extract = Callable[[Path, Path], None]
"""Reads the capture at the first path into the cache entry at the second."""

ALONE_BYTES: Final = 16 << 20
"""Captures of fewer bytes together are read before another process has loaded what it needs to read
any, which takes it two seconds."""


def content_hashes(entries: Iterable[CaptureEntry]) -> dict[str, str]:
    """Return the SHA-256 of each capture's file by its name in the manifest.

    Raises
    ------
    CorpusError
        If one cannot be read.
    """
    return {entry.name: _content_hash(entry.file) for entry in entries}


def _content_hash(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise CorpusError(
            f"cannot read: {error.strerror}", where=file, hint="mend or remove its manifest row"
        ) from error


def cache_entry(kind: str, content: str, settings: object) -> Path:
    """Return where the table of this content, made by this code with these settings, is kept."""
    name = hashlib.sha256(f"{source_hash()} {settings} {content}".encode()).hexdigest()
    return cache_home() / kind / name[:2] / f"{name}.parquet"


def fault_of(entry: Path) -> str:
    """Return why reading the capture of a cache entry stopped early, nothing if it did not."""
    path = _fault_path(entry)
    return path.read_text() if path.is_file() else ""


def store(source: Path, target: Path, read: Read) -> None:
    """Read one capture into its cache entry.

    Raises
    ------
    CorpusError
        If it cannot be read at all.
    OutputError
        If the cache cannot be written to.
    """
    try:
        frame, fault = read(source)
    except VeilwatchError as error:
        raise CorpusError(
            error.what, where=error.where, hint=error.hint or "mend or remove its manifest row"
        ) from error
    if fault:
        with replacing(_fault_path(target)) as stream:
            stream.write(fault.encode())
    with replacing(target) as stream:
        frame.write_parquet(stream, compression="lz4")


def fill(
    missing: Mapping[Path, Path], extract: Extract, workers: int | None, progress: Progress
) -> None:
    """Extract captures, given by the cache entry that each is to become.

    Parameters
    ----------
    extract
        Can be pickled: it runs in worker processes.
    workers
        Processes; for None every core, or one where the captures are small.
    """
    jobs = [(source, target) for target, source in missing.items()]
    count = min(workers or _worthwhile(missing.values()), len(jobs))
    if count == 1:
        for source, target in jobs:
            extract(source, target)
            progress.advance()
        return
    # The first capture is read here, so that kernels are compiled once and not by every worker.
    extract(*jobs[0])
    progress.advance()
    # Spawned, not forked: Numba's and Polars' threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, context, initializer=leave_quietly) as pool:
        futures = [pool.submit(extract, *job) for job in jobs[1:]]
        try:
            for future in as_completed(futures):
                future.result()
                progress.advance()
        except BaseException:
            # Waiting here: leaving the block would wait without cancelling, and undo this.
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _worthwhile(sources: Iterable[Path]) -> int:
    """Return how many processes read captures soonest."""
    size = 0
    for source in sources:
        with suppress(OSError):  # one that is gone meanwhile is told of by who reads it
            size += source.stat().st_size
    return 1 if size < ALONE_BYTES else os.cpu_count() or 1


def leave_quietly() -> None:
    """Make Ctrl-C and SIGTERM end a worker like an error does, cleaned up and without a traceback.

    It also ends with the process that started it, however that ended.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    end_with_parent(signal.SIGTERM)


def _fault_path(path: Path) -> Path:
    return path.with_suffix(".fault")
