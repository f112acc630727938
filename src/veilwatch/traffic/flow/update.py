"""What one packet changes in its flow."""

from __future__ import annotations

from typing import Any

import numpy as np

from veilwatch.jit import inner_kernel
from veilwatch.schema.flows import GAP_EDGES_NS, PREFIX_BYTES, SIZE_EDGES, TcpState
from veilwatch.schema.units import MICROSECOND_NS, SECOND_NS
from veilwatch.traffic.flow.file_sharing import count_file_message
from veilwatch.traffic.flow.stream import (
    ACK,
    FILLS,
    FIN,
    NEW,
    PROBE,
    RST,
    SYN,
    advance_stream,
    data_seq,
    opens_stream,
    pass_fin,
    place_prefix,
    prefix_position,
    receive,
)

PAUSE_NS = SECOND_NS
MAX_GAP_US = 0xFFFFFFFF

TCP = 6

_SIZE_EDGES = np.array(SIZE_EDGES, np.int64)
_GAP_EDGES = np.array(GAP_EDGES_NS, np.int64)
_SYN_BIT = TcpState.SYN
_SYN_ACK_BIT = TcpState.SYN_ACK
_ESTABLISHED_BIT = TcpState.ESTABLISHED
_FIN_FWD_BIT = TcpState.FIN_FWD
_RST_BIT = TcpState.RST
_ENDS = TcpState.FIN_FWD | TcpState.FIN_BWD | TcpState.RST
_MIDSTREAM_BIT = TcpState.MIDSTREAM


@inner_kernel
def bin_of(edges: Any, value: Any) -> Any:
    """Return the index of the last edge that is not above `value`; the first lies below any.

    All are compared, without a branch: where a value falls cannot be foretold.
    """
    k = np.int64(0)
    for i in range(1, len(edges)):
        k += value >= edges[i]
    return k


@inner_kernel
def update_time(flow: Any, direction: Any, now: Any) -> Any:
    """Update gaps and pauses; return the gap to the flow's previous packet in ns."""
    way = flow.way[direction]
    gap_flow = np.int64(0)
    if way.packets + flow.way[1 - direction].packets > 0:
        gap_flow = max(np.int64(0), now - flow.last_ns)
        if gap_flow > PAUSE_NS:
            flow.burst_bytes = np.uint64(0)
            seconds = gap_flow / SECOND_NS
            flow.pauses += np.uint32(1)
            flow.pause_sum += seconds
            flow.pause_sumsq += seconds * seconds
    if way.packets > 0:
        gap = max(np.int64(0), now - way.dir_last_ns)
        if way.packets == 1 or gap < way.gap_min_ns:
            way.gap_min_ns = gap
        if gap > way.gap_max_ns:
            way.gap_max_ns = gap
        seconds = gap / SECOND_NS
        way.gap_sumsq += seconds * seconds
        way.gap_counts[bin_of(_GAP_EDGES, gap)] += np.uint32(1)
    else:
        way.dir_last_ns = max(now, flow.first_ns)
        flow.start[direction].dir_first_ns = way.dir_last_ns
    # A packet that is older than its predecessor (reordering in the capture) moves no clock back.
    way.dir_last_ns = max(way.dir_last_ns, now)
    flow.last_ns = max(flow.last_ns, now)
    return gap_flow


@inner_kernel
def show_tunnel(flow: Any, direction: Any, packet: Any) -> Any:
    """Take over what a packet's tunnel tells about its direction."""
    begun = flow.start[direction]
    begun.teid = packet.gtp_teid
    begun.qfi = packet.gtp_qfi
    begun.gtp_pdu_type = packet.gtp_pdu_type


@inner_kernel
def update_size(flow: Any, direction: Any, packet: Any, payload: Any) -> Any:
    """Update counts and sizes of a packet that carries `payload` bytes of payload."""
    way = flow.way[direction]
    size = packet.ip_length
    if way.packets == 0:
        way.size_min = size
        flow.start[direction].ttl = packet.ttl
        flow.start[direction].vlan = packet.vlan
        if packet.gtp_depth != 0:
            show_tunnel(flow, direction, packet)
    way.packets += np.uint32(1)
    way.bytes += np.uint64(size)
    way.size_min = min(way.size_min, size)
    way.size_max = max(way.size_max, size)
    wide = np.float64(size)
    way.size_sumsq += wide * wide
    way.size_counts[bin_of(_SIZE_EDGES, np.int64(payload))] += np.uint32(1)
    if payload > 0:
        if way.first_payload == 0:
            way.first_payload = payload
        way.payload_packets += np.uint32(1)
        way.payload_bytes += np.uint64(payload)
        way.payload_max = max(way.payload_max, payload)
        wide = np.float64(payload)
        way.payload_sumsq += wide * wide


@inner_kernel
def update_burst(flow: Any, direction: Any, payload: Any) -> Any:
    """Update runs of payload packets in one direction; a pause has emptied `burst_bytes`."""
    if flow.burst_direction != direction:
        if flow.burst_direction != 2:
            flow.turns += np.uint32(1)
        flow.burst_direction = direction
        flow.burst_bytes = np.uint64(0)
    way = flow.way[direction]
    if flow.burst_bytes == 0:
        way.bursts += np.uint32(1)
    flow.burst_bytes += np.uint64(payload)
    way.burst_max_bytes = max(way.burst_max_bytes, flow.burst_bytes)


@inner_kernel
def update_tcp(flow: Any, direction: Any, extras: Any, packet: Any) -> Any:
    """Update flags, windows, state and stream; return what the payload is to the stream."""
    way = flow.way[direction]
    flags = np.int64(packet.tcp_flags)
    for bit in range(8):
        way.flag_counts[bit] += np.uint32(flags >> bit & 1)

    window = packet.tcp_window
    if way.packets == 0:
        flow.start[direction].window_first = window
        way.window_min = window
    way.window_min = min(way.window_min, window)
    way.window_max = max(way.window_max, window)
    way.window_sum += np.uint64(window)
    if window == 0 and not flags & RST:
        way.zero_windows += np.uint32(1)

    state = np.int64(flow.tcp_state)
    if flags & SYN:
        flow.start[direction].mss = packet.tcp_mss
        flow.start[direction].wscale = packet.tcp_wscale
        state = opened(flow, direction, packet, state)
    elif flags & (ACK | RST) == ACK and state & _SYN_ACK_BIT:
        state |= _ESTABLISHED_BIT
    if flags & FIN:
        state |= _FIN_FWD_BIT << direction
    if flags & RST:
        state |= _RST_BIT
    flow.tcp_state = state

    return advance_stream(flow, direction, extras, packet)


@inner_kernel
def opened(flow: Any, direction: Any, packet: Any, state: Any) -> Any:
    """Return a connection's state after a SYN or SYN-ACK, and note what it shows of its beginning.

    A flow that began without one is no longer midstream when its own comes late.
    """
    belongs = state & _MIDSTREAM_BIT and opens_stream(flow, direction, packet)
    if packet.tcp_flags & ACK:
        if belongs:
            state &= ~_MIDSTREAM_BIT
            flow.syn_seq = np.uint32((np.int64(packet.tcp_ack) - 1) & 0xFFFFFFFF)
        return state | _SYN_ACK_BIT
    if state & _SYN_BIT:
        # After a RST the attempt is made again: the flow is open once more.
        state &= ~_ENDS
    if belongs:
        state &= ~_MIDSTREAM_BIT
    if direction == 0:
        flow.syn_seq = packet.tcp_seq
    return state | _SYN_BIT


@inner_kernel
def update_prefix(flow: Any, direction: Any, extras: Any, buffer: Any, packet: Any) -> Any:
    """Keep the first payload bytes of a direction, those of TCP where they lie in the stream."""
    position = np.int64(flow.way[direction].prefix_used)
    if packet.protocol == TCP:
        position = prefix_position(flow, direction, data_seq(packet))
    captured = np.int64(packet.payload_captured)
    place_prefix(flow, direction, extras, buffer, packet.payload_offset, captured, position)


@inner_kernel
def update_sequence(
    sequence: Any, flow: Any, direction: Any, packet: Any, payload: Any, gap_flow: Any
) -> Any:
    """Keep the packet itself while the flow is young."""
    used = np.int64(flow.sequence_used)
    if used >= len(sequence):
        return
    row = sequence[used]
    size = min(np.int64(packet.ip_length), np.int64(32767))
    row.size = -size if direction == 1 else size
    row.payload = min(np.int64(payload), 65535)
    row.gap_us = min(gap_flow // MICROSECOND_NS, MAX_GAP_US)
    row.flags = packet.tcp_flags & 0xFF
    flow.sequence_used = used + 1


@inner_kernel
def update(flow: Any, extras: Any, sequence: Any, direction: Any, buffer: Any, packet: Any) -> Any:
    """Apply one packet to its flow; return what its payload is to the flow's stream.

    The garbage byte of a keep-alive is no payload: the packet counts as one without.
    """
    kind, payload = NEW, np.int64(packet.payload_length)
    if packet.protocol == TCP:
        kind = update_tcp(flow, direction, extras, packet)
        if kind == PROBE:
            payload = np.int64(0)
    gap_flow = update_time(flow, direction, packet.ts_ns)
    update_size(flow, direction, packet, payload)
    if payload > 0:
        update_burst(flow, direction, payload)
        if kind <= FILLS:
            if flow.way[direction].prefix_used < PREFIX_BYTES:
                update_prefix(flow, direction, extras, buffer, packet)
            if packet.protocol == TCP:
                count_file_message(flow, extras, buffer, packet)
    update_sequence(sequence, flow, direction, packet, payload, gap_flow)
    return kind


@inner_kernel
def update_fragment(
    flow: Any,
    extras: Any,
    sequence: Any,
    direction: Any,
    buffer: Any,
    packet: Any,
    start: Any,
) -> Any:
    """Apply a later fragment of the inner packet, whose data begin with the number `start`."""
    payload = np.int64(packet.payload_length)
    if flow.protocol == TCP and flow.way[direction].seq_known and payload > 0:
        kind = receive(flow, direction, extras, start, payload)
        pass_fin(flow, direction)
        if kind <= FILLS and flow.way[direction].prefix_used < PREFIX_BYTES:
            position = prefix_position(flow, direction, start)
            captured = np.int64(packet.payload_captured)
            place_prefix(flow, direction, extras, buffer, packet.payload_offset, captured, position)
    gap_flow = update_time(flow, direction, packet.ts_ns)
    update_size(flow, direction, packet, payload)
    if payload > 0:
        update_burst(flow, direction, payload)
    update_sequence(sequence, flow, direction, packet, payload, gap_flow)
