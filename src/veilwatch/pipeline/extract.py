"""From captures to flow tables, one chunk at a time: memory follows live flows, not file size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

import polars as pl

from veilwatch.capture import open_captures
from veilwatch.decode import Decoder
from veilwatch.flow import FlowMeter, MeterConfig, empty_heads, measure_table
from veilwatch.handshake import fill_facts, read_heads, recognise_services
from veilwatch.progress import SILENT, Progress
from veilwatch.schema.captures import CaptureReport
from veilwatch.schema.flows import EndReason, FlowBatch, FlowTable, HeadBatch

CHUNK_FLOWS: Final = 16_384
"""Finished flows gathered before they become a table: about 16 MiB of records."""

CHUNK_HEADS: Final = 1024
"""Heads gathered before they are parsed: at most 16 MiB of stream bytes."""


class FlowReader:
    """Iterate over the flow tables of captures.

    Parameters
    ----------
    inputs
        Files, globs, folders or "-", as `veilwatch.capture.open_captures` takes them.
    config
        How flows are cut.

    Attributes
    ----------
    captures
        What was read so far.

    Examples
    --------
    >>> with FlowReader(["core.pcapng"]) as reader:      # doctest: +SKIP
    ...     for table in reader:
    ...         print(len(table))
    """

    def __init__(
        self,
        inputs: Sequence[str | Path],
        *,
        config: MeterConfig = MeterConfig(),  # noqa: B008 (frozen)
        progress: Progress = SILENT,
    ) -> None:
        self._stream = open_captures(inputs, progress=progress)
        self._decoder = Decoder()
        self._meter = FlowMeter(config)
        self._facts = [read_heads(empty_heads())]

    @property
    def captures(self) -> CaptureReport:
        """What was read, and where reading stopped."""
        return self._stream.report

    @property
    def balance(self) -> dict[str, int]:
        """What became of every packet read; see `veilwatch.decode.Decoder.balance`."""
        return dict(self._decoder.balance)

    @property
    def meter(self) -> FlowMeter:
        """The meter, for its counters."""
        return self._meter

    def __enter__(self) -> FlowReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stream.close()

    def __iter__(self) -> Iterator[FlowTable]:
        batches: list[FlowBatch] = []
        waiting = 0
        for block in self._stream:
            self._meter.add(self._decoder.decode(block))
            if self._meter.pending >= CHUNK_FLOWS or self._meter.pending_heads >= CHUNK_HEADS:
                batches.append(self._take())
                waiting += len(batches[-1])
            if waiting >= CHUNK_FLOWS:
                yield self._table(batches)
                batches, waiting = [], 0
        self._meter.finish()
        batches.append(self._take())
        yield self._table(batches)

    def read_all(self) -> FlowTable:
        """Return every flow as one table; for captures that are known to be small."""
        return FlowTable(pl.concat([table.frame for table in self]))

    def _take(self) -> FlowBatch:
        flows, heads = self._meter.take()
        self._parse(heads)
        return flows

    def _parse(self, heads: HeadBatch) -> None:
        if len(heads.rows):
            self._facts.append(read_heads(heads))

    def _table(self, batches: list[FlowBatch]) -> FlowTable:
        frames = []
        for batch in batches:
            services = recognise_services(batch.records)
            frames.append(measure_table(batch).with_columns(pl.Series("service", services)))
        frame = pl.concat(frames)
        facts = pl.concat(self._facts)
        frame = frame.join(
            facts, left_on="parent_id", right_on="flow_id", how="left", maintain_order="left"
        )
        over = frame.filter(pl.col("end_reason") != int(EndReason.ACTIVE))
        self._facts = [facts.join(over, left_on="flow_id", right_on="parent_id", how="anti")]
        return FlowTable(fill_facts(frame)).check()
