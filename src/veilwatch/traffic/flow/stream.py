"""The byte stream of one direction of a TCP connection, told by sequence numbers.

What is known of it: its first byte (`base_seq`, for certain once a SYN was seen), the byte that is
expected next (`next_seq`), and the ranges in between that are missing. Only data move `next_seq`:
the number that a SYN takes lies before the stream, the one that a FIN takes behind it, and a RST
may carry any (RFC 9293 cl. 3.4, 3.10.7.4). A segment that lies farther away than any window is left
aside until another one goes on where it ended: a forged or belated packet has no sequel, while a
stream that the capture lost a part of has.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from veilwatch.jit import inner_kernel
from veilwatch.schema.flows import MAX_HOLES, PREFIX_BYTES, TcpState

FIN = 0x01
SYN = 0x02
RST = 0x04
ACK = 0x10

# What a packet's payload is to its stream.
NEW: Final = 0  # goes on where the stream was expected to
AHEAD: Final = 1  # lies past bytes that are missing
FILLS: Final = 2  # is among those that were missing
OLD: Final = 3  # was there before
ASIDE: Final = 4  # is not of the stream, as far as is known
PROBE: Final = 5  # is the garbage byte of a keep-alive

MAX_AHEAD: Final = 1 << 26
"""Farthest that a segment may lie ahead of the expected number and still be taken as it comes:
64 MiB, the largest window that hosts are tuned to for paths of 10 Gbit/s and 100 ms; systems as
they are installed grant a tenth of it."""

MAX_BEHIND: Final = 2 * MAX_AHEAD
"""The same backwards: a window behind a number that may itself be a window ahead of the stream."""

LATE_SYN_BYTES: Final = 65_535
"""Most bytes of a connection that may be seen before its SYN: no more can be under way before the
other side's first window, which a SYN-ACK never scales (RFC 7323 cl. 2.2)."""

LATE_SYN_NS: Final = 1_000_000_000
"""How long after a flow's first packet a SYN may still come with some of the bytes behind it
missing: capture points and their clocks differ by milliseconds, seldom by more. A SYN right before
the first byte that was seen may come at any time."""

EARLIER_PACKETS: Final = 64
"""Payload packets of a direction within which bytes before the first one that was seen are taken as
new, where no SYN told where the stream begins: what was under way when the capture began."""

# What `seq_known` says.
UNKNOWN: Final = 0  # nothing was seen
SEEN: Final = 1  # the stream was seen from some byte on
ANCHORED: Final = 2  # nothing comes before its first byte

_FIN_FWD_BIT = TcpState.FIN_FWD


@inner_kernel
def seq_distance(a: Any, b: Any) -> Any:
    """Return a - b as a signed 32-bit distance (serial-number arithmetic, RFC 1982)."""
    distance = (np.int64(a) - np.int64(b)) & 0xFFFFFFFF
    if distance >= 0x80000000:
        distance -= 0x100000000
    return distance


@inner_kernel
def seq_after(number: Any, distance: Any) -> Any:
    """Return the sequence number `distance` behind `number`."""
    return np.uint32((np.int64(number) + np.int64(distance)) & 0xFFFFFFFF)


@inner_kernel
def data_seq(packet: Any) -> Any:
    """Return the number of a packet's first payload byte: a SYN takes the one before it."""
    return seq_after(packet.tcp_seq, 1 if packet.tcp_flags & SYN else 0)


@inner_kernel
def opens_stream(flow: Any, direction: Any, packet: Any) -> Any:
    """Whether a SYN or SYN-ACK belongs to the stream that was seen without one.

    Its number lies right before the first byte that was seen, or that the other side
    acknowledged; or a little before it, where the flow is young.
    """
    base = flow.base_seq[direction]
    if flow.seq_known[direction] == UNKNOWN and base == 0:
        return False
    missing = seq_distance(base, seq_after(packet.tcp_seq, 1))
    if missing == 0:
        return True
    late = abs(packet.ts_ns - flow.first_ns)
    return 0 < missing <= LATE_SYN_BYTES and late <= LATE_SYN_NS


@inner_kernel
def advance_stream(flow: Any, direction: Any, packet: Any) -> Any:
    """Take a packet into its stream; return what its payload is to it."""
    flags = np.int64(packet.tcp_flags)
    payload = np.int64(packet.payload_length)
    if flags & RST:  # its payload says why, to people (RFC 9293 cl. 3.5.3)
        flow.old_bytes[direction] += np.uint64(payload)
        return ASIDE
    start = data_seq(packet)
    if flow.seq_known[direction] == UNKNOWN:
        flow.seq_known[direction] = ANCHORED if flags & SYN else SEEN
        flow.base_seq[direction] = start
        flow.next_seq[direction] = start
    elif flags & SYN and not anchor(flow, direction, packet, start):
        flow.old_bytes[direction] += np.uint64(payload)
        return ASIDE
    elif (
        payload <= 1
        and not flags & (SYN | FIN)
        and seq_distance(start, flow.next_seq[direction]) == -1
    ):  # RFC 9293 cl. 3.8.4
        flow.keep_alives[direction] += np.uint32(1)
        return PROBE
    kind = NEW
    if payload > 0:
        kind = receive(flow, direction, start, payload)
    # Of a packet in fragments the end is not known here.
    if flags & FIN and packet.fragment == 0:
        flow.fin_seq[direction] = seq_after(start, payload)
    pass_fin(flow, direction)
    return kind


@inner_kernel
def pass_fin(flow: Any, direction: Any) -> Any:
    """Step over the number of a FIN once the stream has reached it."""
    ended = np.int64(flow.tcp_state) & (_FIN_FWD_BIT << direction)
    if ended and flow.next_seq[direction] == flow.fin_seq[direction]:
        flow.next_seq[direction] = seq_after(flow.fin_seq[direction], 1)


@inner_kernel
def anchor(flow: Any, direction: Any, packet: Any, start: Any) -> Any:
    """Learn from a SYN where a stream that is known begins; False for one that does not fit it."""
    base = flow.base_seq[direction]
    if flow.seq_known[direction] == SEEN and opens_stream(flow, direction, packet):
        flow.seq_known[direction] = ANCHORED
        lower_base(flow, direction, start, start)
        return True
    if start == base:
        return True
    if flow.next_seq[direction] == base:  # data will show which of the two SYNs counts
        flow.far_start[direction] = start
        flow.far_end[direction] = start
    return False


@inner_kernel
def lower_base(flow: Any, direction: Any, start: Any, end: Any) -> Any:
    """Let a stream begin at `start`, before where it was seen to; up to `end` it is there."""
    base = flow.base_seq[direction]
    if seq_distance(base, end) > 0:
        insert_hole(flow, direction, 0, end, base)
    flow.base_seq[direction] = start
    shift_prefix(flow, direction, seq_distance(base, start))


@inner_kernel
def receive(flow: Any, direction: Any, start: Any, payload: Any) -> Any:
    """Take `payload` bytes from the number `start` on into a stream; return what they are to it."""
    expected = flow.next_seq[direction]
    ahead = seq_distance(start, expected)
    if ahead == 0:
        flow.next_seq[direction] = seq_after(start, payload)
        return NEW
    if (
        ahead == -1
        and start == flow.fin_seq[direction]
        and flow.tcp_state & (_FIN_FWD_BIT << direction)
    ):  # where the FIN was, the stream goes on: it was not the sender's
        flow.next_seq[direction] = seq_after(start, payload)
        return NEW
    if is_elsewhere(flow, direction, start, ahead):
        return receive_elsewhere(flow, direction, start, payload, ahead)
    if ahead > 0:
        insert_hole(flow, direction, count_holes(flow, direction), expected, start)
        flow.next_seq[direction] = seq_after(start, payload)
        flow.out_of_order[direction] += np.uint32(1)
        return AHEAD
    end = seq_after(start, payload)
    beyond = max(seq_distance(end, expected), 0)
    if beyond > 0:
        flow.next_seq[direction] = end
    filled = fill_holes(flow, direction, start, payload)
    below = seq_distance(flow.base_seq[direction], start)
    if below > 0 and may_begin_earlier(flow, direction):
        filled += min(below, payload)
        lower_base(flow, direction, start, end)
    flow.old_bytes[direction] += np.uint64(payload - filled - beyond)
    if filled > 0:
        flow.out_of_order[direction] += np.uint32(1)
        return FILLS
    if beyond > 0:
        return NEW
    flow.retransmissions[direction] += np.uint32(1)
    return OLD


@inner_kernel
def may_begin_earlier(flow: Any, direction: Any) -> Any:
    """Whether bytes before the first one that was seen may be new."""
    if flow.seq_known[direction] != SEEN or flow.payload_packets[direction] >= EARLIER_PACKETS:
        return False
    length = seq_distance(flow.next_seq[direction], flow.base_seq[direction])
    return 0 <= length <= MAX_AHEAD


@inner_kernel
def is_elsewhere(flow: Any, direction: Any, start: Any, ahead: Any) -> Any:
    """Whether data lie beyond any window, or go on from another SYN than the one that was taken."""
    if ahead > MAX_AHEAD or ahead < -MAX_BEHIND:
        return True
    other = flow.far_end[direction]
    return (
        ahead < 0
        and start == other
        and flow.far_start[direction] == other
        and other != 0
        and flow.next_seq[direction] == flow.base_seq[direction]
    )


@inner_kernel
def receive_elsewhere(flow: Any, direction: Any, start: Any, payload: Any, ahead: Any) -> Any:
    """Leave a distant segment aside; where it goes on from the one before, the stream is there."""
    first, last = flow.far_start[direction], flow.far_end[direction]
    if start != last or (first == 0 and last == 0):
        flow.far_start[direction] = start
        flow.far_end[direction] = seq_after(start, payload)
        flow.old_bytes[direction] += np.uint64(payload)
        if ahead > 0:
            flow.out_of_order[direction] += np.uint32(1)
        else:
            flow.retransmissions[direction] += np.uint32(1)
        return ASIDE
    flow.far_start[direction] = 0
    flow.far_end[direction] = 0
    flow.old_bytes[direction] -= np.uint64(seq_distance(last, first))
    for k in range(MAX_HOLES):
        flow.hole_start[direction, k] = 0
        flow.hole_end[direction, k] = 0
    base = flow.base_seq[direction]
    if flow.next_seq[direction] == base or seq_distance(start, base) < 0:
        flow.seq_known[direction] = ANCHORED if first == last else SEEN
        flow.base_seq[direction] = start
        clear_prefix(flow, direction)
    flow.next_seq[direction] = seq_after(start, payload)
    return NEW


@inner_kernel
def count_holes(flow: Any, direction: Any) -> Any:
    """Return how many holes are remembered."""
    count = 0
    while (
        count < MAX_HOLES and flow.hole_start[direction, count] != flow.hole_end[direction, count]
    ):
        count += 1
    return count


@inner_kernel
def insert_hole(flow: Any, direction: Any, at: Any, start: Any, end: Any) -> Any:
    """Remember a hole as number `at`; where there are too many the farthest back is given up."""
    starts, ends = flow.hole_start, flow.hole_end
    if count_holes(flow, direction) == MAX_HOLES:
        if at == 0:
            return
        at -= 1
        for k in range(at):
            starts[direction, k] = starts[direction, k + 1]
            ends[direction, k] = ends[direction, k + 1]
    else:
        for k in range(MAX_HOLES - 1, at, -1):
            starts[direction, k] = starts[direction, k - 1]
            ends[direction, k] = ends[direction, k - 1]
    starts[direction, at] = start
    ends[direction, at] = end


@inner_kernel
def remove_hole(flow: Any, direction: Any, at: Any) -> Any:
    """Forget hole number `at`."""
    starts, ends = flow.hole_start, flow.hole_end
    for k in range(at, MAX_HOLES - 1):
        starts[direction, k] = starts[direction, k + 1]
        ends[direction, k] = ends[direction, k + 1]
    starts[direction, MAX_HOLES - 1] = 0
    ends[direction, MAX_HOLES - 1] = 0


@inner_kernel
def fill_holes(flow: Any, direction: Any, start: Any, payload: Any) -> Any:
    """Return how many of `payload` bytes from `start` on were missing; make the holes smaller."""
    filled = np.int64(0)
    k = 0
    while k < MAX_HOLES:
        hole, hole_end = flow.hole_start[direction, k], flow.hole_end[direction, k]
        length = seq_distance(hole_end, hole)
        offset = seq_distance(start, hole)
        first, last = max(offset, 0), min(offset + payload, length)
        if last <= first:
            k += 1
            continue
        filled += last - first
        if first == 0 and last == length:
            remove_hole(flow, direction, k)
            continue
        if first == 0:
            flow.hole_start[direction, k] = seq_after(hole, last)
        else:
            flow.hole_end[direction, k] = seq_after(hole, first)
            if last < length:
                insert_hole(flow, direction, k + 1, seq_after(hole, last), hole_end)
                break
        k += 1
    return filled


@inner_kernel
def hole_before(flow: Any, direction: Any, number: Any) -> Any:
    """Return how many bytes are missing right before `number`."""
    for k in range(MAX_HOLES):
        start, end = flow.hole_start[direction, k], flow.hole_end[direction, k]
        if start != end and end == number:
            return seq_distance(end, start)
    return np.int64(0)


@inner_kernel
def clear_prefix(flow: Any, direction: Any) -> Any:
    """Forget the first bytes of a stream."""
    flow.prefix_used[direction] = 0
    flow.prefix_known[direction] = np.uint64(0)
    flow.prefix_skip[direction] = 0
    for i in range(PREFIX_BYTES):
        flow.prefix[direction, i] = 0


@inner_kernel
def shift_prefix(flow: Any, direction: Any, distance: Any) -> Any:
    """Make room for `distance` bytes before the first ones of a stream."""
    if distance <= 0:
        return
    if distance >= PREFIX_BYTES or flow.prefix_skip[direction] != 0:
        clear_prefix(flow, direction)
        return
    for i in range(PREFIX_BYTES - 1, -1, -1):
        flow.prefix[direction, i] = flow.prefix[direction, i - distance] if i >= distance else 0
    flow.prefix_known[direction] <<= np.uint64(distance)
    flow.prefix_used[direction] = 0


@inner_kernel
def place_prefix(
    flow: Any, direction: Any, buffer: Any, offset: Any, captured: Any, position: Any
) -> Any:
    """Keep `captured` bytes whose first is number `position` of a direction's prefix."""
    start, end = max(position, 0), min(position + captured, PREFIX_BYTES)
    if start >= end:
        return
    known = flow.prefix_known[direction]
    used = np.int64(flow.prefix_used[direction])
    if known >> np.uint64(start) == 0:  # in order
        for i in range(start, end):
            flow.prefix[direction, i] = buffer[offset + i - position]
        added = ~np.uint64(0) >> np.uint64(PREFIX_BYTES - (end - start))
        flow.prefix_known[direction] = known | added << np.uint64(start)
        if used == start:
            flow.prefix_used[direction] = end
        return
    for i in range(start, end):
        bit = np.uint64(1) << np.uint64(i)
        if known & bit == 0:
            known |= bit
            flow.prefix[direction, i] = buffer[offset + i - position]
    flow.prefix_known[direction] = known
    while used < PREFIX_BYTES and known >> np.uint64(used) & np.uint64(1):
        used += 1
    flow.prefix_used[direction] = used


@inner_kernel
def prefix_position(flow: Any, direction: Any, number: Any) -> Any:
    """Return where in the prefix the byte with a sequence number lies."""
    start = seq_distance(number, flow.base_seq[direction])
    return start - np.int64(flow.prefix_skip[direction])
