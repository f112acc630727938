"""What every file form of a flow table offers to `FlowWriter`."""

from __future__ import annotations

from typing import IO

import polars as pl

from veilwatch.schema.forms import known_frame


class Encoder:
    """How rows become bytes of one file form."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def write(self, frame: pl.DataFrame) -> None:
        """Append rows, with null where a flow has no such value."""
        self._append(known_frame(frame))

    def _append(self, frame: pl.DataFrame) -> None:
        raise NotImplementedError

    def finish(self) -> None:
        """Write what the form needs at its end."""

    def abandon(self) -> None:
        """Let go of the stream, which is about to be thrown away."""
