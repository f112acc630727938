"""What one packet changes in its flow."""

from __future__ import annotations

from typing import Any

import numpy as np

from veilwatch.flow.file_sharing import count_file_message
from veilwatch.jit import inline_kernel
from veilwatch.schema.flows import GAP_EDGES_NS, PREFIX_BYTES, SIZE_EDGES, TcpState

SECOND_NS = 1_000_000_000
PAUSE_NS = SECOND_NS
MICROSECOND_NS = 1000
MAX_GAP_US = 0xFFFFFFFF

FIN = 0x01
SYN = 0x02
RST = 0x04
ACK = 0x10

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


@inline_kernel
def bin_of(edges: Any, value: Any) -> Any:
    """Return the index of the last edge that is not above `value`."""
    k = len(edges) - 1
    while k > 0 and value < edges[k]:
        k -= 1
    return k


@inline_kernel
def seq_distance(a: Any, b: Any) -> Any:
    """Return a - b as a signed 32-bit distance (serial-number arithmetic, RFC 1982)."""
    distance = (np.int64(a) - np.int64(b)) & 0xFFFFFFFF
    if distance >= 0x80000000:
        distance -= 0x100000000
    return distance


@inline_kernel
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


@inline_kernel
def show_tunnel(flow: Any, direction: Any, packet: Any) -> Any:
    """Take over what a packet's tunnel tells about its direction."""
    flow.teid[direction] = packet.gtp_teid
    flow.qfi[direction] = packet.gtp_qfi
    flow.gtp_pdu_type[direction] = packet.gtp_pdu_type


@inline_kernel
def update_size(flow: Any, direction: Any, packet: Any) -> Any:
    """Update counts and sizes."""
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
    payload = packet.payload_length
    flow.size_counts[direction, bin_of(_SIZE_EDGES, np.int64(payload))] += np.uint32(1)
    if payload > 0:
        if flow.first_payload[direction] == 0:
            flow.first_payload[direction] = payload
        flow.payload_packets[direction] += np.uint32(1)
        flow.payload_bytes[direction] += np.uint64(payload)
        flow.payload_max[direction] = max(flow.payload_max[direction], payload)
        wide = np.float64(payload)
        flow.payload_sumsq[direction] += wide * wide


@inline_kernel
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


@inline_kernel
def update_tcp(flow: Any, direction: Any, packet: Any) -> Any:
    """Update flags, windows, sequence numbers and connection state; return True for old bytes."""
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
        if flags & ACK:
            state |= _SYN_ACK_BIT
        else:
            # After a RST the attempt is made again: the flow is open once more.
            state = (state & ~_ENDS) | _SYN_BIT
    elif flags & (ACK | RST) == ACK and state & _SYN_ACK_BIT:
        state |= _ESTABLISHED_BIT
    if flags & FIN:
        state |= _FIN_FWD_BIT << direction
    if flags & RST:
        state |= _RST_BIT
    flow.tcp_state = state

    return update_stream(flow, direction, packet, flags)


@inline_kernel
def update_stream(flow: Any, direction: Any, packet: Any, flags: Any) -> Any:
    """Tell new bytes from old ones by sequence number; return True for old ones.

    Payload past the next expected byte leaves a hole and is out of order, and so is what fills the
    hole; what lies wholly before the next expected byte otherwise is a retransmission. A keep-alive
    probe (RFC 9293 cl. 3.8.4) repeats at most the last byte and is neither. Of several holes the
    first is remembered.
    """
    payload = np.int64(packet.payload_length)
    span = payload + (1 if flags & SYN else 0) + (1 if flags & FIN else 0)
    after = np.uint32((np.int64(packet.tcp_seq) + span) & 0xFFFFFFFF)
    if flow.seq_known[direction] == 0:
        # A RST may carry any sequence number: it does not start the count.
        if not flags & RST:
            flow.seq_known[direction] = 1
            flow.next_seq[direction] = after
        return False
    expected = flow.next_seq[direction]
    ahead = seq_distance(packet.tcp_seq, expected)
    if ahead == 0:
        flow.next_seq[direction] = after
        return False
    if ahead == -1 and payload <= 1 and not flags & (SYN | FIN | RST):
        flow.keep_alives[direction] += np.uint32(1)
        flow.old_bytes[direction] += np.uint64(payload)
        return False
    beyond = seq_distance(after, expected)
    if span > 0 and beyond > 0:
        flow.next_seq[direction] = after
    if payload == 0:
        return False
    if ahead > 0:
        flow.out_of_order[direction] += np.uint32(1)
        if flow.hole_start[direction] == flow.hole_end[direction]:
            flow.hole_start[direction] = expected
            flow.hole_end[direction] = packet.tcp_seq
        return False
    filled = fill_hole(flow, direction, packet, payload)
    new = filled + max(beyond, 0)  # more than the payload where the numbers have gone round
    flow.old_bytes[direction] += np.uint64(max(payload - new, 0))
    if filled > 0:
        flow.out_of_order[direction] += np.uint32(1)
        return False
    if beyond <= 0:
        flow.retransmissions[direction] += np.uint32(1)
        return True
    return False


@inline_kernel
def fill_hole(flow: Any, direction: Any, packet: Any, payload: Any) -> Any:
    """Return how many bytes of a packet lie in the hole, and make the hole smaller.

    Where they lie in its middle, what is behind them is given up.
    """
    start, end = flow.hole_start[direction], flow.hole_end[direction]
    length = seq_distance(end, start)
    first = max(seq_distance(packet.tcp_seq, start), 0)
    last = min(seq_distance(packet.tcp_seq, start) + payload, length)
    if last <= first:
        return 0
    if first == 0:
        flow.hole_start[direction] = np.uint32((np.int64(start) + last) & 0xFFFFFFFF)
    else:
        flow.hole_end[direction] = np.uint32((np.int64(start) + first) & 0xFFFFFFFF)
    return last - first


@inline_kernel
def update_prefix(flow: Any, direction: Any, buffer: Any, packet: Any) -> Any:
    """Keep the first payload bytes of a direction."""
    used = np.int64(flow.prefix_used[direction])
    take = min(np.int64(packet.payload_captured), PREFIX_BYTES - used)
    for i in range(take):
        flow.prefix[direction, used + i] = buffer[packet.payload_offset + i]
    flow.prefix_used[direction] = used + take


@inline_kernel
def update_sequence(sequence: Any, flow: Any, direction: Any, packet: Any, gap_flow: Any) -> Any:
    """Keep the packet itself while the flow is young."""
    used = np.int64(flow.sequence_used)
    if used >= len(sequence):
        return
    row = sequence[used]
    size = min(np.int64(packet.ip_length), np.int64(32767))
    row.size = -size if direction == 1 else size
    row.payload = min(np.int64(packet.payload_length), 65535)
    row.gap_us = min(gap_flow // MICROSECOND_NS, MAX_GAP_US)
    row.flags = packet.tcp_flags & 0xFF
    flow.sequence_used = used + 1


@inline_kernel
def update(flow: Any, sequence: Any, direction: Any, buffer: Any, packet: Any) -> Any:
    """Apply one packet to its flow."""
    old_bytes = False
    if packet.protocol == TCP:
        old_bytes = update_tcp(flow, direction, packet)
    gap_flow = update_time(flow, direction, packet.ts_ns)
    update_size(flow, direction, packet)
    if packet.payload_length > 0:
        update_burst(flow, direction, packet.payload_length)
        if flow.prefix_used[direction] < PREFIX_BYTES and not old_bytes:
            update_prefix(flow, direction, buffer, packet)
        if packet.protocol == TCP and not old_bytes:
            count_file_message(flow, buffer, packet)
    update_sequence(sequence, flow, direction, packet, gap_flow)


@inline_kernel
def update_fragment(flow: Any, sequence: Any, direction: Any, packet: Any, end: Any) -> Any:
    """Apply a later fragment of the inner packet; `end` is the sequence number after its data."""
    if flow.protocol == TCP and flow.seq_known[direction]:
        after = np.uint32(end & 0xFFFFFFFF)
        if seq_distance(after, flow.next_seq[direction]) > 0:
            flow.next_seq[direction] = after
    gap_flow = update_time(flow, direction, packet.ts_ns)
    update_size(flow, direction, packet)
    if packet.payload_length > 0:
        update_burst(flow, direction, packet.payload_length)
    update_sequence(sequence, flow, direction, packet, gap_flow)
