"""Fragments after the first: they name no ports, so the first one has to say whose they are.

Fragments of the inner packet are packets of the flow. Those of an outer datagram (GTP-U over a
link with too small an MTU) only carry the rest of a packet that the first one announced whole. The
bytes of both take their place in a handshake that is being collected. One that comes before its
first is counted and no more.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from veilwatch.jit import inner_kernel
from veilwatch.traffic.flow.extra import extras_of
from veilwatch.traffic.flow.heads import place_rest
from veilwatch.traffic.flow.index import touch
from veilwatch.traffic.flow.interim import AGE, MOST, Interim, report, report_is_due
from veilwatch.traffic.flow.state import FRAGMENTS, FRAGMENTS_OF_FLOWS, ORPHANS, State
from veilwatch.traffic.flow.stream import data_seq, seq_after
from veilwatch.traffic.flow.update import update_fragment

MAX_AGE_NS: Final = 30_000_000_000
"""How long later fragments are expected: as long as Linux waits for them (ipfrag_time);
identifications come again after that."""


@inner_kernel
def fragment_row(fragments: Any, packet: Any) -> Any:
    """Return the row where the first fragment of a packet is remembered."""
    return fragments[np.int64(packet.fragment_key >> np.uint64(8)) & (FRAGMENTS - 1)]


@inner_kernel
def expect(state: State, slot: Any, direction: Any, packet: Any) -> Any:
    """Remember a first fragment, whose flow is known."""
    row = fragment_row(state.fragments, packet)
    row.key = packet.fragment_key
    row.ts_ns = packet.ts_ns
    row.flow_id = state.flows[slot].flow_id
    row.slot = slot
    row.direction = direction
    row.inner = packet.fragment
    row.before = packet.payload_offset - packet.fragment_start
    row.tcp_seq = data_seq(packet)
    row.turned = state.flows[slot].turned


@inner_kernel
def follow(state: State, early: Interim, buffer: Any, packet: Any) -> Any:
    """Count a later fragment to its flow."""
    row = fragment_row(state.fragments, packet)
    slot = row.slot
    if (
        row.key != packet.fragment_key
        or abs(packet.ts_ns - row.ts_ns) > MAX_AGE_NS
        or state.slots[slot].hash == 0
        or state.flows[slot].flow_id != row.flow_id
    ):
        state.counters[ORPHANS] += 1
        return
    state.counters[FRAGMENTS_OF_FLOWS] += 1
    flow = state.flows[slot]
    before = flow.last_ns
    direction = np.int64(row.direction)
    if row.turned != flow.turned:
        direction = 1 - direction
    packet.flow_id = flow.flow_id
    flow.way[direction].fragments += np.uint32(1)
    position = np.int64(packet.fragment_offset) - row.before
    if row.inner:
        number = seq_after(row.tcp_seq, position)
        sequence = state.sequences[slot]
        update_fragment(flow, extras_of(state), sequence, direction, buffer, packet, number)
        touch(state.slots, state.ends, slot, state.slots[slot].list)
    if position > 0:
        place_rest(state, slot, direction, buffer, packet, position, row.tcp_seq)
    limits = early.limits
    if row.inner and report_is_due(flow, before, early.counts, limits[MOST], limits[AGE]):
        report(state, early, slot)
