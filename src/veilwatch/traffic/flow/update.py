"""What one packet changes in its flow."""

from __future__ import annotations

from typing import Any

import numpy as np

from veilwatch.jit import inner_kernel
from veilwatch.schema.flows import GAP_EDGES_NS, PREFIX_BYTES, SIZE_EDGES, TcpState
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

SECOND_NS = 1_000_000_000
PAUSE_NS = SECOND_NS
MICROSECOND_NS = 1000
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
    """Return the index of the last edge that is not above `value`."""
    k = len(edges) - 1
    while k > 0 and value < edges[k]:
        k -= 1
    return k


@inner_kernel
def update_time(flow: Any, direction: Any, now: Any) -> Any:
    """Update gaps and pauses; return the gap to the flow's previous packet in ns."""
    gap_flow = np.int64(0)
    if flow.packets[0] + flow.packets[1] > 0:
        gap_flow = max(np.int64(0), now - flow.last_ns)
        if gap_flow > PAUSE_NS:
            flow.burst_bytes = np.uint64(0)
            seconds = gap_flow / SECOND_NS
            flow.pauses += np.uint32(1)
            flow.pause_sum += seconds
            flow.pause_sumsq += seconds * seconds
    if flow.packets[direction] > 0:
        gap = max(np.int64(0), now - flow.dir_last_ns[direction])
        if flow.packets[direction] == 1 or gap < flow.gap_min_ns[direction]:
            flow.gap_min_ns[direction] = gap
        if gap > flow.gap_max_ns[direction]:
            flow.gap_max_ns[direction] = gap
        seconds = gap / SECOND_NS
        flow.gap_sumsq[direction] += seconds * seconds
        flow.gap_counts[direction, bin_of(_GAP_EDGES, gap)] += np.uint32(1)
    else:
        flow.dir_first_ns[direction] = max(now, flow.first_ns)
        flow.dir_last_ns[direction] = flow.dir_first_ns[direction]
    # A packet that is older than its predecessor (reordering in the capture) moves no clock back.
    flow.dir_last_ns[direction] = max(flow.dir_last_ns[direction], now)
    flow.last_ns = max(flow.last_ns, now)
    return gap_flow


@inner_kernel
def show_tunnel(flow: Any, direction: Any, packet: Any) -> Any:
    """Take over what a packet's tunnel tells about its direction."""
    flow.teid[direction] = packet.gtp_teid
    flow.qfi[direction] = packet.gtp_qfi
    flow.gtp_pdu_type[direction] = packet.gtp_pdu_type


@inner_kernel
def update_size(flow: Any, direction: Any, packet: Any, payload: Any) -> Any:
    """Update counts and sizes of a packet that carries `payload` bytes of payload."""
    size = packet.ip_length
    if flow.packets[direction] == 0:
        flow.size_min[direction] = size
        flow.ttl[direction] = packet.ttl
        flow.vlan[direction] = packet.vlan
        if packet.gtp_depth != 0:
            show_tunnel(flow, direction, packet)
    flow.packets[direction] += np.uint32(1)
    flow.bytes[direction] += np.uint64(size)
    flow.size_min[direction] = min(flow.size_min[direction], size)
    flow.size_max[direction] = max(flow.size_max[direction], size)
    wide = np.float64(size)
    flow.size_sumsq[direction] += wide * wide
    flow.size_counts[direction, bin_of(_SIZE_EDGES, np.int64(payload))] += np.uint32(1)
    if payload > 0:
        if flow.first_payload[direction] == 0:
            flow.first_payload[direction] = payload
        flow.payload_packets[direction] += np.uint32(1)
        flow.payload_bytes[direction] += np.uint64(payload)
        flow.payload_max[direction] = max(flow.payload_max[direction], payload)
        wide = np.float64(payload)
        flow.payload_sumsq[direction] += wide * wide


@inner_kernel
def update_burst(flow: Any, direction: Any, payload: Any) -> Any:
    """Update runs of payload packets in one direction; a pause has emptied `burst_bytes`."""
    if flow.burst_direction != direction:
        if flow.burst_direction != 2:
            flow.turns += np.uint32(1)
        flow.burst_direction = direction
        flow.burst_bytes = np.uint64(0)
    if flow.burst_bytes == 0:
        flow.bursts[direction] += np.uint32(1)
    flow.burst_bytes += np.uint64(payload)
    flow.burst_max_bytes[direction] = max(flow.burst_max_bytes[direction], flow.burst_bytes)


@inner_kernel
def update_tcp(flow: Any, direction: Any, packet: Any) -> Any:
    """Update flags, windows, state and stream; return what the payload is to the stream."""
    flags = np.int64(packet.tcp_flags)
    counts = flow.flag_counts
    for bit in range(8):
        if flags >> bit & 1:
            counts[direction, bit] += np.uint32(1)

    window = packet.tcp_window
    if flow.packets[direction] == 0:
        flow.window_first[direction] = window
        flow.window_min[direction] = window
    flow.window_min[direction] = min(flow.window_min[direction], window)
    flow.window_max[direction] = max(flow.window_max[direction], window)
    flow.window_sum[direction] += np.uint64(window)
    if window == 0 and not flags & RST:
        flow.zero_windows[direction] += np.uint32(1)

    state = np.int64(flow.tcp_state)
    if flags & SYN:
        flow.mss[direction] = packet.tcp_mss
        flow.wscale[direction] = packet.tcp_wscale
        state = opened(flow, direction, packet, state)
    elif flags & (ACK | RST) == ACK and state & _SYN_ACK_BIT:
        state |= _ESTABLISHED_BIT
    if flags & FIN:
        state |= _FIN_FWD_BIT << direction
    if flags & RST:
        state |= _RST_BIT
    flow.tcp_state = state

    return advance_stream(flow, direction, packet)


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
def update_prefix(flow: Any, direction: Any, buffer: Any, packet: Any) -> Any:
    """Keep the first payload bytes of a direction, those of TCP where they lie in the stream."""
    position = np.int64(flow.prefix_used[direction])
    if packet.protocol == TCP:
        position = prefix_position(flow, direction, data_seq(packet))
    captured = np.int64(packet.payload_captured)
    place_prefix(flow, direction, buffer, packet.payload_offset, captured, position)


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
def update(flow: Any, sequence: Any, direction: Any, buffer: Any, packet: Any) -> Any:
    """Apply one packet to its flow; return what its payload is to the flow's stream.

    The garbage byte of a keep-alive is no payload: the packet counts as one without.
    """
    kind, payload = NEW, np.int64(packet.payload_length)
    if packet.protocol == TCP:
        kind = update_tcp(flow, direction, packet)
        if kind == PROBE:
            payload = np.int64(0)
    gap_flow = update_time(flow, direction, packet.ts_ns)
    update_size(flow, direction, packet, payload)
    if payload > 0:
        update_burst(flow, direction, payload)
        if kind <= FILLS:
            if flow.prefix_used[direction] < PREFIX_BYTES:
                update_prefix(flow, direction, buffer, packet)
            if packet.protocol == TCP:
                count_file_message(flow, buffer, packet)
    update_sequence(sequence, flow, direction, packet, payload, gap_flow)
    return kind


@inner_kernel
def update_fragment(
    flow: Any, sequence: Any, direction: Any, buffer: Any, packet: Any, start: Any
) -> Any:
    """Apply a later fragment of the inner packet, whose data begin with the number `start`."""
    payload = np.int64(packet.payload_length)
    if flow.protocol == TCP and flow.seq_known[direction] and payload > 0:
        kind = receive(flow, direction, start, payload)
        pass_fin(flow, direction)
        if kind <= FILLS and flow.prefix_used[direction] < PREFIX_BYTES:
            position = prefix_position(flow, direction, start)
            captured = np.int64(packet.payload_captured)
            place_prefix(flow, direction, buffer, packet.payload_offset, captured, position)
    gap_flow = update_time(flow, direction, packet.ts_ns)
    update_size(flow, direction, packet, payload)
    if payload > 0:
        update_burst(flow, direction, payload)
    update_sequence(sequence, flow, direction, packet, payload, gap_flow)
