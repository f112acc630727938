"""Finding, linking, copying and releasing rows of the flow table."""

from __future__ import annotations

from typing import Any

import numpy as np

from veilwatch.jit import inline_kernel, inner_kernel, kernel
from veilwatch.traffic.flow.copying import copy_run
from veilwatch.traffic.flow.extra import WORDS, release_extra
from veilwatch.traffic.flow.state import AMBIGUOUS, CLOSING, FREE, LIVE, NIL, OPEN, State
from veilwatch.traffic.flow.tunnel import MAX_TWINS, NO, end_point, kinship
from veilwatch.traffic.hashing import mix

# What runs for every packet takes the arrays that it needs and not the whole State: passing a
# tuple of arrays counts references on each of them, which was measured at 100 ns a call.


@inline_kernel
def flow_hash(packet: Any, seed: Any) -> Any:
    """Hash a packet's 5-tuple; both directions give the same value, which is never 0.

    `seed` is drawn per process, so that nobody can choose addresses that collide.
    """
    a = end_point(packet.src_hi, packet.src_lo, np.uint64(packet.src_port), seed)
    b = end_point(packet.dst_hi, packet.dst_lo, np.uint64(packet.dst_port), seed)
    return mix((a + b) ^ mix(np.uint64(packet.protocol))) | np.uint64(1)


@inner_kernel
def side(flow: Any, packet: Any) -> Any:
    """Return the direction of a packet in a flow of its 5-tuple, -1 for another 5-tuple."""
    if flow.protocol != packet.protocol or flow.ip_version != packet.ip_version:
        return -1
    if (
        flow.src_lo == packet.src_lo
        and flow.dst_lo == packet.dst_lo
        and flow.src_port == packet.src_port
        and flow.dst_port == packet.dst_port
        and flow.src_hi == packet.src_hi
        and flow.dst_hi == packet.dst_hi
    ):
        return 0
    if (
        flow.src_lo == packet.dst_lo
        and flow.dst_lo == packet.src_lo
        and flow.src_port == packet.dst_port
        and flow.dst_port == packet.src_port
        and flow.src_hi == packet.dst_hi
        and flow.dst_hi == packet.src_hi
    ):
        return 1
    return -1


@inner_kernel
def find(
    buckets: Any, slots: Any, flows: Any, packet: Any, key: Any, tunnel: Any, session: Any
) -> Any:
    """Return (slot, direction) of the flow that has this 5-tuple and tunnel, or (NIL, 0)."""
    slot = buckets[np.int64(key & np.uint64(len(buckets) - 1))]
    while slot != NIL:
        row = slots[slot]
        if row.hash == key:
            flow = flows[slot]
            direction = side(flow, packet)
            if (
                direction >= 0
                and flow.way[direction].tunnel == tunnel
                and (session == 0 or flow.session == 0 or flow.session == session)
            ):
                return slot, direction
        slot = row.chain
    return np.int32(NIL), 0


@inner_kernel
def choose(state: State, packet: Any, key: Any, tunnel: Any, pair: Any, session: Any) -> Any:
    """Return (slot, direction, NIL) of the likeliest flow, or (NIL, 0, surplus) if none is likely.

    For a packet through a tunnel that no flow of its 5-tuple knows. `surplus` is a flow that has to
    be ended first, where there are `MAX_TWINS` of them; else NIL.
    """
    slot = state.buckets[np.int64(key & np.uint64(len(state.buckets) - 1))]
    best, best_slot, best_direction, rivals = NO, np.int32(NIL), 0, 0
    twins, last = 0, np.int32(NIL)
    while slot != NIL:
        row = state.slots[slot]
        if row.hash == key:
            flow = state.flows[slot]
            direction = side(flow, packet)
            if direction >= 0:
                degree = kinship(flow, direction, packet, tunnel, pair, session, state.partners)
                if degree > best:
                    best, best_slot, best_direction, rivals = degree, slot, direction, 0
                elif degree == best and degree != NO:
                    rivals += 1
                    if flow.last_ns > state.flows[best_slot].last_ns:
                        best_slot, best_direction = slot, direction
                twins += 1
                last = slot
        slot = row.chain
    if best != NO:
        state.counters[AMBIGUOUS] += rivals > 0
        return best_slot, best_direction, np.int32(NIL)
    return np.int32(NIL), 0, last if twins >= MAX_TWINS else np.int32(NIL)


@inner_kernel
def append(slots: Any, ends: Any, slot: Any, which: Any) -> Any:
    """Put `slot` at the newest end of the age list `which`; `slots` may be the head pool too."""
    row = slots[slot]
    newest = ends[which, 1]
    row.older = newest
    row.newer = NIL
    row.list = which
    if newest == NIL:
        ends[which, 0] = slot
    else:
        slots[newest].newer = slot
    ends[which, 1] = slot


@inner_kernel
def unlink(slots: Any, ends: Any, slot: Any) -> Any:
    """Take `slot` out of its age list."""
    row = slots[slot]
    if row.older == NIL:
        ends[row.list, 0] = row.newer
    else:
        slots[row.older].newer = row.newer
    if row.newer == NIL:
        ends[row.list, 1] = row.older
    else:
        slots[row.newer].older = row.older


@inner_kernel
def touch(slots: Any, ends: Any, slot: Any, which: Any) -> Any:
    """Move `slot` to the newest end of `which`; nothing to do when it is there already."""
    if ends[which, 1] != slot or slots[slot].list != which:
        unlink(slots, ends, slot)
        append(slots, ends, slot, which)


@inner_kernel
def enter(state: State, slot: Any, key: Any) -> Any:
    """Enter `slot` into the bucket of `key`."""
    bucket = np.int64(key & np.uint64(len(state.buckets) - 1))
    row = state.slots[slot]
    row.hash = key
    row.chain = state.buckets[bucket]
    state.buckets[bucket] = slot


@inner_kernel
def take_slot(state: State, key: Any) -> Any:
    """Take a free slot and enter it under `key`; the caller made sure that there is one."""
    state.counters[FREE] -= 1
    slot = state.free[state.counters[FREE]]
    state.counters[LIVE] += 1
    enter(state, slot, key)
    append(state.slots, state.ends, slot, OPEN)
    return slot


@inner_kernel
def release_slot(state: State, slot: Any) -> Any:
    """Forget `slot` and return it to the free list."""
    release_extra(state, state.flows[slot])
    unlink(state.slots, state.ends, slot)
    row = state.slots[slot]
    bucket = np.int64(row.hash & np.uint64(len(state.buckets) - 1))
    if state.buckets[bucket] == slot:
        state.buckets[bucket] = row.chain
    else:
        before = state.buckets[bucket]
        while state.slots[before].chain != slot:
            before = state.slots[before].chain
        state.slots[before].chain = row.chain
    row.hash = 0  # whoever remembers the slot sees that its flow is gone
    state.free[state.counters[FREE]] = slot
    state.counters[FREE] += 1
    state.counters[LIVE] -= 1


@kernel
def reindex(state: State) -> None:
    """Fill the buckets anew after the table has grown."""
    for which in (OPEN, CLOSING):
        slot = state.ends[which, 0]
        while slot != NIL:
            enter(state, slot, state.slots[slot].hash)
            slot = state.slots[slot].newer


@inner_kernel
def copy_flow(state: State, slot: Any, words: Any, sequences: Any, out: Any) -> Any:
    """Copy a flow with its extras and its packets to row `out` of arrays of finished ones."""
    own_words, own = state.flow_words, state.sequences
    size = own_words.shape[1]
    copy_run(words[out], 0, own_words[slot], 0, size)
    copy_run(words[out], size, state.extra_words[state.flows[slot].extra], 0, WORDS)
    for k in range(state.flows[slot].sequence_used):
        row = own[slot, k]
        copy = sequences[out, k]
        copy.gap_us = row.gap_us
        copy.size = row.size
        copy.payload = row.payload
        copy.flags = row.flags
