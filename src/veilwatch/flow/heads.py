"""Keeping the first stream bytes of flows that begin like a handshake.

A TCP stream is kept from its first TLS handshake record on (the start may lie behind a proxy or
STARTTLS dialogue), placed by sequence number with one stretch past a hole remembered; of UDP the
first datagram of each direction is kept when it is DNS or QUIC.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from veilwatch.flow.state import (
    DATA_OUT,
    HEADS_FREE,
    HEADS_MISSED,
    HEADS_OUT,
    NIL,
    State,
)
from veilwatch.flow.update import TCP, seq_distance
from veilwatch.jit import inline_kernel
from veilwatch.schema.flows import HEAD_BYTES

START_WITHIN_PACKETS: Final = 16
"""A handshake must begin within this many payload packets of its direction."""

READY_AFTER_PACKETS: Final = 32
"""A head is handed on after this many payload packets of the flow: a handshake is over by then,
and its buffer is wanted elsewhere."""

UDP: Final = 17


@inline_kernel
def begins_tls(buffer, offset, captured):  # type: ignore[no-untyped-def]
    """Whether bytes begin a TLS record with a ClientHello or ServerHello (RFC 8446 cl. 5.1)."""
    if captured < 3:
        return False
    if buffer[offset] != 0x16 or buffer[offset + 1] != 0x03 or buffer[offset + 2] > 4:
        return False
    return captured < 6 or buffer[offset + 5] == 1 or buffer[offset + 5] == 2


@inline_kernel
def is_dns_port(port):  # type: ignore[no-untyped-def]
    """Whether `port` belongs to DNS, mDNS or LLMNR."""
    return port in (53, 5353, 5355)


@inline_kernel
def begins_datagram(buffer, packet):  # type: ignore[no-untyped-def]
    """Whether a datagram is worth keeping: DNS by port, or a QUIC long header (RFC 8999 cl. 5.1)."""
    if is_dns_port(packet.src_port) or is_dns_port(packet.dst_port):
        return packet.payload_captured >= 12
    if packet.payload_captured < 20 or packet.payload_length < 200:
        return False
    first = buffer[packet.payload_offset]
    # gQUIC up to Q043 sets the version flag (0x01) and not the long-header bit.
    return first & 0x80 != 0 or (first & 0x08 != 0 and buffer[packet.payload_offset + 9] == 0x51)


@inline_kernel
def place(head, buffer, offset, captured, position):  # type: ignore[no-untyped-def]
    """Copy `captured` bytes to stream position `position` of a head, as far as it has room."""
    if position < 0 or position >= HEAD_BYTES:
        return
    end = min(position + captured, HEAD_BYTES)
    if position > head.length:
        # Past a hole: remember one stretch; a second hole has to wait for a retransmission.
        if head.later_end != 0 and position != head.later_end:
            return
        if head.later_end == 0:
            head.later_start = position
        head.later_end = end
    for i in range(end - position):
        head.bytes[position + i] = buffer[offset + i]
    if position <= head.length:
        head.length = max(head.length, end)
        if head.later_end != 0 and head.later_start <= head.length:
            head.length = max(head.length, head.later_end)
            head.later_start = 0
            head.later_end = 0


@inline_kernel
def wanted(row, flow, direction, buffer, packet):  # type: ignore[no-untyped-def]
    """Whether a payload packet continues a head or begins one."""
    if row.head[direction] != NIL:
        return packet.protocol == TCP
    if flow.payload_packets[direction] > START_WITHIN_PACKETS:
        return False
    if packet.protocol == TCP:
        return begins_tls(buffer, packet.payload_offset, np.int64(packet.payload_captured))
    return packet.protocol == UDP and begins_datagram(buffer, packet)


@inline_kernel
def collect(state: State, slot, direction, buffer, packet):  # type: ignore[no-untyped-def]
    """Keep the bytes of a packet that is `wanted`."""
    row = state.slots[slot]
    captured = np.int64(packet.payload_captured)
    which = row.head[direction]
    if which == NIL:
        if state.counters[HEADS_FREE] == 0:
            state.counters[HEADS_MISSED] += 1
            return
        state.counters[HEADS_FREE] -= 1
        which = state.pool_free[state.counters[HEADS_FREE]]
        row.head[direction] = which
        head = state.pool[which]
        head.base = packet.tcp_seq
        head.length = 0
        head.later_start = 0
        head.later_end = 0
    head = state.pool[which]
    position = seq_distance(packet.tcp_seq, head.base)
    place(head, buffer, packet.payload_offset, captured, position)


@inline_kernel
def hand_on(state: State, slot):  # type: ignore[no-untyped-def]
    """Move a flow's heads to the output; the caller made sure that there is room."""
    row = state.slots[slot]
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
        out.start[direction] = state.counters[DATA_OUT]
        out.length[direction] = 0
        if which != NIL:
            head = state.pool[which]
            start = state.counters[DATA_OUT]
            for i in range(head.length):
                state.out_data[start + i] = head.bytes[i]
            out.length[direction] = head.length
            state.counters[DATA_OUT] += head.length
            state.pool_free[state.counters[HEADS_FREE]] = which
            state.counters[HEADS_FREE] += 1
            row.head[direction] = NIL
    state.counters[HEADS_OUT] += 1
    row.head_done = 1
