"""The meter's inner loop: packets of one block into the table, finished flows out of it."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np

from veilwatch.jit import inner_kernel, kernel
from veilwatch.schema.flows import PREFIX_BYTES, EndReason, TcpState
from veilwatch.schema.packets import NONE8, Status
from veilwatch.traffic.flow import dedup
from veilwatch.traffic.flow.copying import clear_run, copy_run
from veilwatch.traffic.flow.extra import NOTHING, extras_of, forget_measures
from veilwatch.traffic.flow.fragments import expect, follow
from veilwatch.traffic.flow.heads import collect, continue_head, flush_head, is_ready, wanted
from veilwatch.traffic.flow.index import (
    choose,
    copy_flow,
    find,
    flow_hash,
    release_slot,
    side,
    take_slot,
    touch,
)
from veilwatch.traffic.flow.interim import AGE, MOST, REPORTS, Interim, report, report_is_due
from veilwatch.traffic.flow.state import (
    BASE,
    CLOSING,
    DUPLICATES,
    ENTRIES,
    EVICTED,
    FREE,
    HEADS_OUT,
    JUDGED,
    KIND,
    MAX_ENTRIES,
    NEXT_ID,
    NIL,
    OPEN,
    OPENED,
    OUT,
    SEEN,
    TIME,
    State,
)
from veilwatch.traffic.flow.stream import ACK, ANCHORED, ASIDE, SYN, UNKNOWN, opens_stream
from veilwatch.traffic.flow.tunnel import BARE, NONE, adopt, pair_of, session_of, tunnel_of
from veilwatch.traffic.flow.turn import is_turned, turn
from veilwatch.traffic.flow.update import TCP, show_tunnel, update
from veilwatch.traffic.packet_time import (
    AGREE,
    BEGAN,
    CANDIDATE,
    CELLS,
    CONFIRM,
    DOUBTED,
    FAR_NS,
    NOW,
    SHIFT,
    STEADY,
    SURE,
    TURNED,
    believe,
    judge,
)

_OK = int(Status.OK)
_LATER_FRAGMENT = int(Status.LATER_FRAGMENT)
_IDLE = int(EndReason.IDLE)
_ACTIVE = int(EndReason.ACTIVE)
_CLOSED = int(EndReason.CLOSED)
_EVICTED = int(EndReason.EVICTED)
_END = int(EndReason.END)
_REUSED = int(EndReason.REUSED)
_FINS = TcpState.FIN_FWD | TcpState.FIN_BWD
_RST_BIT = TcpState.RST
_SYN_BIT = TcpState.SYN
_SYN_ACK_BIT = TcpState.SYN_ACK
_MIDSTREAM_BIT = TcpState.MIDSTREAM
_NONE8 = NONE8

MAX_HEADS_PER_PACKET: Final = 3
"""One packet can end a flow with its head, take the buffer of another one, and fill its own."""


class Timeouts(NamedTuple):
    """Timeouts in ns, as the kernel takes them."""

    idle: int
    active: int
    linger: int


@inner_kernel
def has_room(state: State) -> Any:
    """Whether the outputs can take one more flow and all heads that one packet may finish."""
    return state.counters[OUT] < len(state.out_flows) and state.counters[
        HEADS_OUT
    ] + MAX_HEADS_PER_PACKET <= len(state.out_heads)


@inner_kernel
def emit(state: State, slot: Any, reason: Any) -> Any:
    """Copy a flow to the output."""
    flush_head(state, slot)
    out = state.counters[OUT]
    flow = state.flows[slot]
    flow.end_reason = reason
    copy_flow(state, slot, state.out_words, state.out_sequences, out)
    state.counters[OUT] += 1


@inner_kernel
def end(state: State, slot: Any, reason: Any) -> Any:
    """Emit a flow and forget it."""
    emit(state, slot, reason)
    release_slot(state, slot)


@inner_kernel
def is_over(flow: Any, which: Any, now: Any, timeouts: Any) -> Any:
    """Whether a flow of the age list `which` has ended by the time `now`.

    A clock that was set back by more than the timeout (captures that were joined) ends a flow too:
    waiting for the old time to come again would keep it for ever.
    """
    limit = timeouts.linger if which == CLOSING else timeouts.idle
    return abs(now - flow.last_ns) > limit


@inner_kernel
def is_due(flows: Any, ends: Any, now: Any, timeouts: Any) -> Any:
    """Whether the flow that has been silent longest is over."""
    closing, silent = ends[CLOSING, 0], ends[OPEN, 0]
    return (closing != NIL and is_over(flows[closing], CLOSING, now, timeouts)) or (
        silent != NIL and is_over(flows[silent], OPEN, now, timeouts)
    )


@inner_kernel
def expire(state: State, now: Any, timeouts: Any) -> Any:
    """End flows that are over, the longest silent first; False when an output is full."""
    for which in (CLOSING, OPEN):
        slot = state.ends[which, 0]
        while slot != NIL and is_over(state.flows[slot], which, now, timeouts):
            if not has_room(state):
                return False
            end(state, slot, _CLOSED if which == CLOSING else _IDLE)
            slot = state.ends[which, 0]
    return True


@inner_kernel
def believed_time(counters: Any, cells: Any, time: Any, near: Any, flows: Any, slots: Any) -> Any:
    """Judge a packet's time; return what it is, and the time by which the packet is metered.

    A far stamp that is doubted does not enter a flow: its packet is metered at the meter's time,
    and packets of one doubted run as far apart as their stamps are. If the run is confirmed, the
    flows that it opened are moved to where it lies.
    """
    young = cells[SURE] < CONFIRM
    kind = judge(cells, time, near)
    if kind == STEADY:
        counters[BASE] = counters[OPENED]
        if cells[SURE] == CONFIRM:
            counters[OPENED] = counters[BASE] = 0
        return kind, time
    if cells[BEGAN]:
        if not young:
            counters[OPENED] = 0
        counters[BASE] = counters[OPENED]
    if kind == TURNED:
        move_opened(counters, 0 if young else counters[BASE], cells[SHIFT], flows, slots)
        if cells[SURE] == CONFIRM or cells[SHIFT] == 0:
            counters[OPENED] = 0
        counters[BASE] = counters[OPENED]
        return kind, time
    return kind, max(time - cells[SHIFT], np.int64(0))


@inner_kernel
def note_opened(counters: Any, cells: Any, slot: Any, flow_id: Any, kind: Any) -> Any:
    """Remember a flow whose times may have to be moved: one of a doubted run, or of the start."""
    if kind == DOUBTED:
        wanted = cells[SHIFT] != 0
    else:
        wanted = cells[SURE] < CONFIRM
    at = counters[OPENED]
    if not wanted or at == MAX_ENTRIES:
        return
    counters[ENTRIES + 2 * at] = slot
    counters[ENTRIES + 2 * at + 1] = flow_id
    counters[OPENED] = at + 1
    if kind != DOUBTED:
        counters[BASE] = at + 1


@inner_kernel
def move_opened(counters: Any, start: Any, shift: Any, flows: Any, slots: Any) -> Any:
    """Move the times of the remembered flows from entry `start` on, as far as they live."""
    for k in range(start, counters[OPENED]):
        slot = counters[ENTRIES + 2 * k]
        flow = flows[slot]
        if slots[slot].hash == 0 or flow.flow_id != counters[ENTRIES + 2 * k + 1]:
            continue
        own = max(shift, -flow.first_ns)  # no time lies before the epoch
        flow.first_ns += own
        flow.last_ns += own
        for direction in range(2):
            if flow.way[direction].packets > 0:
                flow.start[direction].dir_first_ns += own
                flow.way[direction].dir_last_ns += own


@inner_kernel
def evict(state: State) -> Any:
    """End the flow that is missed least: the oldest closing one, else the longest silent one."""
    slot = state.ends[CLOSING, 0]
    if slot == NIL:
        slot = state.ends[OPEN, 0]
    end(state, slot, _EVICTED)
    state.counters[EVICTED] += 1


@inner_kernel
def identify(flow: Any, packet: Any, reverse: Any) -> Any:
    """Write the identity of a new flow from its first packet."""
    if reverse:
        flow.src_hi = packet.dst_hi
        flow.src_lo = packet.dst_lo
        flow.dst_hi = packet.src_hi
        flow.dst_lo = packet.src_lo
        flow.src_port = packet.dst_port
        flow.dst_port = packet.src_port
    else:
        flow.src_hi = packet.src_hi
        flow.src_lo = packet.src_lo
        flow.dst_hi = packet.dst_hi
        flow.dst_lo = packet.dst_lo
        flow.src_port = packet.src_port
        flow.dst_port = packet.dst_port
    flow.protocol = packet.protocol
    flow.ip_version = packet.ip_version
    flow.icmp_type = packet.icmp_type
    flow.icmp_code = packet.icmp_code
    show_end_points(flow, packet, reverse)


@inner_kernel
def show_end_points(flow: Any, packet: Any, reverse: Any) -> Any:
    """Take over the tunnel around a packet, seen from the initiator."""
    flow.gtp_depth = packet.gtp_depth
    if reverse:
        flow.outer_src_hi = packet.outer_dst_hi
        flow.outer_src_lo = packet.outer_dst_lo
        flow.outer_dst_hi = packet.outer_src_hi
        flow.outer_dst_lo = packet.outer_src_lo
    else:
        flow.outer_src_hi = packet.outer_src_hi
        flow.outer_src_lo = packet.outer_src_lo
        flow.outer_dst_hi = packet.outer_dst_hi
        flow.outer_dst_lo = packet.outer_dst_lo


@inner_kernel
def start(flow: Any, packet: Any, counters: Any) -> Any:
    """Give a new record its times, number and place."""
    flow.first_ns = packet.ts_ns
    flow.last_ns = packet.ts_ns
    flow.first_number = packet.number
    flow.source = packet.source
    flow.flow_id = counters[NEXT_ID]
    counters[NEXT_ID] += 1
    flow.burst_direction = 2


@inner_kernel
def open_flow(state: State, packet: Any, key: Any, tunnel: Any, pair: Any) -> Any:
    """Make a flow for a packet that belongs to none; return (slot, direction of the packet)."""
    slot = take_slot(state, key)
    clear_run(state.flow_words[slot], 0, state.flow_words.shape[1])
    flow = state.flows[slot]
    flags = packet.tcp_flags
    syn = packet.protocol == TCP and flags & SYN != 0
    # Only a responder sends SYN+ACK, so its receiver is the initiator even when the SYN was missed.
    reverse = syn and flags & ACK != 0
    identify(flow, packet, reverse)
    start(flow, packet, state.counters)
    flow.parent_id = flow.flow_id
    for direction in range(2):
        begun = flow.start[direction]
        begun.wscale = _NONE8
        begun.qfi = _NONE8
        begun.gtp_pdu_type = _NONE8
    if reverse:
        flow.syn_seq = np.uint32((np.int64(packet.tcp_ack) - 1) & 0xFFFFFFFF)
    elif syn:
        flow.syn_seq = packet.tcp_seq
    elif packet.protocol == TCP:
        flow.tcp_state = _MIDSTREAM_BIT
    direction = 1 if reverse else 0
    if packet.protocol == TCP and flags & ACK:
        flow.start[1 - direction].base_seq = packet.tcp_ack  # by which a late SYN is known
    flow.pair = pair
    flow.way[direction].tunnel = tunnel
    # Outside tunnels the way back is known; of a tunnel's it is learned.
    flow.way[1 - direction].tunnel = BARE if tunnel == BARE else NONE
    state.slots[slot].head_done = 0
    return slot, direction


@inner_kernel
def continue_flow(state: State, slot: Any, packet: Any) -> Any:
    """Start the next record of a long flow, after the last one was emitted.

    It keeps what belongs to the connection: identity, direction, tunnels, TCP state, sequence
    numbers and what the connection opened with. The measures start anew.
    """
    old = state.out_flows[state.counters[OUT] - 1]
    clear_run(state.flow_words[slot], 0, state.flow_words.shape[1])
    flow = state.flows[slot]
    flow.src_hi, flow.src_lo = old.src_hi, old.src_lo
    flow.dst_hi, flow.dst_lo = old.dst_hi, old.dst_lo
    flow.src_port, flow.dst_port = old.src_port, old.dst_port
    flow.session = old.session
    flow.pair, flow.alternate = old.pair, old.alternate
    flow.outer_src_hi, flow.outer_src_lo = old.outer_src_hi, old.outer_src_lo
    flow.outer_dst_hi, flow.outer_dst_lo = old.outer_dst_hi, old.outer_dst_lo
    flow.protocol = old.protocol
    flow.ip_version = old.ip_version
    flow.icmp_type = old.icmp_type
    flow.icmp_code = old.icmp_code
    flow.gtp_depth = old.gtp_depth
    flow.parent_id = old.parent_id
    flow.tcp_state = old.tcp_state
    flow.syn_seq = old.syn_seq
    flow.turned = old.turned
    flow.extra = old.extra
    for direction in range(2):
        way, before = flow.way[direction], old.way[direction]
        way.seq_known = ANCHORED if before.seq_known else UNKNOWN
        way.next_seq = before.next_seq
        way.tunnel = before.tunnel
        way.moved = before.moved
        way.first_payload = before.first_payload
        way.prefix_used = before.prefix_used
        way.ip_id = before.ip_id
        way.id_changes = before.id_changes
        way.id_repeats = before.id_repeats
        begun, opening = flow.start[direction], old.start[direction]
        begun.base_seq = opening.base_seq
        begun.fin_seq = opening.fin_seq
        begun.vlan = opening.vlan
        begun.teid = opening.teid
        begun.qfi = opening.qfi
        begun.gtp_pdu_type = opening.gtp_pdu_type
        begun.mss = opening.mss
        begun.wscale = opening.wscale
        begun.prefix_skip = opening.prefix_skip
        copy_run(begun.prefix, 0, opening.prefix, 0, PREFIX_BYTES)
    if flow.extra != NOTHING:
        forget_measures(state.extras[flow.extra])
    start(flow, packet, state.counters)


@inner_kernel
def is_reuse(flow: Any, direction: Any, packet: Any) -> Any:
    """Whether a packet opens a new connection on the 5-tuple of a flow that is known.

    A SYN does, unless it repeats the one that opened the flow (a refused attempt is made again
    with the same number), comes late to a flow that was seen without it, or both sides open at
    once (RFC 9293 cl. 3.5).
    """
    if packet.protocol != TCP or packet.tcp_flags & (SYN | ACK) != SYN:
        return False
    state = np.int64(flow.tcp_state)
    if state & _SYN_BIT == 0 and (state & _MIDSTREAM_BIT or direction == 0):
        return not opens_stream(flow, direction, packet)
    if direction == 1:
        return flow.tcp_state & (_SYN_ACK_BIT | _FINS | _RST_BIT) != 0
    return flow.syn_seq != packet.tcp_seq


@inner_kernel
def is_closed(flow: Any) -> Any:
    """Whether both sides have sent FIN, or one RST."""
    return flow.tcp_state & _FINS == _FINS or flow.tcp_state & _RST_BIT != 0


@inner_kernel
def count_copy(counters: Any, flow: Any, packet: Any, pair: Any) -> Any:
    """Count a packet that was metered before, and learn from the other place where it was seen."""
    counters[DUPLICATES] += 1
    direction = side(flow, packet)
    if direction < 0:
        return
    packet.flow_id = flow.flow_id
    flow.way[direction].duplicates += np.uint32(1)
    if pair != flow.pair and flow.alternate == NONE:
        flow.alternate = pair
    if packet.gtp_depth != 0:
        if flow.start[direction].teid == 0:
            show_tunnel(flow, direction, packet)
        if flow.gtp_depth == 0:
            show_end_points(flow, packet, direction == 1)


@kernel
def meter_block(
    state: State,
    early: Interim,
    buffer: Any,
    packets: Any,
    begin: Any,
    seed: Any,
    timeouts: Any,
    bound: Any,
    sessions: Any,
) -> Any:
    """Meter packets from row `begin` on.

    Parameters
    ----------
    early
        When live flows are reported, and where to.
    bound, sessions
        Tunnels that control traffic announced, and their sessions: see `tunnel.session_store`.

    Returns
    -------
    int
        Row of the first packet that was not taken because an output is full; `len(packets)`
        when all were. `ts_ns` of those that were is the time by which they were metered.
    """
    flows, slots, buckets, ends = state.flows, state.slots, state.buckets, state.ends
    sequences, counters = state.sequences, state.counters
    partners, pool, seen, extras = state.partners, state.pool, state.seen, extras_of(state)
    most_flows = len(state.out_flows)
    most_heads = len(state.out_heads) - MAX_HEADS_PER_PACKET
    counts, used, most_early = early.counts, early.used, len(early.flows)
    most, age = early.limits[MOST], early.limits[AGE]
    controlled = len(sessions) > 0
    near = np.int64(timeouts.idle)
    cells = counters[TIME : TIME + CELLS]
    for i in range(begin, len(packets)):
        packet = packets[i]
        later = packet.status == _LATER_FRAGMENT
        if packet.status != _OK and not later:
            continue
        if used[REPORTS] == most_early:
            return i
        if counters[JUDGED]:
            counters[JUDGED] = 0
            kind = counters[KIND]
        else:
            kind, time = believed_time(counters, cells, packet.ts_ns, near, flows, slots)
            packet.ts_ns = time
        if later:
            follow(state, early, buffer, packet)
            continue
        now = packet.ts_ns
        due = kind != DOUBTED and is_due(flows, ends, now, timeouts)
        full = due and not expire(state, now, timeouts)
        if full or counters[OUT] == most_flows or counters[HEADS_OUT] > most_heads:
            counters[JUDGED] = 1
            counters[KIND] = kind
            return i

        wide, here, there = tunnel_of(packet, seed)
        tunnel, pair = np.uint32(wide), pair_of(wide, here, there)
        session = np.int64(0)
        if controlled and tunnel != BARE:
            session = session_of(bound, sessions, wide)
        key = flow_hash(packet, seed)

        value = dedup.content(buffer, packet, key)
        memory = seen[np.int64(value & np.uint64(SEEN - 1))]
        repeated = False
        if memory.content == value and slots[memory.slot].hash != 0:
            flow = flows[memory.slot]
            direction = side(flow, packet)
            if direction >= 0 and np.uint16(flow.parent_id) == memory.parent:
                if dedup.is_copy(memory, flow.way[direction], packet, wide, here, there):
                    count_copy(counters, flow, packet, pair)
                    continue
                repeated = True

        slot, direction = find(buckets, slots, flows, packet, key, tunnel, session)
        surplus = np.int32(NIL)
        if slot == NIL:
            slot, direction, surplus = choose(state, packet, key, tunnel, pair, session)
        if slot != NIL:
            flow = flows[slot]
            which = slots[slot].list
            if is_over(flow, which, now, timeouts):
                end(state, slot, _CLOSED if which == CLOSING else _IDLE)
                slot = np.int32(NIL)
            elif is_reuse(flow, direction, packet):
                end(state, slot, _REUSED)
                slot = np.int32(NIL)
            elif now - flow.first_ns > timeouts.active:
                emit(state, slot, _ACTIVE)
                continue_flow(state, slot, packet)
            if slot != NIL and is_turned(flow, direction, packet):
                turn(state, slot)
                direction = 1 - direction
        elif surplus != NIL:
            end(state, surplus, _EVICTED)
            counters[EVICTED] += 1
        if slot == NIL:
            if counters[FREE] == 0:
                evict(state)
            slot, direction = open_flow(state, packet, key, tunnel, pair)
            note_opened(counters, cells, slot, flows[slot].flow_id, kind)

        flow = flows[slot]
        packet.flow_id = flow.flow_id
        if session != 0:
            flow.session = session
        if flow.way[direction].tunnel != tunnel or flow.pair != pair:
            adopt(flow, direction, tunnel, pair, partners)
        dedup.learn(flow.way[direction], packet, repeated)
        dedup.remember(memory, flow, packet, value, wide, here, there, slot)
        if packet.fragment_key != 0:
            expect(state, slot, direction, packet)
        before = flow.last_ns
        kind = update(flow, extras, sequences[slot], direction, buffer, packet)
        row = slots[slot]
        if packet.payload_length > 0 and row.head_done == 0 and kind < ASIDE:
            if (
                packet.payload_captured > 0
                and wanted(row, flow, direction, buffer, packet, kind)
                and not continue_head(pool, row, direction, buffer, packet)
            ):
                collect(state, slot, direction, buffer, packet, kind)
            if is_ready(pool, row, flow, direction, buffer, packet):
                flush_head(state, slot)
        touch(slots, ends, slot, CLOSING if is_closed(flow) else OPEN)
        if report_is_due(flow, before, counts, most, age):
            report(state, early, slot)
    return len(packets)


@kernel
def flush(state: State, timeouts: Any) -> bool:
    """End every flow, in the order in which they fell silent; False when an output is full.

    Nothing comes that could still confirm a doubted time: one that a quiet capture may well reach
    is believed, a far one if a second stamp agrees.
    """
    counters = state.counters
    cells = counters[TIME : TIME + CELLS]
    if cells[AGREE] > 0 and (cells[SHIFT] == 0 or cells[AGREE] > 1):
        move_opened(counters, counters[BASE], cells[SHIFT], state.flows, state.slots)
        counters[OPENED] = counters[BASE] = 0
        believe(cells, cells[CANDIDATE], CONFIRM)
    if cells[SURE] > 0 and not expire(state, cells[NOW], timeouts):
        return False
    while True:
        slot = state.ends[CLOSING, 0]
        other = state.ends[OPEN, 0]
        if slot == NIL or (other != NIL and state.flows[other].last_ns < state.flows[slot].last_ns):
            slot = other
        if slot == NIL:
            clear_run(cells, 0, CELLS)
            return True
        if not has_room(state):
            return False
        end(state, slot, _CLOSED if state.slots[slot].list == CLOSING else _END)


@kernel
def advance(state: State, now: Any, timeouts: Any) -> Any:
    """End flows that are over by a time that no packet tells; False when an output is full."""
    counters = state.counters
    cells = counters[TIME : TIME + CELLS]
    if cells[AGREE] > 0 and abs(now - cells[CANDIDATE]) <= FAR_NS:
        move_opened(counters, counters[BASE], cells[SHIFT], state.flows, state.slots)
    counters[OPENED] = counters[BASE] = 0
    believe(cells, now, CONFIRM)
    return expire(state, now, timeouts)
