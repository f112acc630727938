"""Finding, linking and releasing rows of the flow table."""

from __future__ import annotations

from typing import Any

import numpy as np

from veilwatch.flow.state import CLOSING, FREE, LIVE, NIL, OPEN, State
from veilwatch.jit import inline_kernel, kernel

# What runs for every packet takes the arrays that it needs and not the whole State: passing a
# tuple of arrays counts references on each of them, which was measured at 100 ns a call.


@inline_kernel
def mix(value: np.uint64) -> np.uint64:
    """Spread the bits of `value` (finaliser of SplitMix64, Steele et al. 2014)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@inline_kernel
def end_point(high: np.uint64, low: np.uint64, port: np.uint64, seed: np.uint64) -> np.uint64:
    """Hash one address and port."""
    return mix(mix(high ^ seed) + mix(low + seed) + (port << np.uint64(17)))


@inline_kernel
def tunnel_domain(packet: Any) -> Any:
    """Return the domain of a packet: 0 outside GTP, else the same for both directions.

    Two subscribers with one inner address behind different tunnel end points stay apart; uplink
    and downlink TEIDs differ by design (TS 29.281 cl. 4.2.1) and so do not take part.
    """
    if packet.gtp_depth == 0:
        return np.uint64(0)
    zero = np.uint64(0)
    a = end_point(packet.outer_src_hi, packet.outer_src_lo, zero, zero)
    b = end_point(packet.outer_dst_hi, packet.outer_dst_lo, zero, zero)
    return (a + b) | np.uint64(1)


@inline_kernel
def flow_hash(packet: Any, domain: Any, seed: Any) -> Any:
    """Hash a packet's 5-tuple and domain; both directions give the same value.

    `seed` is drawn per process, so that nobody can choose addresses that collide.
    """
    a = end_point(packet.src_hi, packet.src_lo, np.uint64(packet.src_port), seed)
    b = end_point(packet.dst_hi, packet.dst_lo, np.uint64(packet.dst_port), seed)
    return mix((a + b) ^ mix(domain + np.uint64(packet.protocol)))


@inline_kernel
def find(buckets: Any, slots: Any, flows: Any, packet: Any, domain: Any, key: Any) -> Any:
    """Return (slot, direction of the packet in that flow), or (NIL, 0)."""
    slot = buckets[np.int64(key & np.uint64(len(buckets) - 1))]
    while slot != NIL:
        row = slots[slot]
        if row.hash == key:
            flow = flows[slot]
            if (
                flow.protocol == packet.protocol
                and flow.ip_version == packet.ip_version
                and flow.domain == domain
            ):
                if (
                    flow.src_lo == packet.src_lo
                    and flow.dst_lo == packet.dst_lo
                    and flow.src_port == packet.src_port
                    and flow.dst_port == packet.dst_port
                    and flow.src_hi == packet.src_hi
                    and flow.dst_hi == packet.dst_hi
                ):
                    return slot, 0
                if (
                    flow.src_lo == packet.dst_lo
                    and flow.dst_lo == packet.src_lo
                    and flow.src_port == packet.dst_port
                    and flow.dst_port == packet.src_port
                    and flow.src_hi == packet.dst_hi
                    and flow.dst_hi == packet.src_hi
                ):
                    return slot, 1
        slot = row.chain
    return np.int32(NIL), 0


@inline_kernel
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


@inline_kernel
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


@inline_kernel
def touch(slots: Any, ends: Any, slot: Any, which: Any) -> Any:
    """Move `slot` to the newest end of `which`; nothing to do when it is there already."""
    if ends[which, 1] != slot or slots[slot].list != which:
        unlink(slots, ends, slot)
        append(slots, ends, slot, which)


@inline_kernel
def enter(state: State, slot: Any, key: Any) -> Any:
    """Enter `slot` into the bucket of `key`."""
    bucket = np.int64(key & np.uint64(len(state.buckets) - 1))
    row = state.slots[slot]
    row.hash = key
    row.chain = state.buckets[bucket]
    state.buckets[bucket] = slot


@inline_kernel
def take_slot(state: State, key: Any) -> Any:
    """Take a free slot and enter it under `key`; the caller made sure that there is one."""
    state.counters[FREE] -= 1
    slot = state.free[state.counters[FREE]]
    state.counters[LIVE] += 1
    enter(state, slot, key)
    append(state.slots, state.ends, slot, OPEN)
    return slot


@inline_kernel
def release_slot(state: State, slot: Any) -> Any:
    """Forget `slot` and return it to the free list."""
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
