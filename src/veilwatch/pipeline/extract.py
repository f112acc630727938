"""From captures to flow tables, one chunk at a time: memory follows live flows, not file size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

import polars as pl

from veilwatch.capture import BlockStream, open_captures
from veilwatch.decode import Decoder
from veilwatch.flow import FlowMeter, MeterConfig, measure_table
from veilwatch.handshake import fill_facts, read_heads, recognise_services
from veilwatch.pipeline.ahead import ReadAhead
from veilwatch.progress import SILENT, Progress
from veilwatch.schema.captures import CaptureReport
from veilwatch.schema.flows import EndReason, FlowBatch, FlowTable
from veilwatch.schema.packets import PacketBatch, RawBlock
from veilwatch.schema.sessions import SubscriberReport
from veilwatch.subscriber import Directory, KeyRing

CHUNK_FLOWS: Final = 16_384
"""Finished flows gathered before they become a table: about 16 MiB of records."""

CHUNK_HEADS: Final = 1024
"""Heads gathered before they are parsed: at most 16 MiB of stream bytes."""


HAND_OUT_NS: Final = 5_000_000_000
"""A live capture hands out the flows that have ended at least this often, so that what scores
them need not wait for a whole chunk."""


class FlowReader:
    """Iterate over the flow tables of captures.

    Parameters
    ----------
    inputs
        Files, globs, folders or "-", as `veilwatch.capture.open_captures` takes them; or a
        stream that is open already, a live capture, which is closed with the reader.
    config
        How flows are cut.
    gtp_ports
        UDP ports at which GTP-U is looked for beside 2152.
    first_flow_id
        `flow_id` of the first flow; the others count on from it.
    subscriber_keys
        Makes pseudonyms of subscribers; None draws a key that lasts one run.
    workers
        2 to read and decode in a thread of its own, beside the meter; the flows are the same.

    Attributes
    ----------
    captures
        What was read so far.
    balance
        What became of every packet read; see `veilwatch.decode.Decoder.balance`.
    metering
        What the meter counted beside flows; see `veilwatch.flow.FlowMeter.counters`.
    subscribers
        Sessions and subscribers seen so far.

    Examples
    --------
    >>> with FlowReader(["core.pcapng"]) as reader:      # doctest: +SKIP
    ...     for table in reader:
    ...         print(len(table))
    """

    def __init__(
        self,
        inputs: Sequence[str | Path] | BlockStream,
        *,
        config: MeterConfig = MeterConfig(),  # noqa: B008 (frozen)
        gtp_ports: Sequence[int] = (),
        first_flow_id: int = 1,
        subscriber_keys: KeyRing | None = None,
        workers: int = 1,
        progress: Progress = SILENT,
    ) -> None:
        self._stream: BlockStream = (
            open_captures(inputs, progress=progress) if isinstance(inputs, Sequence) else inputs
        )
        self._decoder = Decoder(gtp_ports)
        self._meter = FlowMeter(config, first_id=first_flow_id)
        self._workers = workers
        self._progress = progress
        self._directory = Directory(subscriber_keys)
        self._bound = self._bindings = self._unbound = 0
        self._facts: list[pl.DataFrame] = []

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
        """The meter, for those who look closer."""
        return self._meter

    @property
    def metering(self) -> dict[str, int]:
        """What the meter counted beside flows; see `veilwatch.flow.FlowMeter.counters`."""
        return self._meter.counters

    @property
    def subscribers(self) -> SubscriberReport:
        """Sessions and subscribers seen so far."""
        return self._directory.report()

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
        meter = self._meter
        handed_out_ns = now_ns = 0
        for metered in self._metered():
            if metered is not None:
                now_ns = metered[0].now_ns
            if meter.pending_heads >= CHUNK_HEADS:
                self._facts.append(read_heads(meter.take_heads()))
            due = now_ns and meter.pending and abs(now_ns - handed_out_ns) > HAND_OUT_NS
            if due or meter.pending >= CHUNK_FLOWS:
                yield from self._tables()
                handed_out_ns = now_ns
        while not meter.finish_some():
            if meter.pending >= CHUNK_FLOWS:
                yield from self._tables()
        yield from self._tables()
        if self._directory.note:
            self._progress.note(self._directory.note)

    def packets(self) -> Iterator[tuple[RawBlock, PacketBatch]]:
        """Yield every block with its packets, each with the `flow_id` of its flow; no tables.

        Equal captures and settings give equal flow ids, so that a second reader can find the
        packets of flows that a first one made tables of. A block is valid until the next one.
        """
        for metered in self._metered():
            if metered is not None:
                yield metered
            if self._meter.pending >= CHUNK_FLOWS or self._meter.pending_heads >= CHUNK_HEADS:
                self._meter.take()

    def _metered(self) -> Iterator[tuple[RawBlock, PacketBatch] | None]:
        """Yield every block with its packets once they are metered.

        None comes in between while more flows end than the meter holds ready: thousands for one
        packet where time jumps. They can be taken then.
        """
        meter = self._meter
        for block, batch in self._decoded():
            self._directory.observe(batch)
            self._bind(len(batch))
            begin = 0
            while (begin := meter.add_some(batch, begin)) < len(batch):
                yield None
            while block.now_ns and not meter.advance_some(block.now_ns):
                yield None
            yield block, batch

    def _decoded(self) -> Iterator[tuple[RawBlock, PacketBatch]]:
        if self._workers > 1:
            return iter(ReadAhead(self._stream, self._decoder))
        return ((block, self._decoder.decode(block)) for block in self._stream)

    def _bind(self, packets: int) -> None:
        """Tell the meter which tunnels belong to which session, as often as that costs little.

        Until then a flow has no session, and gets it with a later packet or by `annotate`.
        """
        self._unbound += packets
        if self._bound != self._directory.version and self._unbound >= self._bindings:
            tunnels = self._directory.bindings()
            self._meter.bind(tunnels)
            self._bound, self._bindings, self._unbound = self._directory.version, len(tunnels), 0

    def read_all(self) -> FlowTable:
        """Return every flow as one table; for captures that are known to be small."""
        return FlowTable(pl.concat([table.frame for table in self]))

    def _tables(self) -> Iterator[FlowTable]:
        """Make tables of the flows that have ended, at least one."""
        flows, heads = self._meter.take()
        self._facts.append(read_heads(heads))
        for start in range(0, max(len(flows), 1), CHUNK_FLOWS):
            chunk = slice(start, start + CHUNK_FLOWS)
            yield self._table(FlowBatch(flows.records[chunk], flows.sequences[chunk]))

    def _table(self, flows: FlowBatch) -> FlowTable:
        services = pl.Series("service", recognise_services(flows.records), dtype=pl.String)
        frame = measure_table(flows).with_columns(services)
        facts = pl.concat(self._facts)
        frame = frame.join(
            facts, left_on="parent_id", right_on="flow_id", how="left", maintain_order="left"
        )
        # The facts of a connection that the active timeout cut are wanted again by its next record.
        over = frame.filter(pl.col("end_reason") != int(EndReason.ACTIVE))
        self._facts = [facts.join(over, left_on="flow_id", right_on="parent_id", how="anti")]
        return FlowTable(self._directory.annotate(fill_facts(frame))).check()
