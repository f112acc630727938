"""From captures to flow tables, one chunk at a time: memory follows live flows, not file size."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import polars as pl

from veilwatch.closing import Closeable
from veilwatch.errors import VeilwatchError
from veilwatch.progress import SILENT, Progress
from veilwatch.schema.captures import CaptureReport
from veilwatch.schema.flows import EndReason, FlowBatch, FlowTable, HeadBatch, InterimBatch
from veilwatch.schema.packets import PacketBatch, RawBlock
from veilwatch.schema.sessions import SubscriberReport
from veilwatch.schema.units import SECOND_NS
from veilwatch.traffic.capture import BlockStream, Captures, open_captures
from veilwatch.traffic.decode import Decoder
from veilwatch.traffic.flow import FlowMeter, InterimPoints, MeterConfig, measure_table
from veilwatch.traffic.handshake import fill_facts, name_dtls, read_heads, recognise_services
from veilwatch.traffic.pipeline.prefetch import Prefetch
from veilwatch.traffic.subscriber import Directory, KeyRing

CHUNK_FLOWS: Final = 16_384
"""Finished flows gathered before they become a table: about 16 MiB of records."""

CHUNK_HEADS: Final = 1024
"""Heads gathered before they are parsed: at most 16 MiB of stream bytes."""


HAND_OUT_NS: Final = 5 * SECOND_NS
"""A live capture hands out the flows that have ended at least this often, so that what scores
them need not wait for a whole chunk."""

LIVE_S: Final = 0.5
"""How long early reports and ended flows wait for company before `FlowReader.live_tables` hands
them out, s: a table costs some 10 ms however small it is."""

MAX_LIVE_S: Final = 1.0
"""Longest such wait: what decides from early reports has 2 s from the packet on."""


class LiveTable(NamedTuple):
    """A flow table as it comes while traffic goes on.

    Attributes
    ----------
    table
        Flows. Interim ones have `EndReason.EARLY`.
    early
        Whether these are reports of live flows, whose records are still to come.
    now_ns
        Time up to which packets had been taken, ns since the epoch; 0 where the input does not
        tell it.
    """

    table: FlowTable
    early: bool
    now_ns: int


class FlowReader(Closeable):
    """Iterate over the flow tables of captures.

    Parameters
    ----------
    inputs
        Files, globs, folders or "-", one or several, as `veilwatch.traffic.capture.open_captures`
        takes them; or a stream that is open already, a live capture, which is closed with the
        reader.
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
    early
        When flows are reported that are still alive, by `live_tables`; None for never.

    Attributes
    ----------
    captures
        What was read so far.
    balance
        What became of every packet read; see `veilwatch.traffic.decode.Decoder.balance`.
    metering
        What the meter counted beside flows; see `veilwatch.traffic.flow.FlowMeter.counters`.
    subscribers
        Sessions and subscribers seen so far.

    Examples
    --------
    >>> with FlowReader("core.pcapng") as reader:      # doctest: +SKIP
    ...     for table in reader:
    ...         print(len(table))
    """

    def __init__(
        self,
        inputs: Captures | BlockStream,
        *,
        config: MeterConfig = MeterConfig(),  # noqa: B008 (frozen)
        gtp_ports: Sequence[int] = (),
        first_flow_id: int = 1,
        subscriber_keys: KeyRing | None = None,
        workers: int = 1,
        early: InterimPoints | None = None,
        progress: Progress = SILENT,
    ) -> None:
        self._stream: BlockStream = (
            open_captures(inputs, progress=progress)
            if isinstance(inputs, str | Path | Sequence)
            else inputs
        )
        self._decoder = Decoder(gtp_ports)
        self._meter = FlowMeter(config, first_id=first_flow_id, early=early)
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
        """What became of every packet read; see `veilwatch.traffic.decode.Decoder.balance`."""
        return dict(self._decoder.balance)

    @property
    def meter(self) -> FlowMeter:
        """The meter, for those who look closer."""
        return self._meter

    @property
    def metering(self) -> dict[str, int]:
        """What the meter counted beside flows; see `veilwatch.traffic.flow.FlowMeter.counters`."""
        return self._meter.counters

    @property
    def subscribers(self) -> SubscriberReport:
        """Sessions and subscribers seen so far."""
        return self._directory.report()

    def close(self) -> None:
        """Let go of the captures and of what was metered; done at the end of the `with` block."""
        self._stream.close()
        self._meter.release()
        self._facts = []

    def __iter__(self) -> Iterator[FlowTable]:
        meter = self._meter
        handed_out_ns = now_ns = 0
        for metered in self._metered():
            if metered is not None:
                now_ns = metered[0].now_ns
            if meter.pending_heads >= CHUNK_HEADS:
                self._facts.append(read_heads(meter.take_heads()))
            if meter.pending_early >= CHUNK_FLOWS:
                meter.take_early()  # nobody asked for `live_tables`
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

    def live_tables(self, interval_s: float = LIVE_S) -> Iterator[LiveTable]:
        """Yield reports of live flows and flows that have ended, as they come.

        A flow's reports come before its record, and have its `flow_id`. They are what the record
        would be had the input ended with the packet that decided, but for `end_reason` and for
        what control traffic tells meanwhile (`subscriber`, `subscriber_by`, `apn`, `location`).

        Parameters
        ----------
        interval_s
            How long a row may wait while the input goes on, s by the clock on the wall, at most
            `MAX_LIVE_S`; less where many come.

        Raises
        ------
        VeilwatchError
            If the interval is out of range.
        """
        if not 0.0 <= interval_s <= MAX_LIVE_S:
            raise VeilwatchError(
                f"an interval of {interval_s:g} s", hint=f"give a value from 0 to {MAX_LIVE_S:g}"
            )
        meter, now_ns = self._meter, 0
        due = time.monotonic() + interval_s
        for metered in self._metered():
            if metered is not None:
                now_ns = metered[0].now_ns
            full = max(meter.pending, meter.pending_early) >= CHUNK_FLOWS
            if full or meter.pending_heads >= CHUNK_HEADS:
                yield from self._live(now_ns, ended=meter.pending >= CHUNK_FLOWS)
            elif now_ns and time.monotonic() >= due:
                yield from self._live(now_ns, ended=True)
                due = time.monotonic() + interval_s
        done = False
        while not done:
            done = meter.finish_some()
            if done or meter.pending >= CHUNK_FLOWS:
                yield from self._live(now_ns, ended=True)
        if self._directory.note:
            self._progress.note(self._directory.note)

    def _live(self, now_ns: int, *, ended: bool) -> Iterator[LiveTable]:
        """Make tables of early reports first, as their facts are forgotten with their flows."""
        if self._meter.pending_heads or self._meter.pending_early:
            self._facts.append(read_heads(self._meter.take_heads()))
        early = self._meter.take_early()
        for start in range(0, len(early), CHUNK_FLOWS):
            chunk = slice(start, start + CHUNK_FLOWS)
            yield LiveTable(self._early_table(early, chunk), True, now_ns)
        if ended and self._meter.pending:
            for table in self._tables():
                yield LiveTable(table, False, now_ns)

    def _early_table(self, early: InterimBatch, chunk: slice) -> FlowTable:
        """Make a table of live flows, whose heads may have left or not."""
        flows = FlowBatch(early.flows.records[chunk], early.flows.sequences[chunk])
        rows = early.heads.rows[chunk]
        records, left, begun = flows.records, rows["flow_id"] < 0, rows["length"].any(axis=1)
        # A flow that is reported twice has two heads: they belong to the row and not to the flow.
        own = read_heads(HeadBatch(early.heads.data, rows[begun])).drop("flow_id")
        own = own.with_columns(pl.Series("row", np.flatnonzero(begun), pl.UInt32))
        gone = pl.DataFrame(
            {
                "row": pl.Series(np.flatnonzero(left), dtype=pl.UInt32),
                "flow_id": pl.Series(records["parent_id"][left], dtype=pl.Int64),
            }
        )
        self._facts = [pl.concat(self._facts)]
        told = gone.join(self._facts[0], on="flow_id", how="inner").drop("flow_id")
        facts = pl.concat([own, told.select(own.columns)])
        services = pl.Series("service", recognise_services(records), dtype=pl.String)
        frame = (
            measure_table(flows)
            .with_columns(services)
            .with_row_index("row")
            .join(facts, on="row", how="left", maintain_order="left")
            .drop("row")
        )
        return FlowTable(self._directory.annotate(name_dtls(fill_facts(frame)), early=True)).check()

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
            while block.now_ns and not meter.report_silent(block.now_ns):
                yield None
            yield block, batch

    def _decoded(self) -> Iterator[tuple[RawBlock, PacketBatch]]:
        if self._workers > 1:
            return iter(Prefetch(self._stream, self._decoder))
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
        return FlowTable(self._directory.annotate(name_dtls(fill_facts(frame)))).check()
