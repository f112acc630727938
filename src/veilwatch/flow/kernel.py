"""The meter's inner loop: packets of one block into the table, finished flows out of it."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from veilwatch.flow.heads import READY_AFTER_PACKETS, collect, hand_on, wanted
from veilwatch.flow.index import find, flow_hash, release_slot, take_slot, touch, tunnel_domain
from veilwatch.flow.state import (
    BACKWARD,
    CLOCK_NS,
    CLOSING,
    EVICTED,
    FREE,
    HEADS_OUT,
    NEXT_ID,
    NIL,
    OPEN,
    OUT,
    State,
)
from veilwatch.flow.update import ACK, SYN, TCP, update
from veilwatch.jit import inline_kernel, kernel
from veilwatch.schema.flows import EndReason, TcpState
from veilwatch.schema.packets import NONE8, Status

_OK = int(Status.OK)
_IDLE = int(EndReason.IDLE)
_ACTIVE = int(EndReason.ACTIVE)
_CLOSED = int(EndReason.CLOSED)
_EVICTED = int(EndReason.EVICTED)
_END = int(EndReason.END)
_REUSED = int(EndReason.REUSED)
_FINS = TcpState.FIN_FWD | TcpState.FIN_BWD
_RST_BIT = TcpState.RST
_MIDSTREAM_BIT = TcpState.MIDSTREAM
_NONE8 = NONE8

MAX_ENDED_PER_PACKET: Final = 3
"""One packet can end its own flow twice over (reuse, active timeout) and evict another one."""


class Timeouts(NamedTuple):
    """Timeouts in ns, as the kernel takes them."""

    idle: int
    active: int
    linger: int


@inline_kernel
def room(state: State, flows):  # type: ignore[no-untyped-def]
    """Whether the outputs can take `flows` more flows with their heads."""
    return (
        state.counters[OUT] + flows <= len(state.out_flows)
        and state.counters[HEADS_OUT] + flows <= len(state.out_heads)
    )


@inline_kernel
def emit(state: State, slot, reason):  # type: ignore[no-untyped-def]
    """Copy a flow to the output."""
    hand_on(state, slot)
    out = state.counters[OUT]
    state.flows[slot].end_reason = reason
    state.out_flows[out] = state.flows[slot]
    used = state.flows[slot].sequence_used
    for i in range(state.sequences.shape[1]):
        if i < used:
            state.out_sequences[out, i] = state.sequences[slot, i]
        else:
            row = state.out_sequences[out, i]
            row.gap_us = 0
            row.size = 0
            row.payload = 0
            row.flags = 0
    state.counters[OUT] += 1


@inline_kernel
def end(state: State, slot, reason):  # type: ignore[no-untyped-def]
    """Emit a flow and forget it."""
    emit(state, slot, reason)
    release_slot(state, slot)


@inline_kernel
def is_due(flows, ends, now, timeouts):  # type: ignore[no-untyped-def]
    """Whether any flow's time is over."""
    closing, silent = ends[CLOSING, 0], ends[OPEN, 0]
    return (closing != NIL and now - flows[closing].last_ns > timeouts.linger) or (
        silent != NIL and now - flows[silent].last_ns > timeouts.idle
    )


@inline_kernel
def expire(state: State, now, timeouts):  # type: ignore[no-untyped-def]
    """End flows whose time is over; False when the output has no more room."""
    for which in (CLOSING, OPEN):
        limit = timeouts.linger if which == CLOSING else timeouts.idle
        slot = state.ends[which, 0]
        while slot != NIL and now - state.flows[slot].last_ns > limit:
            if not room(state, 1):
                return False
            end(state, slot, _CLOSED if which == CLOSING else _IDLE)
            slot = state.ends[which, 0]
    return True


@inline_kernel
def evict(state: State):  # type: ignore[no-untyped-def]
    """End the flow that is missed least: the oldest closing one, else the longest silent one."""
    slot = state.ends[CLOSING, 0]
    if slot == NIL:
        slot = state.ends[OPEN, 0]
    end(state, slot, _EVICTED)
    state.counters[EVICTED] += 1


@inline_kernel
def identify(flow, packet, domain, reverse):  # type: ignore[no-untyped-def]
    """Write the identity of a new flow from its first packet."""
    if reverse:
        flow.src_hi = packet.dst_hi
        flow.src_lo = packet.dst_lo
        flow.dst_hi = packet.src_hi
        flow.dst_lo = packet.src_lo
        flow.src_port = packet.dst_port
        flow.dst_port = packet.src_port
        flow.outer_src_hi = packet.outer_dst_hi
        flow.outer_src_lo = packet.outer_dst_lo
        flow.outer_dst_hi = packet.outer_src_hi
        flow.outer_dst_lo = packet.outer_src_lo
    else:
        flow.src_hi = packet.src_hi
        flow.src_lo = packet.src_lo
        flow.dst_hi = packet.dst_hi
        flow.dst_lo = packet.dst_lo
        flow.src_port = packet.src_port
        flow.dst_port = packet.dst_port
        flow.outer_src_hi = packet.outer_src_hi
        flow.outer_src_lo = packet.outer_src_lo
        flow.outer_dst_hi = packet.outer_dst_hi
        flow.outer_dst_lo = packet.outer_dst_lo
    flow.domain = domain
    flow.protocol = packet.protocol
    flow.ip_version = packet.ip_version
    flow.icmp_type = packet.icmp_type
    flow.icmp_code = packet.icmp_code
    flow.gtp_depth = packet.gtp_depth


@inline_kernel
def start(state: State, slot, packet):  # type: ignore[no-untyped-def]
    """Give a flow that just got its identity its times, number and empty measures."""
    flow = state.flows[slot]
    flow.first_ns = packet.ts_ns
    flow.last_ns = packet.ts_ns
    flow.first_number = packet.number
    flow.source = packet.source
    flow.flow_id = state.counters[NEXT_ID]
    state.counters[NEXT_ID] += 1
    flow.burst_direction = 2
    for direction in range(2):
        flow.wscale[direction] = _NONE8
        flow.qfi[direction] = _NONE8
        flow.gtp_pdu_type[direction] = _NONE8


@inline_kernel
def open_flow(state: State, packet, domain, key):  # type: ignore[no-untyped-def]
    """Make a flow for a packet that belongs to none; return (slot, direction of the packet)."""
    slot = take_slot(state, key)
    state.flows[slot] = state.blank[0]
    flow = state.flows[slot]
    flags = packet.tcp_flags
    syn = packet.protocol == TCP and flags & SYN != 0
    # Only a responder sends SYN+ACK, so its receiver is the initiator even when the SYN was missed.
    reverse = syn and flags & ACK != 0
    identify(flow, packet, domain, reverse)
    start(state, slot, packet)
    flow.parent_id = flow.flow_id
    if packet.protocol == TCP:
        if not syn:
            flow.tcp_state = _MIDSTREAM_BIT
        elif not reverse:
            flow.syn_seq = packet.tcp_seq
    state.slots[slot].head_done = 0
    return slot, 1 if reverse else 0


@inline_kernel
def continue_flow(state: State, slot, packet):  # type: ignore[no-untyped-def]
    """Start the next record of a long flow: same identity, direction and sequence numbers."""
    old = state.flows[slot]
    parent = old.parent_id
    tcp_state = old.tcp_state
    syn_seq = old.syn_seq
    known0, known1 = old.seq_known[0], old.seq_known[1]
    next0, next1 = old.next_seq[0], old.next_seq[1]
    src_hi, src_lo, dst_hi, dst_lo = old.src_hi, old.src_lo, old.dst_hi, old.dst_lo
    src_port, dst_port = old.src_port, old.dst_port
    reverse = not (
        src_lo == packet.src_lo
        and src_hi == packet.src_hi
        and src_port == packet.src_port
        and dst_lo == packet.dst_lo
        and dst_port == packet.dst_port
        and dst_hi == packet.dst_hi
    )
    domain = old.domain
    state.flows[slot] = state.blank[0]
    flow = state.flows[slot]
    identify(flow, packet, domain, reverse)
    start(state, slot, packet)
    flow.parent_id = parent
    flow.tcp_state = tcp_state
    flow.syn_seq = syn_seq
    flow.seq_known[0], flow.seq_known[1] = known0, known1
    flow.next_seq[0], flow.next_seq[1] = next0, next1


@inline_kernel
def is_reuse(flow, direction, packet):  # type: ignore[no-untyped-def]
    """Whether a packet opens a new connection on the 5-tuple of a flow that is known.

    A SYN does, unless it repeats the SYN that opened the flow, or the flow has begun with the
    SYN+ACK and this is its SYN, captured late.
    """
    if packet.protocol != TCP or packet.tcp_flags & (SYN | ACK) != SYN:
        return False
    if flow.tcp_state & (_FINS | _RST_BIT):
        return True
    if direction == 0 and flow.syn_seq == 0 and flow.packets[0] == 0:
        return False
    return direction == 1 or flow.syn_seq != packet.tcp_seq


@inline_kernel
def is_closed(flow):  # type: ignore[no-untyped-def]
    """Whether both sides have sent FIN, or one RST."""
    return flow.tcp_state & _FINS == _FINS or flow.tcp_state & _RST_BIT != 0


@kernel
def meter_block(state: State, buffer, packets, begin, seed, timeouts):  # type: ignore[no-untyped-def]
    """Meter packets from row `begin` on.

    Returns
    -------
    int
        Row of the first packet that was not taken because an output is full; `len(packets)`
        when all were.
    """
    flows, slots, buckets, ends = state.flows, state.slots, state.buckets, state.ends
    sequences, counters = state.sequences, state.counters
    most_flows = len(state.out_flows) - MAX_ENDED_PER_PACKET
    most_heads = len(state.out_heads) - MAX_ENDED_PER_PACKET
    for i in range(begin, len(packets)):
        packet = packets[i]
        if packet.status != _OK:
            continue
        now = packet.ts_ns
        if now > counters[CLOCK_NS]:
            counters[CLOCK_NS] = now
            if is_due(flows, ends, now, timeouts) and not expire(state, now, timeouts):
                return i
        elif now < counters[CLOCK_NS]:
            counters[BACKWARD] += 1
        if counters[OUT] > most_flows or counters[HEADS_OUT] > most_heads:
            return i

        domain = tunnel_domain(packet)
        key = flow_hash(packet, domain, seed)
        slot, direction = find(buckets, slots, flows, packet, domain, key)
        if slot != NIL and is_reuse(flows[slot], direction, packet):
            end(state, slot, _REUSED)
            slot = np.int32(NIL)
        if slot == NIL:
            if counters[FREE] == 0:
                evict(state)
            slot, direction = open_flow(state, packet, domain, key)
        elif now - flows[slot].first_ns > timeouts.active:
            emit(state, slot, _ACTIVE)
            continue_flow(state, slot, packet)

        flow = flows[slot]
        if flow.syn_seq == 0 and direction == 0 and packet.tcp_flags & SYN:
            flow.syn_seq = packet.tcp_seq
        update(flow, sequences[slot], direction, buffer, packet)
        row = slots[slot]
        if packet.payload_captured > 0 and row.head_done == 0:
            if wanted(row, flow, direction, buffer, packet):
                collect(state, slot, direction, buffer, packet)
            if flow.payload_packets[0] + flow.payload_packets[1] >= READY_AFTER_PACKETS:
                hand_on(state, slot)
                row.head_done = 1
        touch(slots, ends, slot, CLOSING if is_closed(flow) else OPEN)
    return len(packets)


@kernel
def flush(state: State) -> bool:
    """End every flow, in the order in which they fell silent; False when the output is full."""
    while True:
        slot = state.ends[CLOSING, 0]
        other = state.ends[OPEN, 0]
        if slot == NIL or (
            other != NIL and state.flows[other].last_ns < state.flows[slot].last_ns
        ):
            slot = other
        if slot == NIL:
            return True
        if not room(state, 1):
            return False
        end(state, slot, _CLOSED if state.slots[slot].list == CLOSING else _END)

