"""Keeping the first stream bytes of flows that begin like a handshake.

A TCP stream is kept from its first TLS handshake record on (or from PROXY headers before it; the
start may lie behind a proxy or STARTTLS dialogue), placed by sequence number; of UDP the datagrams
are kept that `datagrams` wants, one behind another. A byte that was seen is never overwritten by
another copy of it.

Segments come in any order, and the first may be a byte long. So a buffer is also taken on a guess:
where the first bytes fit as far as they go; where bytes before the payload are missing, for it to
begin with what will fill the hole; and where a stream is seen from an unknown byte on, which may be
its second segment's. The guess is settled by the first six bytes in the order of the stream, and
the buffer given back where they are no handshake's.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from veilwatch.jit import inner_kernel
from veilwatch.schema.flows import HEAD_BYTES, PREFIX_BYTES
from veilwatch.traffic.flow.copying import clear_run, copy_run
from veilwatch.traffic.flow.datagrams import (
    carries_datagrams,
    extend_datagram,
    is_answered,
    is_late,
    keep_datagram,
    wants_datagram,
)
from veilwatch.traffic.flow.extra import extras_of, missed
from veilwatch.traffic.flow.index import append, unlink
from veilwatch.traffic.flow.opening import MAYBE, NO, YES, is_other_record, opening, proxy_headers
from veilwatch.traffic.flow.state import (
    COLLECTING,
    DATA_OUT,
    HEADS_CUT,
    HEADS_FREE,
    HEADS_OUT,
    NIL,
    State,
)
from veilwatch.traffic.flow.stream import (
    AHEAD,
    ANCHORED,
    SEEN,
    clear_prefix,
    data_seq,
    hole_before,
    place_prefix,
    seq_after,
    seq_distance,
)
from veilwatch.traffic.flow.update import TCP

START_WITHIN_PACKETS: Final = 16
"""A handshake of TLS must begin within this many payload packets of its direction."""

READY_AFTER_PACKETS: Final = 32
"""A head of TLS is handed on after this many payload packets of the flow: a handshake is over by
then, and its buffer is wanted elsewhere."""

READY_AT_LAST: Final = 1024
"""The same where a hello comes without a hole and is still not whole: only in segments of a few
bytes, which is a way to hide its server name."""

GUESS_PACKETS: Final = 4
"""A guess that begins with an unknown byte of its stream is given up after this many payload
packets of its direction: those of a hello with a post-quantum key share are two or three."""


@inner_kernel
def place(head: Any, buffer: Any, offset: Any, captured: Any, position: Any) -> Any:
    """Put `captured` bytes at stream position `position` of a head, as far as it has room."""
    end = min(position + captured, HEAD_BYTES)
    shift = offset - position
    start = max(position, np.int64(head.length))
    if start >= end:
        return
    if start == head.length == head.reach:
        copy_run(head.bytes, start, buffer, shift + start, end - start)
        head.length = end
        head.reach = end
        return
    head.holed = 1
    for i in range(start, end):
        bit = np.uint8(1 << (i & 7))
        if head.known[i >> 3] & bit == 0:
            head.known[i >> 3] |= bit
            head.bytes[i] = buffer[shift + i]
    head.reach = max(np.int64(head.reach), end)
    length = np.int64(head.length)
    while length < head.reach and head.known[length >> 3] >> (length & 7) & 1:
        length += 1
    head.length = length


@inner_kernel
def shift(head: Any, distance: Any) -> Any:
    """Make room for `distance` bytes, fewer than a head holds, before its first one."""
    reach = min(np.int64(head.reach) + distance, HEAD_BYTES)
    head.holed = 1
    for i in range(reach - 1, -1, -1):
        before = i - distance
        bit = np.uint8(1 << (i & 7))
        if before >= 0 and (before < head.length or head.known[before >> 3] >> (before & 7) & 1):
            head.bytes[i] = head.bytes[before]
            head.known[i >> 3] |= bit
        else:
            head.known[i >> 3] &= ~bit
    head.length = 0
    head.reach = reach


@inner_kernel
def drop_start(head: Any, distance: Any) -> Any:
    """Let a head begin `distance` bytes later, at the first byte that it misses or before it."""
    length = np.int64(head.length)
    reach = np.int64(head.reach)
    head.holed = 1
    for i in range(reach):
        bit = np.uint8(1 << (i & 7))
        there = i + distance
        if there < length or (there < reach and head.known[there >> 3] >> (there & 7) & 1):
            head.bytes[i] = head.bytes[there]
            head.known[i >> 3] |= bit
        else:
            head.known[i >> 3] &= ~bit
    head.base = seq_after(head.base, distance)
    head.length = length - distance
    head.reach = reach - distance
    head.floating = 0


@inner_kernel
def empty(head: Any, sequence: Any, floating: Any) -> Any:
    """Let a head begin with the number `sequence`, without any byte."""
    head.base = sequence
    head.length = 0
    head.reach = 0
    head.sure = 0
    head.floating = floating
    if head.holed:
        clear_run(head.known, 0, len(head.known))
        head.holed = 0


@inner_kernel
def wanted(row: Any, flow: Any, direction: Any, buffer: Any, packet: Any, kind: Any) -> Any:
    """Whether a payload packet continues a head or may begin one."""
    if packet.protocol != TCP:
        return carries_datagrams(packet) and wants_datagram(row, direction, buffer, packet)
    if row.head[direction] == NIL and flow.way[direction].payload_packets > START_WITHIN_PACKETS:
        return False
    if row.head[direction] != NIL or kind == AHEAD:
        return True
    if flow.way[direction].seq_known == SEEN and flow.way[direction].payload_packets == 1:
        captured = np.int64(packet.payload_captured)
        return not is_other_record(buffer, packet.payload_offset, captured)
    return fits(flow, direction, buffer, packet) != NO


@inner_kernel
def payload_packets(flow: Any) -> Any:
    """Return how many packets of a flow had payload."""
    return np.int64(flow.way[0].payload_packets) + np.int64(flow.way[1].payload_packets)


@inner_kernel
def fits(flow: Any, direction: Any, buffer: Any, packet: Any) -> Any:
    """Whether a TCP payload begins a handshake; MAYBE also for PROXY headers before anything."""
    at_start = data_seq(packet) == flow.start[direction].base_seq
    captured = np.int64(packet.payload_captured)
    verdict = opening(buffer, packet.payload_offset, captured, at_start)
    if verdict == NO and at_start and proxy_headers(buffer, packet.payload_offset, captured) != 0:
        return MAYBE
    return verdict


@inner_kernel
def release(state: State, slot: Any, direction: Any) -> Any:
    """Give a direction's buffer back to the pool."""
    row = state.slots[slot]
    which = row.head[direction]
    unlink(state.pool, state.ends, which)
    state.pool_free[state.counters[HEADS_FREE]] = which
    state.counters[HEADS_FREE] += 1
    row.head[direction] = NIL


@inner_kernel
def is_sure(pool: Any, row: Any, direction: Any) -> Any:
    """Whether a direction has a head and no mere guess."""
    return row.head[direction] != NIL and pool[row.head[direction]].sure != 0


@inner_kernel
def begin(state: State, slot: Any, direction: Any, sequence: Any, guess: Any) -> Any:
    """Give a direction a buffer of the pool, whose first byte has the number `sequence`.

    For datagrams that is how many the flow has had.

    When all are in use, the flow that has had one for longest hands its head on as it is: a new
    handshake is worth more than the end of an old one. A guess takes a buffer only while three
    quarters of them are free: no flood of other traffic shall push handshakes out. False if there
    is none for it.
    """
    free = state.counters[HEADS_FREE]
    if guess and 4 * free <= 3 * len(state.pool):
        return False
    if free == 0:
        owner = state.pool[state.ends[COLLECTING, 0]].owner
        if is_sure(state.pool, state.slots[owner], 0) or is_sure(state.pool, state.slots[owner], 1):
            flush_head(state, owner)
            state.counters[HEADS_CUT] += 1
            if owner == slot:
                return False
        else:
            for side in range(2):
                if state.slots[owner].head[side] != NIL:
                    release(state, owner, side)
    state.counters[HEADS_FREE] -= 1
    which = state.pool_free[state.counters[HEADS_FREE]]
    state.slots[slot].head[direction] = which
    head = state.pool[which]
    empty(head, sequence, 0)
    head.owner = slot
    append(state.pool, state.ends, which, COLLECTING)
    return True


@inner_kernel
def continue_head(pool: Any, row: Any, direction: Any, buffer: Any, packet: Any) -> Any:
    """Put a TCP payload into a head that is no guess; False where there is none.

    What `collect` would do: most packets of a handshake need no more, and passing the whole State
    costs more than this.
    """
    if packet.protocol != TCP or not is_sure(pool, row, direction):
        return False
    head = pool[row.head[direction]]
    position = seq_distance(data_seq(packet), head.base)
    place(head, buffer, packet.payload_offset, np.int64(packet.payload_captured), position)
    return True


@inner_kernel
def collect(state: State, slot: Any, direction: Any, buffer: Any, packet: Any, kind: Any) -> Any:
    """Keep the bytes of a packet that is `wanted`."""
    if packet.protocol != TCP:
        row = state.slots[slot]
        if row.head[direction] == NIL:
            count = np.uint32(payload_packets(state.flows[slot]) & 0xFFFFFFFF)
            if not begin(state, slot, direction, count, False):
                return
            state.pool[row.head[direction]].sure = 1
        keep_datagram(state.pool[row.head[direction]], buffer, packet)
    elif make_room(state, slot, direction, buffer, packet, kind):
        captured = np.int64(packet.payload_captured)
        sequence = data_seq(packet)
        place_segment(state, slot, direction, buffer, packet.payload_offset, captured, sequence)


@inner_kernel
def make_room(state: State, slot: Any, direction: Any, buffer: Any, packet: Any, kind: Any) -> Any:
    """Make sure that a TCP payload has a head in which it lies where the stream has it."""
    flow = state.flows[slot]
    row = state.slots[slot]
    sequence = data_seq(packet)
    if row.head[direction] != NIL:
        head = state.pool[row.head[direction]]
        if head.sure == 0:
            behind = seq_distance(sequence, head.base)
            if behind > 0 and fits(flow, direction, buffer, packet) == YES:
                if behind != head.length or first_bytes(flow, direction, head) != MAYBE:
                    empty(head, sequence, 0)  # what came before was another dialogue
            elif behind < 0 and head.floating:
                if -behind < HEAD_BYTES:
                    shift(head, -behind)
                    head.base = sequence
                else:
                    empty(head, sequence, 1)
        return True
    verdict = fits(flow, direction, buffer, packet)
    if verdict == YES or (verdict == MAYBE and kind != AHEAD):
        if not begin(state, slot, direction, sequence, verdict != YES):
            return False
        first = flow.way[direction].seq_known == SEEN and flow.way[direction].payload_packets == 1
        state.pool[row.head[direction]].floating = 1 if first and verdict != YES else 0
        return True
    if kind == AHEAD:
        missing = hole_before(missed(flow, extras_of(state), direction), sequence)
        if missing == 0 or missing >= HEAD_BYTES:
            return False
        return begin(state, slot, direction, seq_after(sequence, -missing), True)
    if not begin(state, slot, direction, sequence, True):
        return False
    state.pool[row.head[direction]].floating = 1
    return True


@inner_kernel
def place_segment(
    state: State,
    slot: Any,
    direction: Any,
    buffer: Any,
    offset: Any,
    captured: Any,
    sequence: Any,
) -> Any:
    """Put bytes of a stream into its head, and settle whether it is one."""
    head = state.pool[state.slots[slot].head[direction]]
    position = seq_distance(sequence, head.base)
    place(head, buffer, offset, captured, position)
    if head.sure == 0 and head.length > 0:
        settle(state, slot, direction, position + captured)


@inner_kernel
def first_bytes(flow: Any, direction: Any, head: Any) -> Any:
    """Whether what a head holds begins a handshake."""
    at_start = head.base == flow.start[direction].base_seq
    return opening(head.bytes, np.int64(0), np.int64(head.length), at_start)


@inner_kernel
def settle(state: State, slot: Any, direction: Any, end: Any) -> Any:
    """Look at the first bytes of a guess: it becomes a head, is given back, or stays one.

    `end` is where the segment ends that was placed last: a dialogue before the handshake ends there
    too.
    """
    flow = state.flows[slot]
    head = state.pool[state.slots[slot].head[direction]]
    length = np.int64(head.length)
    at_start = head.base == flow.start[direction].base_seq
    if at_start:
        skip_proxy_headers(flow, direction, extras_of(state), head, length)
    verdict = first_bytes(flow, direction, head)
    if verdict == YES:
        head.sure = 1
    elif verdict == NO:
        settled = at_start and flow.way[direction].seq_known == ANCHORED
        late = flow.way[direction].payload_packets > GUESS_PACKETS
        if head.floating and not settled and not late:
            return
        # Another dialogue's, but what follows it has perhaps begun to come.
        verdict = NO
        if 0 < end < length:
            verdict = opening(head.bytes, end, length - end, False)
        if verdict != NO:
            drop_start(head, end)
            head.sure = 1 if verdict == YES else 0
        elif head.reach > length:
            drop_start(head, length)
        else:
            release(state, slot, direction)


@inner_kernel
def skip_proxy_headers(flow: Any, direction: Any, extras: Any, head: Any, length: Any) -> Any:
    """Let the first bytes that a flow is known by begin behind its PROXY headers."""
    skip = proxy_headers(head.bytes, np.int64(0), length)
    if np.int64(flow.start[direction].prefix_skip) < skip <= length:
        clear_prefix(flow, direction, extras)
        flow.start[direction].prefix_skip = skip
        kept = min(length - skip, PREFIX_BYTES)
        place_prefix(flow, direction, extras, head.bytes, skip, kept, np.int64(0))


@inner_kernel
def place_rest(
    state: State, slot: Any, direction: Any, buffer: Any, packet: Any, position: Any, sequence: Any
) -> Any:
    """Put the bytes of a later fragment into a head that is being collected.

    Parameters
    ----------
    position
        Where they lie in the payload of the segment or datagram that the first fragment began.
    sequence
        Sequence number of that payload's first byte.
    """
    which = state.slots[slot].head[direction]
    if which == NIL:
        return
    captured = np.int64(packet.payload_captured)
    if state.flows[slot].protocol != TCP:
        extend_datagram(state.pool[which], buffer, packet.payload_offset, captured, position)
    else:
        number = seq_after(sequence, position)
        place_segment(state, slot, direction, buffer, packet.payload_offset, captured, number)


@inner_kernel
def is_ready(pool: Any, row: Any, flow: Any, direction: Any, buffer: Any, packet: Any) -> Any:
    """Whether nothing more is expected of a flow's heads after `packet`."""
    count = payload_packets(flow)
    if packet.protocol != TCP and carries_datagrams(packet):
        return is_answered(pool, row, direction, buffer, packet) or is_late(pool, row, count)
    if count < READY_AFTER_PACKETS:
        return False
    if count >= READY_AT_LAST:
        return True
    return not (is_growing(pool, row, flow, 0) or is_growing(pool, row, flow, 1))


@inner_kernel
def is_growing(pool: Any, row: Any, flow: Any, direction: Any) -> Any:
    """Whether a direction's first TLS record has come without a hole, but not yet whole."""
    if not is_sure(pool, row, direction):
        return False
    head = pool[row.head[direction]]
    come = seq_distance(flow.way[direction].next_seq, head.base)
    if head.length != come or head.length >= HEAD_BYTES:
        return False
    start = np.int64(0)
    if head.base == flow.start[direction].base_seq:
        start = np.int64(flow.start[direction].prefix_skip)
    record = np.int64(head.bytes[start + 3]) << 8 | np.int64(head.bytes[start + 4])
    return head.length < start + 5 + record


@inner_kernel
def flush_head(state: State, slot: Any) -> Any:
    """Move a flow's heads to the output; the caller made sure that there is room.

    A flow's heads leave once: what it says later is no handshake. Guesses are given back.
    """
    row = state.slots[slot]
    row.head_done = 1
    for direction in range(2):
        if row.head[direction] != NIL and not is_sure(state.pool, row, direction):
            release(state, slot, direction)
    if row.head[0] == NIL and row.head[1] == NIL:
        return
    flow = state.flows[slot]
    out = state.out_heads[state.counters[HEADS_OUT]]
    out.flow_id = flow.parent_id
    out.first_ns = flow.first_ns
    out.src_port = flow.src_port
    out.dst_port = flow.dst_port
    out.protocol = flow.protocol
    for direction in range(2):
        start = state.counters[DATA_OUT]
        length = np.int64(0)
        if row.head[direction] != NIL:
            head = state.pool[row.head[direction]]
            length = np.int64(head.length)
            copy_run(state.out_data, start, head.bytes, 0, length)
            release(state, slot, direction)
        out.start[direction] = start
        out.length[direction] = length
        state.counters[DATA_OUT] += length
    state.counters[HEADS_OUT] += 1
