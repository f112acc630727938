"""The flow meter: packets in, finished flows out, in bounded memory."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from veilwatch.errors import VeilwatchError
from veilwatch.schema.flows import HEAD_DTYPE, SEQUENCE_LENGTH, FlowBatch, HeadBatch, InterimBatch
from veilwatch.schema.packets import PacketBatch
from veilwatch.schema.units import SECOND_NS
from veilwatch.traffic.flow import kernel
from veilwatch.traffic.flow.extra import FRESH
from veilwatch.traffic.flow.index import reindex
from veilwatch.traffic.flow.interim import BYTES, REPORTS, InterimPoints, new_early, report_silent
from veilwatch.traffic.flow.state import (
    AMBIGUOUS,
    DATA_OUT,
    DUPLICATES,
    EVICTED,
    FRAGMENTS_OF_FLOWS,
    FREE,
    HEADS_CUT,
    HEADS_OUT,
    LIVE,
    NEXT_ID,
    NIL,
    OUT,
    as_bytes,
    grown,
    joined,
    new_state,
    with_extras,
)
from veilwatch.traffic.flow.tunnel import session_store

_NO_SESSIONS: Final = (np.zeros(0, np.uint64), np.zeros(0, np.int64))

FIRST_CAPACITY: Final = 4096
"""Flows that an empty table has room for; it doubles whenever a batch could fill it."""

MAX_FLOWS: Final = 1 << 26
"""Most flows of one meter: 70 GB of records. Slots are numbered in 32 bits."""

MAX_HEADS: Final = 1 << 22
"""Most head buffers of one meter: 38 GB."""

MAX_SEQUENCE: Final = 4096
"""Most packets kept of one flow: 37 KB of every flow, live or free."""

MAX_TIMEOUT_S: Final = 10 * 365 * 86_400.0
"""Longest timeout: ten years in ns and any packet time still add up within an int64."""


LOOK_NS: Final = SECOND_NS
"""How often live flows are looked through for silent ones, of traffic time: it takes a step for
each flow that had a packet within the silence."""


@dataclass(frozen=True, slots=True)
class MeterConfig:
    """How flows are cut and how much memory they may take.

    Attributes
    ----------
    idle_timeout_s
        A flow ends after this long without a packet (RFC 5102 `flowIdleTimeout`).
    active_timeout_s
        A longer flow is cut into records of this length (RFC 5102 `flowActiveTimeout`).
    linger_s
        How long a closed TCP connection is kept for its last acknowledgements.
    max_flows
        Most live flows. Beyond it the oldest closing flow is ended, else the one that has been
        silent longest, and counted as evicted.
    max_heads
        Most directions whose handshake is being collected at one time, 9 KiB each. Beyond it the
        one that has been collecting longest is handed on as it is, and counted as cut.
    sequence_length
        Packets of a flow's head that are kept one by one.

    Raises
    ------
    VeilwatchError
        If a value is out of range.
    """

    idle_timeout_s: float = 120.0
    active_timeout_s: float = 1800.0
    linger_s: float = 5.0
    max_flows: int = 1_048_576
    max_heads: int = 16_384
    sequence_length: int = SEQUENCE_LENGTH

    def __post_init__(self) -> None:
        for name, most in (
            ("idle_timeout_s", MAX_TIMEOUT_S),
            ("active_timeout_s", MAX_TIMEOUT_S),
            ("linger_s", MAX_TIMEOUT_S),
        ):
            if not 0.0 <= getattr(self, name) <= most:
                raise _out_of_range(name, 0, most)
        for name, most in (
            ("max_flows", MAX_FLOWS),
            ("max_heads", MAX_HEADS),
            ("sequence_length", MAX_SEQUENCE),
        ):
            if not 1 <= getattr(self, name) <= most:
                raise _out_of_range(name, 1, most)


class FlowMeter:
    """Turn decoded packets into flows.

    Parameters
    ----------
    config
        How flows are cut.
    first_id
        `flow_id` of the first flow; the others count on from it.
    early
        When flows that are alive are reported, see `take_early`; None for never.

    Examples
    --------
    >>> meter = FlowMeter()
    >>> meter.live
    0
    """

    def __init__(
        self,
        config: MeterConfig = MeterConfig(),
        *,
        first_id: int = 1,
        early: InterimPoints | None = None,
    ) -> None:
        self.config = config
        self._timeouts = kernel.Timeouts(
            idle=int(config.idle_timeout_s * SECOND_NS),
            active=int(config.active_timeout_s * SECOND_NS),
            linger=int(config.linger_s * SECOND_NS),
        )
        capacity = min(FIRST_CAPACITY, config.max_flows)
        self._state = new_state(capacity, config.max_heads, config.sequence_length)
        self._live = new_early(early, config.sequence_length)
        self._silence_ns = round(early.silence_s * SECOND_NS) if early and early.silence_s else 0
        self._silent = _Silent()
        self._state.counters[NEXT_ID] = first_id
        self._seed = np.uint64(secrets.randbits(64))
        self._sessions = _NO_SESSIONS
        self._flows: list[FlowBatch] = []
        self._heads: list[HeadBatch] = []
        self._early: list[InterimBatch] = []
        self._pending = self._pending_early = 0

    @property
    def live(self) -> int:
        """Flows in the table now."""
        return int(self._state.counters[LIVE])

    @property
    def pending(self) -> int:
        """Finished flows that nobody has taken yet."""
        return self._pending + int(self._state.counters[OUT])

    @property
    def pending_heads(self) -> int:
        """Complete heads that nobody has taken yet."""
        waiting = sum(len(batch.rows) for batch in self._heads)
        return waiting + int(self._state.counters[HEADS_OUT])

    @property
    def pending_early(self) -> int:
        """Reports of live flows that nobody has taken yet."""
        return self._pending_early + int(self._live.used[REPORTS])

    @property
    def evicted(self) -> int:
        """Flows that ended because the table was full."""
        return int(self._state.counters[EVICTED])

    @property
    def counters(self) -> dict[str, int]:
        """What became of packets and flows out of the ordinary, for people."""
        return {
            "evicted_flows": self.evicted,
            "copies_of_packets": self.duplicates,
            "later_fragments": self.fragments,
            "ambiguous_packets": self.ambiguous,
            "handshakes_cut": self.heads_cut,
        }

    @property
    def duplicates(self) -> int:
        """Packets that were seen a second time and counted once."""
        return int(self._state.counters[DUPLICATES])

    @property
    def fragments(self) -> int:
        """Later IP fragments that were counted to their flow."""
        return int(self._state.counters[FRAGMENTS_OF_FLOWS])

    @property
    def ambiguous(self) -> int:
        """Packets that could as well have belonged to another flow of their 5-tuple."""
        return int(self._state.counters[AMBIGUOUS])

    @property
    def heads_cut(self) -> int:
        """Handshakes that were handed on early because every buffer was in use."""
        return int(self._state.counters[HEADS_CUT])

    def add(self, batch: PacketBatch) -> None:
        """Meter one batch; finished flows wait for `take`."""
        begin = 0
        while begin < len(batch):
            begin = self.add_some(batch, begin)

    def add_some(self, batch: PacketBatch, begin: int) -> int:
        """Meter a batch from row `begin` on while the output has room; return the next row.

        For those who take flows as they come: where time jumps, one packet ends every flow, and
        `add` holds a second copy of them all.
        """
        self._make_room(len(batch) - begin)
        end: int = kernel.meter_block(
            self._state,
            self._live,
            batch.buffer,
            batch.packets,
            begin,
            self._seed,
            self._timeouts,
            *self._sessions,
        )
        if end < len(batch):
            self._drain()
        return end

    def bind(self, tunnels: npt.NDArray[np.void]) -> None:
        """Say which tunnels belong to which session from now on.

        Parameters
        ----------
        tunnels
            Array of `veilwatch.schema.sessions.SESSION_DTYPE`: every F-TEID that is valid now.
        """
        self._sessions = session_store(tunnels, self._seed) if len(tunnels) else _NO_SESSIONS

    def advance(self, now_ns: int) -> None:
        """End flows that have been silent for too long at a time that no packet tells.

        Parameters
        ----------
        now_ns
            Time up to which every packet has been added, ns since the epoch.
        """
        while not self.advance_some(now_ns):
            pass

    def advance_some(self, now_ns: int) -> bool:
        """End silent flows while the output has room; True when none is left."""
        done: bool = kernel.advance(self._state, now_ns, self._timeouts)
        if not done:
            self._drain()
        return done

    def report_silent(self, now_ns: int) -> bool:
        """Report flows that have fallen silent while the output has room; True when none is left.

        Flows are looked through once a second of traffic; see `InterimPoints.silence_s`.

        Parameters
        ----------
        now_ns
            As for `advance`.
        """
        look = self._silent
        if not self._silence_ns:
            return True
        if look.slot == NIL:
            if 0 <= now_ns - look.at_ns < LOOK_NS:
                return True
            # Where time went back, what was reported before it is not reported again.
            since_ns = look.until_ns if now_ns > look.at_ns else now_ns - self._silence_ns
            look.at_ns = now_ns
            look.since_ns, look.until_ns = since_ns, now_ns - self._silence_ns
        look.slot = report_silent(
            self._state, self._live, np.int32(look.slot), look.since_ns, look.until_ns
        )
        if look.slot != NIL:
            self._drain()
        return bool(look.slot == NIL)

    def finish(self) -> None:
        """End every live flow: the input is over."""
        while not self.finish_some():
            pass

    def finish_some(self) -> bool:
        """End live flows while the output has room; True when none is left.

        For those who take flows as they come: `finish` holds a second copy of them all.
        """
        done: bool = kernel.flush(self._state, self._timeouts)
        if not done:
            self._drain()
        return done

    def take(self) -> tuple[FlowBatch, HeadBatch]:
        """Return the flows that have ended and the heads that are complete, and forget them.

        A head is handed out no later than its flow; `HeadBatch.rows["flow_id"]` is the flow's
        `parent_id`.
        """
        heads = self.take_heads()
        flows, self._flows, self._pending = self._flows, [], 0
        return _joined_flows(flows), heads

    def take_heads(self) -> HeadBatch:
        """Return the heads that are complete and forget them; finished flows go on waiting."""
        self._drain()
        heads, self._heads = self._heads, []
        return _joined_heads(heads)

    def take_early(self) -> InterimBatch:
        """Return the reports of live flows and forget them; the flows go on.

        A record is what `take` would give had the input ended with the packet that decided, but
        for its `end_reason`. Where a row of its heads has no flow, they left by `take` or
        `take_heads` before; take those first, and early reports before the flows that have ended.
        """
        self._drain()
        early, self._early, self._pending_early = self._early, [], 0
        return InterimBatch(
            _joined_flows([batch.flows for batch in early]),
            _joined_heads([batch.heads for batch in early]),
        )

    def release(self) -> None:
        """Give back the memory of the flow table once nothing more comes; what was counted stays.

        For those who go on working with what a large capture brought.
        """
        empty = new_state(1, 1, 1)
        self._state = empty._replace(counters=self._state.counters)
        self._live = new_early(None, 1)
        self._flows, self._heads, self._early = [], [], []
        self._pending = self._pending_early = 0
        self._state.counters[[OUT, HEADS_OUT, DATA_OUT, LIVE]] = 0

    def _make_room(self, packets: int) -> None:
        """Grow the table while it may, so that flows are evicted only at `max_flows`."""
        capacity = len(self._state.flows)
        wanted = capacity
        while self._state.counters[FREE] + wanted - capacity < packets:
            wanted *= 2
        wanted = min(wanted, self.config.max_flows)
        if wanted > capacity:
            self._state = grown(self._state, wanted)
            reindex(self._state)
        rows = len(self._state.extras)
        wanted = rows
        while wanted - int(self._state.extra_books[FRESH]) < packets:
            wanted *= 2
        wanted = min(wanted, self.config.max_flows + 1)
        if wanted > rows:
            self._state = with_extras(self._state, wanted)

    def _drain(self) -> None:
        state = self._state
        count, heads, data = (int(state.counters[k]) for k in (OUT, HEADS_OUT, DATA_OUT))
        self._flows.append(
            FlowBatch(joined([state.out_flows[:count]]), joined([state.out_sequences[:count]]))
        )
        as_bytes(state.out_sequences)[:count] = 0
        if heads:
            self._heads.append(
                HeadBatch(state.out_data[:data].copy(), state.out_heads[:heads].copy())
            )
        self._pending += count
        state.counters[[OUT, HEADS_OUT, DATA_OUT]] = 0
        self._drain_early()

    def _drain_early(self) -> None:
        live = self._live
        count, data = int(live.used[REPORTS]), int(live.used[BYTES])
        if count == 0 and self._early:
            return
        flows = FlowBatch(joined([live.flows[:count]]), joined([live.sequences[:count]]))
        as_bytes(live.sequences)[:count] = 0
        heads = HeadBatch(live.data[:data].copy(), live.heads[:count].copy())
        self._early.append(InterimBatch(flows, heads))
        self._pending_early += count
        live.used[:] = 0


@dataclass(slots=True)
class _Silent:
    """How far the flows were looked through for silent ones: when, what for, and where to go on."""

    at_ns: int = 0
    since_ns: int = 0
    until_ns: int = 0
    slot: int = NIL


def _out_of_range(name: str, least: float, most: float) -> VeilwatchError:
    return VeilwatchError(
        "out of range", where=name, hint=f"give a value from {least:g} to {most:g}"
    )


def empty_heads() -> HeadBatch:
    """Return a batch without heads."""
    return HeadBatch(np.zeros(0, np.uint8), np.zeros(0, HEAD_DTYPE))


def _joined_flows(batches: list[FlowBatch]) -> FlowBatch:
    if len(batches) == 1:
        return batches[0]
    return FlowBatch(
        records=joined([batch.records for batch in batches]),
        sequences=joined([batch.sequences for batch in batches]),
    )


def _joined_heads(batches: list[HeadBatch]) -> HeadBatch:
    if not batches:
        return empty_heads()
    if len(batches) == 1:
        return batches[0]
    rows: list[npt.NDArray[np.void]] = []
    offset = 0
    for batch in batches:
        shifted = batch.rows.copy()
        shifted["start"] += offset
        offset += len(batch.data)
        rows.append(shifted)
    return HeadBatch(np.concatenate([b.data for b in batches]), np.concatenate(rows))
