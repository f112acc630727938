"""Packets that were captured more than once, counted once.

They come from several places (N3 and N6, two mirror sessions, both VLANs of a router, every
interface of a bridge), or twice from one, by a mirror of both directions.

Copies agree in everything that no router changes: addresses and ports, identification, lengths,
sequence numbers, flags, checksum, and the first bytes of a payload that has no sequence numbers. A
copy from another place (interface, link addresses, tunnel, VLAN, hop count, file) is known by that;
of two tunnels one has to begin where the other ends, as those on both sides of a relaying UPF do,
for two subscribers may well send the same. However many places show a packet, all but the first are
copies: the packets of a flow are those of the place that showed them first.

What comes again from the same place may as well be the sender's repetition (keep-alives, comfort
noise, duplicate acknowledgements), and time does not tell: senders repeat within microseconds too.
Two things do. TCP does not send the same sequence numbers twice within a round trip. And an equal
identification tells where the sender changes it from packet to packet, which is learned for each
direction of a flow: atomic datagrams may carry any value (RFC 6864 cl. 4.1), and some senders never
change it. IPv6 has none.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from veilwatch.jit import inline_kernel, inner_kernel
from veilwatch.traffic.flow.stream import FIN, SYN, seq_distance
from veilwatch.traffic.flow.tunnel import BARE
from veilwatch.traffic.flow.update import TCP
from veilwatch.traffic.hashing import mix

WINDOW_US: Final = 50_000
"""Longest time between two copies: mirrors differ by microseconds to milliseconds, while TCP waits
200 ms (RFC 6298) before it repeats itself."""

INSTANT_US: Final = 1000
"""Time within which a segment from the same place is a copy without a telling identification, where
it has bytes or flags that are numbered: no TCP repeats those within a round trip."""

PAYLOAD_BYTES: Final = 16
"""Payload bytes that take part where no sequence number does: RTP's and QUIC's numbers and DNS's
identifier are among them."""

MOST_SEEN: Final = 255
"""Where the counts of changed and unchanged identifications stop: one byte each."""


@inner_kernel
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


@inner_kernel
def place(packet: Any) -> Any:
    """Hash where a packet was captured, but for its tunnel; 32 bits, as `content` agrees."""
    high = np.uint64(packet.source) ^ (np.uint64(packet.ttl) << np.uint64(24))
    low = np.uint64(packet.interface) << np.uint64(16) | np.uint64(packet.vlan)
    return np.uint32(mix(high << np.uint64(32) | low))


@inner_kernel
def same_place(row: Any, packet: Any, tunnel: Any, here: Any) -> Any:
    """Whether a packet was captured where the one in `row` was."""
    return (
        row.tunnel == np.uint32(tunnel)
        and row.here == np.uint16(here)
        and row.place == place(packet)
    )


@inner_kernel
def on_one_path(row: Any, tunnel: Any, here: Any, there: Any) -> Any:
    """Whether two places can lie on one packet's path: one tunnel, none, or a relay's two."""
    if tunnel == BARE or row.tunnel == BARE:
        return True
    if row.tunnel == np.uint32(tunnel) and row.here == np.uint16(here):
        return True
    return np.uint16(here) == row.there or np.uint16(there) == row.here


@inner_kernel
def is_copy(row: Any, sender: Any, packet: Any, wide: Any, here: Any, there: Any) -> Any:
    """Whether a packet repeats the one in `row`, of equal content and the same flow.

    Parameters
    ----------
    sender
        The packet's direction of the flow: what was learned of its identifications.
    wide, here, there
        The packet's tunnel and its end points, see `tunnel.tunnel_of`.
    """
    if not on_one_path(row, wide, here, there):
        return False
    apart = abs(seq_distance(microseconds(packet), row.ts_us))
    if apart > WINDOW_US:
        return False
    if not same_place(row, packet, wide, here):
        return True
    if packet.ip_id != 0 and sender.id_changes > sender.id_repeats:
        return True
    if packet.protocol != TCP or apart >= INSTANT_US:
        return False
    # Who sends SYN after SYN without an identification is a scanner rather than a mirror.
    opens = packet.tcp_flags & (SYN | FIN) != 0 and packet.ip_id != 0
    return packet.payload_length > 0 or opens


@inner_kernel
def learn(sender: Any, packet: Any, repeated: Any) -> Any:
    """Learn from a packet that is no copy whether its sender changes the identification.

    An equal one counts against that only where the packets differ otherwise: `repeated` says that
    this one may be a copy after all.
    """
    identification = np.uint16(packet.ip_id)
    if identification == 0:
        return
    last = sender.ip_id
    sender.ip_id = identification
    if last == 0:
        return
    if last != identification:
        if sender.id_changes < MOST_SEEN:
            sender.id_changes += np.uint8(1)
    elif not repeated and sender.id_repeats < MOST_SEEN:
        sender.id_repeats += np.uint8(1)


@inner_kernel
def microseconds(packet: Any) -> Any:
    """Return the low half of a packet's time in µs."""
    return np.uint32(packet.ts_ns // 1000)


@inner_kernel
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
    row.place = place(packet)
