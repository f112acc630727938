"""What an archive of flows forgets of one person."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from veilwatch.detection.alerting.person import Person
from veilwatch.errors import StoreError
from veilwatch.export.flow_writer import FlowWriter
from veilwatch.files import output_error
from veilwatch.store.archive import files_of, left_over

PERSON_COLUMNS: Final = {
    # Within tunnels of a subscriber's own, their address is an outer one.
    "host": ("src_ip", "dst_ip", "outer_src_ip", "outer_dst_ip"),
    "subscriber": ("subscriber",),
}
"""Columns that say whose a flow is, by `Person.key`."""


@dataclass(frozen=True, slots=True)
class ForgottenFlows:
    """What an archive forgot of one person.

    Attributes
    ----------
    flows, files
        Their flows, and how many files these were in.
    unfinished
        Files that a killed run left unfinished: nobody can read whose flows they hold.
    """

    flows: int = 0
    files: int = 0
    unfinished: int = 0


def forget_flows(folder: Path, person: Person, *, dry_run: bool = False) -> ForgottenFlows:
    """Take a person's flows out of an archive that nobody writes to, at either end of a flow.

    A file that holds some is written anew beside its place and renamed, or removed where it holds
    nothing else; others are not touched. Unfinished files are removed, as the next writer would.

    Parameters
    ----------
    folder
        Of the archive; may be missing.
    person
        Who.
    dry_run
        Whether flows are only counted.

    Raises
    ------
    StoreError
        If a file cannot be read; those before it are done.
    OutputError
        If a file cannot be written; it is as it was.
    """
    unfinished = left_over(folder)
    if not dry_run:
        for path in unfinished:
            _remove(path)
    # Counting is done beside a sensor that runs, whose oldest files may go meanwhile.
    files = (path for path in files_of(folder) if path.exists() or not dry_run)
    counts = [_forget_in(path, person, dry_run) for path in files]
    return ForgottenFlows(sum(counts), sum(map(bool, counts)), len(unfinished))


def _forget_in(path: Path, person: Person, dry_run: bool) -> int:
    """Take a person's flows out of one file; return how many."""
    with _reading(path):
        file = pq.ParquetFile(path)
    with file:
        known = file.schema_arrow.names
        columns = [name for name in PERSON_COLUMNS[person.key] if name in known]
        if not columns:
            return 0
        theirs = pl.any_horizontal(pl.col(columns) == person.name).fill_null(value=False)
        count = sum(frame.filter(theirs).height for frame in _parts(file, path, columns))
        if not count or dry_run:
            return count
        if count == file.metadata.num_rows:
            _remove(path)
            return count
        before = path.stat()
        with FlowWriter(path) as writer:
            for frame in _parts(file, path):
                writer.write(frame.filter(~theirs))
        # What others have in it gets no older and no younger by that.
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return count


def _parts(
    file: pq.ParquetFile, path: Path, columns: list[str] | None = None
) -> Iterator[pl.DataFrame]:
    """Yield a file part by part: whole it may take more memory than there is."""
    for number in range(file.num_row_groups):
        with _reading(path):
            frame = pl.from_arrow(file.read_row_group(number, columns))
        assert isinstance(frame, pl.DataFrame)
        yield frame


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise StoreError(
            "cannot be read: whose flows it holds is not known",
            where=path,
            hint="remove it and run this again",
        ) from error


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise output_error(path, error) from error
