"""Keeping the first stream bytes of flows that begin like a handshake.

A TCP stream is kept from its first TLS handshake record on (the start may lie behind a proxy or
STARTTLS dialogue), placed by sequence number; of UDP the datagrams are kept that `datagrams` wants,
one behind another. A byte that was seen is never overwritten by another copy of it.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from veilwatch.flow.datagrams import (
    UDP,
    extend_datagram,
    is_answered,
    is_late,
    keep_datagram,
    wants_datagram,
)
from veilwatch.flow.index import append, unlink
from veilwatch.flow.state import (
    COLLECTING,
    DATA_OUT,
    HEADS_CUT,
    HEADS_FREE,
    HEADS_OUT,
    NIL,
    State,
)
from veilwatch.flow.update import SYN, TCP, seq_distance
from veilwatch.jit import inline_kernel
from veilwatch.schema.flows import HEAD_BYTES

START_WITHIN_PACKETS: Final = 16
"""A handshake of TLS must begin within this many payload packets of its direction."""

READY_AFTER_PACKETS: Final = 32
"""A head of TLS is handed on after this many payload packets of the flow: a handshake is over by
then, and its buffer is wanted elsewhere."""


@inline_kernel
def begins_tls(buffer: Any, offset: Any, captured: Any) -> Any:
    """Whether bytes begin a TLS record with a ClientHello or ServerHello (RFC 8446 cl. 5.1)."""
    if captured < 3:
        return False
    if buffer[offset] != 0x16 or buffer[offset + 1] != 0x03 or buffer[offset + 2] > 4:
        return False
    return captured < 6 or buffer[offset + 5] == 1 or buffer[offset + 5] == 2


@inline_kernel
def place(head: Any, buffer: Any, offset: Any, captured: Any, position: Any) -> Any:
    """Put `captured` bytes at stream position `position` of a head, as far as it has room."""
    end = min(position + captured, HEAD_BYTES)
    shift = offset - position
    start = max(position, np.int64(head.length))
    if start >= end:
        return
    if start == head.length == head.reach:
        for i in range(start, end):
            head.bytes[i] = buffer[shift + i]
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


@inline_kernel
def wanted(row: Any, flow: Any, direction: Any, buffer: Any, packet: Any) -> Any:
    """Whether a payload packet continues a head or begins one."""
    if packet.protocol == UDP:
        return wants_datagram(row, direction, buffer, packet)
    if row.head[direction] == NIL and flow.payload_packets[direction] > START_WITHIN_PACKETS:
        return False
    if packet.protocol != TCP:
        return False
    if row.head[direction] != NIL:
        return True
    return begins_tls(buffer, packet.payload_offset, np.int64(packet.payload_captured))


@inline_kernel
def payload_packets(flow: Any) -> Any:
    """Return how many packets of a flow had payload."""
    return np.int64(flow.payload_packets[0]) + np.int64(flow.payload_packets[1])


@inline_kernel
def begin(state: State, slot: Any, direction: Any, sequence: Any) -> Any:
    """Give a direction a buffer of the pool, whose first byte has the number `sequence`.

    For datagrams that is how many the flow has had.

    When all are in use, the flow that has had one for longest hands its head on as it is: a new
    handshake is worth more than the end of an old one. False if that was this very flow.
    """
    if state.counters[HEADS_FREE] == 0:
        owner = state.pool[state.ends[COLLECTING, 0]].owner
        hand_on(state, owner)
        state.counters[HEADS_CUT] += 1
        if owner == slot:
            return False
    state.counters[HEADS_FREE] -= 1
    which = state.pool_free[state.counters[HEADS_FREE]]
    state.slots[slot].head[direction] = which
    head = state.pool[which]
    head.base = sequence & 0xFFFFFFFF
    head.length = 0
    head.reach = 0
    head.owner = slot
    if head.holed:
        head.known[:] = 0
        head.holed = 0
    append(state.pool, state.ends, which, COLLECTING)
    return True


@inline_kernel
def collect(state: State, slot: Any, direction: Any, buffer: Any, packet: Any) -> Any:
    """Keep the bytes of a packet that is `wanted`."""
    row = state.slots[slot]
    # A SYN takes the sequence number before its payload (RFC 9293 cl. 3.4, RFC 7413).
    sequence = np.int64(packet.tcp_seq) + (1 if packet.tcp_flags & SYN else 0)
    if packet.protocol == UDP:
        sequence = payload_packets(state.flows[slot])
    if row.head[direction] == NIL and not begin(state, slot, direction, sequence):
        return
    head = state.pool[row.head[direction]]
    captured = np.int64(packet.payload_captured)
    if packet.protocol == UDP:
        keep_datagram(head, buffer, packet)
    else:
        position = seq_distance(sequence, head.base)
        place(head, buffer, packet.payload_offset, captured, position)


@inline_kernel
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
    head = state.pool[which]
    captured = np.int64(packet.payload_captured)
    if state.flows[slot].protocol == UDP:
        extend_datagram(head, buffer, packet.payload_offset, captured, position)
    else:
        position += seq_distance(sequence, head.base)
        place(head, buffer, packet.payload_offset, captured, position)


@inline_kernel
def is_ready(pool: Any, row: Any, flow: Any, direction: Any, buffer: Any, packet: Any) -> Any:
    """Whether nothing more is expected of a flow's heads after `packet`."""
    count = payload_packets(flow)
    if packet.protocol == UDP:
        return is_answered(pool, row, direction, buffer, packet) or is_late(pool, row, count)
    return count >= READY_AFTER_PACKETS


@inline_kernel
def hand_on(state: State, slot: Any) -> Any:
    """Move a flow's heads to the output; the caller made sure that there is room.

    A flow's heads leave once: what it says later is no handshake.
    """
    row = state.slots[slot]
    row.head_done = 1
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
        which = row.head[direction]
        start = state.counters[DATA_OUT]
        length = np.int64(0)
        if which != NIL:
            head = state.pool[which]
            length = np.int64(head.length)
            state.out_data[start : start + length] = head.bytes[:length]
            unlink(state.pool, state.ends, which)
            state.pool_free[state.counters[HEADS_FREE]] = which
            state.counters[HEADS_FREE] += 1
            row.head[direction] = NIL
        out.start[direction] = start
        out.length[direction] = length
        state.counters[DATA_OUT] += length
    state.counters[HEADS_OUT] += 1
