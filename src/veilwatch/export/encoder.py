"""What every file form of a flow table offers to `FlowWriter`."""

from __future__ import annotations

from typing import IO

import polars as pl


class Encoder:
    """How rows become bytes of one file form."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def write(self, frame: pl.DataFrame) -> None:
        """Append rows."""
        raise NotImplementedError

    def finish(self) -> None:
        """Write what the form needs at its end."""

    def abandon(self) -> None:
        """Let go of the stream, which is about to be thrown away."""
