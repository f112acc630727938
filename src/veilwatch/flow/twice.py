"""Packets that were captured twice: in front of and behind a user-plane function (N3 and N6), by
two mirror sessions, on both VLANs of a router, in and out of one switch port. Counted once.

Copies agree in everything that no router changes: addresses and ports, identification, lengths,
sequence numbers, flags, checksum, and the first bytes of a payload that has no sequence numbers. A
copy that came another way (tunnel, VLAN, hop count, file) is known by that; of two tunnels one has
to begin where the other ends, as those on both sides of a relaying UPF do, for two subscribers may
well send the same. One that came the same way could also be the sender's repetition, so there
identification has to agree as well, which senders change (RFC 6864 cl. 4.2), or the payload has to
come again sooner than TCP would send it.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from veilwatch.flow.state import SEEN
from veilwatch.flow.tunnel import BARE
from veilwatch.flow.update import TCP
from veilwatch.hashing import mix
from veilwatch.jit import inline_kernel

WINDOW_NS: Final = 50_000_000
"""Longest time between two copies: mirrors differ by microseconds to milliseconds, while TCP waits
200 ms (RFC 6298) before it repeats itself."""

INSTANT_NS: Final = 1_000_000
"""The same for a copy on the same way without identification: no TCP repeats itself within a round
trip."""

PAYLOAD_BYTES: Final = 16
"""Payload bytes that take part where no sequence number does: RTP's and QUIC's numbers and DNS's
identifier are among them."""


@inline_kernel
def payload_hash(buffer: Any, packet: Any) -> Any:
    """Hash the first payload bytes."""
    value = np.uint64(packet.payload_length)
    start = packet.payload_offset
    for i in range(start, start + min(np.int64(packet.payload_captured), PAYLOAD_BYTES)):
        value = (value ^ np.uint64(buffer[i])) * np.uint64(0x100000001B3)  # FNV-1a
    return value


@inline_kernel
def content(buffer: Any, packet: Any, key: Any) -> Any:
    """Hash what all copies of a packet have in common; `key` is that of its 5-tuple."""
    a = np.uint64(packet.tcp_seq) << np.uint64(32) | np.uint64(packet.tcp_ack)
    b = np.uint64(packet.ip_id) << np.uint64(32) | np.uint64(packet.ip_length)
    c = np.uint64(packet.checksum) << np.uint64(48) | np.uint64(packet.tcp_window)
    d = np.uint64(packet.tcp_flags) << np.uint64(32) | np.uint64(packet.src_port)
    d |= np.uint64(packet.ip_version) << np.uint64(56)
    value = mix(key ^ a) + mix(packet.src_lo + b) ^ c ^ d
    if packet.protocol != TCP:
        value += payload_hash(buffer, packet)
    return mix(value)


@inline_kernel
def way(packet: Any, tunnel: Any, here: Any) -> Any:
    """Hash by which way a packet came."""
    place = np.uint64(packet.vlan) << np.uint64(40) | np.uint64(packet.ttl) << np.uint64(32)
    return np.uint32(mix((tunnel ^ here) + mix(place | np.uint64(packet.source))))


@inline_kernel
def on_one_path(row: Any, tunnel: Any, here: Any, there: Any) -> Any:
    """Whether two places can lie on one packet's path: one tunnel, none, or a relay's two."""
    here, there = np.uint32(here), np.uint32(there)
    if tunnel == BARE or row.tunnel == BARE:
        return True
    if np.uint32(tunnel) == row.tunnel and here == row.here:
        return True
    return here == row.there or there == row.here


@inline_kernel
def is_copy(
    row: Any,
    slots: Any,
    flows: Any,
    packet: Any,
    value: Any,
    path: Any,
    tunnel: Any,
    here: Any,
    there: Any,
) -> Any:
    """Whether a packet repeats the one in `row`, whose flow is alive."""
    if row.content != value or not on_one_path(row, tunnel, here, there):
        return False
    slot = row.slot
    if slots[slot].hash == 0 or np.uint32(flows[slot].parent_id) != row.parent:
        return False
    apart = abs(packet.ts_ns - row.ts_ns)
    if apart > WINDOW_NS:
        return False
    if row.way != path:
        return True
    if row.copied:  # twice is a mirror's doing, three times the sender's
        return False
    return packet.ip_id != 0 or (
        packet.protocol == TCP and packet.payload_length > 0 and apart <= INSTANT_NS
    )


@inline_kernel
def remember(
    row: Any,
    flow: Any,
    packet: Any,
    value: Any,
    path: Any,
    tunnel: Any,
    here: Any,
    there: Any,
    slot: Any,
) -> Any:
    """Keep what a copy will be known by."""
    row.content = value
    row.ts_ns = packet.ts_ns
    row.way = path
    row.tunnel = np.uint32(tunnel)
    row.here = np.uint32(here)
    row.there = np.uint32(there)
    row.slot = slot
    row.parent = np.uint32(flow.parent_id)
    row.copied = 0


@inline_kernel
def seen_at(seen: Any, value: Any) -> Any:
    """Return the row where a packet of this content is remembered."""
    return seen[np.int64(value & np.uint64(SEEN - 1))]
