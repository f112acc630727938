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

from veilwatch.flow.tunnel import BARE
from veilwatch.flow.update import TCP, seq_distance
from veilwatch.hashing import mix
from veilwatch.jit import inline_kernel

WINDOW_US: Final = 50_000
"""Longest time between two copies: mirrors differ by microseconds to milliseconds, while TCP waits
200 ms (RFC 6298) before it repeats itself."""

INSTANT_US: Final = 1000
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
    value = key ^ packet.src_lo ^ (np.uint64(packet.src_port) << np.uint64(40))
    value ^= np.uint64(packet.ip_version) << np.uint64(56)
    value = mix(value + (np.uint64(packet.tcp_seq) << np.uint64(32) | np.uint64(packet.tcp_ack)))
    value += np.uint64(packet.ip_id) << np.uint64(32) | np.uint64(packet.ip_length)
    value ^= np.uint64(packet.checksum) << np.uint64(48) | np.uint64(packet.tcp_window)
    value += np.uint64(packet.tcp_flags) << np.uint64(24)
    if packet.protocol != TCP:
        value += payload_hash(buffer, packet)
    return mix(value)


@inline_kernel
def same_way(row: Any, packet: Any, tunnel: Any, here: Any) -> Any:
    """Whether a packet came as the one in `row` did."""
    return (
        row.tunnel == np.uint32(tunnel)
        and row.here == np.uint16(here)
        and row.ttl == packet.ttl
        and row.vlan == packet.vlan
        and row.source == np.uint16(packet.source)
    )


@inline_kernel
def on_one_path(row: Any, tunnel: Any, here: Any, there: Any) -> Any:
    """Whether two places can lie on one packet's path: one tunnel, none, or a relay's two."""
    if tunnel == BARE or row.tunnel == BARE:
        return True
    if row.tunnel == np.uint32(tunnel) and row.here == np.uint16(here):
        return True
    return np.uint16(here) == row.there or np.uint16(there) == row.here


@inline_kernel
def is_copy(row: Any, flow: Any, packet: Any, tunnel: Any, here: Any, there: Any) -> Any:
    """Whether a packet repeats the one in `row`, of equal content; `flow` lies in its slot."""
    if np.uint16(flow.parent_id) != row.parent or not on_one_path(row, tunnel, here, there):
        return False
    apart = abs(seq_distance(microseconds(packet), row.ts_us))
    if apart > WINDOW_US:
        return False
    if not same_way(row, packet, tunnel, here):
        return True
    if row.copied:  # twice is a mirror's doing, three times the sender's
        return False
    return packet.ip_id != 0 or (
        packet.protocol == TCP and packet.payload_length > 0 and apart <= INSTANT_US
    )


@inline_kernel
def microseconds(packet: Any) -> Any:
    """Return the low half of a packet's time in µs."""
    return np.uint32(packet.ts_ns // 1000)


@inline_kernel
def remember(
    row: Any, flow: Any, packet: Any, value: Any, tunnel: Any, here: Any, there: Any, slot: Any
) -> Any:
    """Keep what a copy will be known by."""
    row.content = value
    row.ts_us = microseconds(packet)
    row.slot = slot
    row.tunnel = np.uint32(tunnel)
    row.here = np.uint16(here)
    row.there = np.uint16(there)
    row.parent = np.uint16(flow.parent_id)
    row.vlan = packet.vlan
    row.source = np.uint16(packet.source)
    row.ttl = packet.ttl
    row.copied = 0
