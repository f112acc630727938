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
from veilwatch.traffic.flow.copying import clear_run, copy_run
from veilwatch.traffic.flow.extra import NOTHING, missed, own_extra

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
    return np.int64(np.int32(np.int64(a) - np.int64(b)))


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
    base = flow.start[direction].base_seq
    if flow.way[direction].seq_known == UNKNOWN and base == 0:
        return False
    missing = seq_distance(base, seq_after(packet.tcp_seq, 1))
    if missing == 0:
        return True
    late = abs(packet.ts_ns - flow.first_ns)
    return 0 < missing <= LATE_SYN_BYTES and late <= LATE_SYN_NS


@inner_kernel
def advance_stream(flow: Any, direction: Any, extras: Any, packet: Any) -> Any:
    """Take a packet into its stream; return what its payload is to it."""
    way = flow.way[direction]
    flags = np.int64(packet.tcp_flags)
    payload = np.int64(packet.payload_length)
    if flags & RST:  # its payload says why, to people (RFC 9293 cl. 3.5.3)
        way.old_bytes += np.uint64(payload)
        return ASIDE
    start = data_seq(packet)
    if way.seq_known == UNKNOWN:
        way.seq_known = ANCHORED if flags & SYN else SEEN
        flow.start[direction].base_seq = start
        way.next_seq = start
    elif flags & SYN and not anchor(flow, direction, extras, packet, start):
        way.old_bytes += np.uint64(payload)
        return ASIDE
    elif (
        payload <= 1 and not flags & (SYN | FIN) and seq_distance(start, way.next_seq) == -1
    ):  # RFC 9293 cl. 3.8.4
        way.keep_alives += np.uint32(1)
        return PROBE
    kind = NEW
    if payload > 0:
        kind = receive(flow, direction, extras, start, payload)
    # Of a packet in fragments the end is not known here.
    if flags & FIN and packet.fragment == 0:
        flow.start[direction].fin_seq = seq_after(start, payload)
    pass_fin(flow, direction)
    return kind


@inner_kernel
def pass_fin(flow: Any, direction: Any) -> Any:
    """Step over the number of a FIN once the stream has reached it."""
    ended = np.int64(flow.tcp_state) & (_FIN_FWD_BIT << direction)
    if ended and flow.way[direction].next_seq == flow.start[direction].fin_seq:
        flow.way[direction].next_seq = seq_after(flow.start[direction].fin_seq, 1)


@inner_kernel
def anchor(flow: Any, direction: Any, extras: Any, packet: Any, start: Any) -> Any:
    """Learn from a SYN where a stream that is known begins; False for one that does not fit it."""
    base = flow.start[direction].base_seq
    if flow.way[direction].seq_known == SEEN and opens_stream(flow, direction, packet):
        flow.way[direction].seq_known = ANCHORED
        lower_base(flow, direction, extras, start, start)
        return True
    if start == base:
        return True
    if flow.way[direction].next_seq == base:  # data will show which of the two SYNs counts
        other = own_extra(flow, extras).missing[direction]
        other.far_start = start
        other.far_end = start
    return False


@inner_kernel
def lower_base(flow: Any, direction: Any, extras: Any, start: Any, end: Any) -> Any:
    """Let a stream begin at `start`, before where it was seen to; up to `end` it is there."""
    base = flow.start[direction].base_seq
    if seq_distance(base, end) > 0:
        insert_hole(flow, direction, extras, 0, end, base)
    flow.start[direction].base_seq = start
    shift_prefix(flow, direction, extras, seq_distance(base, start))


@inner_kernel
def receive(flow: Any, direction: Any, extras: Any, start: Any, payload: Any) -> Any:
    """Take `payload` bytes from the number `start` on into a stream; return what they are to it."""
    expected = flow.way[direction].next_seq
    ahead = seq_distance(start, expected)
    if ahead == 0:
        flow.way[direction].next_seq = seq_after(start, payload)
        return NEW
    if (
        ahead == -1
        and start == flow.start[direction].fin_seq
        and flow.tcp_state & (_FIN_FWD_BIT << direction)
    ):  # where the FIN was, the stream goes on: it was not the sender's
        flow.way[direction].next_seq = seq_after(start, payload)
        return NEW
    if is_elsewhere(flow, direction, extras, start, ahead):
        return receive_elsewhere(flow, direction, extras, start, payload, ahead)
    if ahead > 0:
        last = count_holes(missed(flow, extras, direction))
        insert_hole(flow, direction, extras, last, expected, start)
        flow.way[direction].next_seq = seq_after(start, payload)
        flow.way[direction].out_of_order += np.uint32(1)
        return AHEAD
    end = seq_after(start, payload)
    beyond = max(seq_distance(end, expected), 0)
    if beyond > 0:
        flow.way[direction].next_seq = end
    filled = fill_holes(flow, direction, extras, start, payload)
    below = seq_distance(flow.start[direction].base_seq, start)
    if below > 0 and may_begin_earlier(flow, direction):
        filled += min(below, payload)
        lower_base(flow, direction, extras, start, end)
    flow.way[direction].old_bytes += np.uint64(payload - filled - beyond)
    if filled > 0:
        flow.way[direction].out_of_order += np.uint32(1)
        return FILLS
    if beyond > 0:
        return NEW
    flow.way[direction].retransmissions += np.uint32(1)
    return OLD


@inner_kernel
def may_begin_earlier(flow: Any, direction: Any) -> Any:
    """Whether bytes before the first one that was seen may be new."""
    if (
        flow.way[direction].seq_known != SEEN
        or flow.way[direction].payload_packets >= EARLIER_PACKETS
    ):
        return False
    length = seq_distance(flow.way[direction].next_seq, flow.start[direction].base_seq)
    return 0 <= length <= MAX_AHEAD


@inner_kernel
def is_elsewhere(flow: Any, direction: Any, extras: Any, start: Any, ahead: Any) -> Any:
    """Whether data lie beyond any window, or go on from another SYN than the one that was taken."""
    if ahead > MAX_AHEAD or ahead < -MAX_BEHIND:
        return True
    known = missed(flow, extras, direction)
    other = known.far_end
    return (
        ahead < 0
        and start == other
        and known.far_start == other
        and other != 0
        and flow.way[direction].next_seq == flow.start[direction].base_seq
    )


@inner_kernel
def receive_elsewhere(
    flow: Any, direction: Any, extras: Any, start: Any, payload: Any, ahead: Any
) -> Any:
    """Leave a distant segment aside; where it goes on from the one before, the stream is there."""
    way, begun = flow.way[direction], flow.start[direction]
    own = own_extra(flow, extras).missing[direction]
    first, last = own.far_start, own.far_end
    if start != last or (first == 0 and last == 0):
        own.far_start = start
        own.far_end = seq_after(start, payload)
        way.old_bytes += np.uint64(payload)
        if ahead > 0:
            way.out_of_order += np.uint32(1)
        else:
            way.retransmissions += np.uint32(1)
        return ASIDE
    own.far_start = 0
    own.far_end = 0
    way.old_bytes -= np.uint64(seq_distance(last, first))
    for k in range(MAX_HOLES):
        own.hole_start[k] = 0
        own.hole_end[k] = 0
    base = begun.base_seq
    if way.next_seq == base or seq_distance(start, base) < 0:
        way.seq_known = ANCHORED if first == last else SEEN
        begun.base_seq = start
        clear_prefix(flow, direction, extras)
    way.next_seq = seq_after(start, payload)
    return NEW


@inner_kernel
def count_holes(own: Any) -> Any:
    """Return how many holes are remembered of a direction."""
    count = 0
    while count < MAX_HOLES and own.hole_start[count] != own.hole_end[count]:
        count += 1
    return count


@inner_kernel
def insert_hole(flow: Any, direction: Any, extras: Any, at: Any, start: Any, end: Any) -> Any:
    """Remember a hole as number `at`; where there are too many the farthest back is given up."""
    own = own_extra(flow, extras).missing[direction]
    starts, ends = own.hole_start, own.hole_end
    if count_holes(own) == MAX_HOLES:
        if at == 0:
            return
        at -= 1
        for k in range(at):
            starts[k] = starts[k + 1]
            ends[k] = ends[k + 1]
    else:
        for k in range(MAX_HOLES - 1, at, -1):
            starts[k] = starts[k - 1]
            ends[k] = ends[k - 1]
    starts[at] = start
    ends[at] = end


@inner_kernel
def remove_hole(own: Any, at: Any) -> Any:
    """Forget hole number `at` of a direction."""
    starts, ends = own.hole_start, own.hole_end
    for k in range(at, MAX_HOLES - 1):
        starts[k] = starts[k + 1]
        ends[k] = ends[k + 1]
    starts[MAX_HOLES - 1] = 0
    ends[MAX_HOLES - 1] = 0


@inner_kernel
def fill_holes(flow: Any, direction: Any, extras: Any, start: Any, payload: Any) -> Any:
    """Return how many of `payload` bytes from `start` on were missing; make the holes smaller."""
    filled = np.int64(0)
    if flow.extra == NOTHING:
        return filled
    own = extras.rows[flow.extra].missing[direction]
    k = 0
    while k < MAX_HOLES:
        hole, hole_end = own.hole_start[k], own.hole_end[k]
        length = seq_distance(hole_end, hole)
        offset = seq_distance(start, hole)
        first, last = max(offset, 0), min(offset + payload, length)
        if last <= first:
            k += 1
            continue
        filled += last - first
        if first == 0 and last == length:
            remove_hole(own, k)
            continue
        if first == 0:
            own.hole_start[k] = seq_after(hole, last)
        else:
            own.hole_end[k] = seq_after(hole, first)
            if last < length:
                insert_hole(flow, direction, extras, k + 1, seq_after(hole, last), hole_end)
                break
        k += 1
    return filled


@inner_kernel
def hole_before(own: Any, number: Any) -> Any:
    """Return how many bytes of a direction are missing right before `number`."""
    for k in range(MAX_HOLES):
        start, end = own.hole_start[k], own.hole_end[k]
        if start != end and end == number:
            return seq_distance(end, start)
    return np.int64(0)


@inner_kernel
def low_bits(count: Any) -> Any:
    """Return `count` bits set, 0 to 64."""
    return ~np.uint64(0) >> np.uint64(64 - count) if count > 0 else np.uint64(0)


@inner_kernel
def clear_prefix(flow: Any, direction: Any, extras: Any) -> Any:
    """Forget the first bytes of a stream."""
    begun = flow.start[direction]
    flow.way[direction].prefix_used = 0
    begun.prefix_skip = 0
    clear_run(begun.prefix, 0, PREFIX_BYTES)
    if flow.extra != NOTHING:
        extras.rows[flow.extra].missing[direction].prefix_known = np.uint64(0)


@inner_kernel
def shift_prefix(flow: Any, direction: Any, extras: Any, distance: Any) -> Any:
    """Make room for `distance` bytes before the first ones of a stream."""
    if distance <= 0:
        return
    way, begun = flow.way[direction], flow.start[direction]
    if distance >= PREFIX_BYTES or begun.prefix_skip != 0:
        clear_prefix(flow, direction, extras)
        return
    for i in range(PREFIX_BYTES - 1, -1, -1):
        begun.prefix[i] = begun.prefix[i - distance] if i >= distance else 0
    known = missed(flow, extras, direction).prefix_known | low_bits(np.int64(way.prefix_used))
    if known != 0:
        own_extra(flow, extras).missing[direction].prefix_known = known << np.uint64(distance)
    way.prefix_used = 0


@inner_kernel
def place_prefix(
    flow: Any,
    direction: Any,
    extras: Any,
    buffer: Any,
    offset: Any,
    captured: Any,
    position: Any,
) -> Any:
    """Keep `captured` bytes whose first is number `position` of a direction's prefix.

    Which bytes are known is written down only where some are missing before them.
    """
    start, end = max(position, 0), min(position + captured, PREFIX_BYTES)
    if start >= end:
        return
    way, prefix = flow.way[direction], flow.start[direction].prefix
    used = np.int64(way.prefix_used)
    beyond = missed(flow, extras, direction).prefix_known >> np.uint64(start) != 0
    if used == start and not beyond:
        copy_run(prefix, start, buffer, offset + start - position, end - start)
        way.prefix_used = end
        return
    own = own_extra(flow, extras).missing[direction]
    known = own.prefix_known | low_bits(used)
    for i in range(start, end):
        bit = np.uint64(1) << np.uint64(i)
        if known & bit == 0:
            known |= bit
            prefix[i] = buffer[offset + i - position]
    own.prefix_known = known
    while used < PREFIX_BYTES and known >> np.uint64(used) & np.uint64(1):
        used += 1
    way.prefix_used = used


@inner_kernel
def prefix_position(flow: Any, direction: Any, number: Any) -> Any:
    """Return where in the prefix the byte with a sequence number lies."""
    start = seq_distance(number, flow.start[direction].base_seq)
    return start - np.int64(flow.start[direction].prefix_skip)
