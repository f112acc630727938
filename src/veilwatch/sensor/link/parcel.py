"""A flow table on its way from one process to another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import IntEnum

from veilwatch.schema.flows import FlowTable


class Kind(IntEnum):
    """What a message holds."""

    EARLY = 1  # reports of live flows
    ENDED = 2  # records of flows


@dataclass(frozen=True, slots=True)
class Parcel:
    """A table on its way.

    Attributes
    ----------
    kind
        Interim reports or records.
    table
        The flows.
    now_ns
        Time up to which packets had been taken when it was made, ns since the epoch; 0 unknown.
    made_ns
        When it was made, ns since the epoch by the sender's clock.
    archive
        Whether the archive may have it: not where the way is crowded.
    bytes
        What it takes in memory, estimated.
    """

    kind: Kind
    table: FlowTable
    now_ns: int
    made_ns: int
    archive: bool = True
    bytes: int = 0

    def parts(self, count: int) -> Iterator[Parcel]:
        """Yield it in at most so many parts with rows of their own."""
        frame = self.table.frame
        step = max(1, -(-frame.height // count))
        for start in range(0, frame.height, step):
            part = frame.slice(start, step)
            share = self.bytes * part.height // frame.height
            yield replace(self, table=FlowTable(part), bytes=share)
