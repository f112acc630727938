"""Flow tables as files: Parquet, CSV, JSON lines or conn.log, batch by batch.

CSV and JSON lines hold the values as they are. A server name may begin with `=`: import CSV
into a spreadsheet as text.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from veilwatch.errors import OutputError
from veilwatch.export.encoder import Encoder
from veilwatch.export.zeek import ConnJson, ConnLog
from veilwatch.files import is_device, output_error, replacing

ROW_GROUP: Final = 32_768
"""Rows gathered before a Parquet row group is written: small groups make large files, large
groups cost memory (a flow takes about 2 KiB)."""

STDOUT: Final = Path("-")


class _Parquet(Encoder):
    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(stream)
        self._writer: Any = None
        self._waiting: list[pl.DataFrame] = []
        self._rows = 0

    def _append(self, frame: pl.DataFrame) -> None:
        self._waiting.append(frame)
        self._rows += frame.height
        if self._rows >= ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        table = pl.concat(self._waiting).to_arrow(compat_level=pl.CompatLevel.oldest())
        self._waiting, self._rows = [], 0
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._stream, table.schema, compression="zstd")
        self._writer.write_table(table, row_group_size=ROW_GROUP)

    def finish(self) -> None:
        if self._waiting:
            self._flush()
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._stream, pa.schema([]))
        self._writer.close()

    def abandon(self) -> None:
        # Closed while the stream still takes bytes; the collector would do it afterwards.
        with suppress(OSError):
            if self._writer is not None:
                self._writer.close()


class _Csv(Encoder):
    _header = True

    def _append(self, frame: pl.DataFrame) -> None:
        joined = [
            pl.col(name).cast(pl.List(pl.String)).list.join(" ")
            if isinstance(dtype, pl.List)
            else pl.col(name).arr.to_list().cast(pl.List(pl.String)).list.join(" ")
            for name, dtype in frame.schema.items()
            if isinstance(dtype, pl.List | pl.Array)
        ]
        flat = frame.with_columns(joined)
        self._stream.write(flat.write_csv(include_header=self._header).encode())
        self._header = False


class _JsonLines(Encoder):
    def _append(self, frame: pl.DataFrame) -> None:
        self._stream.write(frame.write_ndjson().encode())


ENCODERS: Final[dict[str, type[Encoder]]] = {
    ".parquet": _Parquet,
    ".csv": _Csv,
    ".jsonl": _JsonLines,
    ".log": ConnLog,
    ".log.json": ConnJson,
}
"""File forms by the end of the name; the last two are Zeek's conn.log."""


class FlowWriter:
    """Write flow tables to one file, batch by batch, whole or not at all.

    Use it in a `with` statement; the file appears at its end. Every batch must have the columns
    of the first. An empty batch writes the header; without any batch the file has no columns.

    Parameters
    ----------
    path
        File to write; its suffix chooses the form. `-` writes to standard output.
    suffix
        Form for standard output, any but ".parquet"; for files the path's own.

    Raises
    ------
    OutputError
        If the suffix is unknown, a batch has other columns, or the place cannot be written to.

    Examples
    --------
    >>> with FlowWriter(Path("flows.parquet")) as writer:  # doctest: +SKIP
    ...     for table in tables:
    ...         writer.write(table.frame)
    """

    def __init__(self, path: Path, *, suffix: str = ".csv") -> None:
        self._to_stdout = path == STDOUT
        named = not (self._to_stdout or is_device(path))
        suffix = _suffix(path) if named else suffix
        known = [name for name in ENCODERS if not (self._to_stdout and name == ".parquet")]
        if suffix not in known:
            raise OutputError(
                f"no flow table can be written as {suffix or 'a file without suffix'}",
                where="standard output" if self._to_stdout else path,
                hint=f"known: {', '.join(known)}",
            )
        self.path = path
        self._encoder_type = ENCODERS[suffix]
        self._stack = ExitStack()
        self._schema: pl.Schema | None = None

    def __enter__(self) -> Self:
        opened = _standard_output() if self._to_stdout else replacing(self.path)
        self._encoder = self._encoder_type(self._stack.enter_context(opened))
        return self

    def write(self, frame: pl.DataFrame) -> None:
        """Append the rows of `frame`, with null where a flow has no such value."""
        if self._schema is None:
            self._schema = frame.schema
        elif frame.schema != self._schema:
            raise OutputError("a batch has other columns than the first", where=self.path)
        self._encoder.write(frame)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._stack:  # turns a failed write into the error that the user sees
            if error is not None:
                self._encoder.abandon()
                raise error
            self._encoder.finish()


def write_flows(path: Path, frame: pl.DataFrame, *, suffix: str = ".csv") -> None:
    """Write one flow table to `path`; see `FlowWriter` for parameters and errors."""
    with FlowWriter(path, suffix=suffix) as writer:
        writer.write(frame)


def _suffix(path: Path) -> str:
    """Return the longest end of a name that is known, else its suffix."""
    name = path.name.lower()
    known = [suffix for suffix in ENCODERS if name.endswith(suffix) and name != suffix]
    return max(known, key=len, default=path.suffix.lower())


@contextmanager
def _standard_output() -> Iterator[IO[bytes]]:
    try:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    except BrokenPipeError:  # whoever read us has read enough
        raise
    except OSError as error:
        raise output_error(Path("standard output"), error) from error
