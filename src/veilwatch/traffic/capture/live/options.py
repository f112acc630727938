"""Options of packet sockets (linux/if_packet.h), and what the user may choose of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from veilwatch.errors import VeilwatchError
from veilwatch.schema.packets import MAX_CAPTURED

SOL_PACKET: Final = 263
PACKET_ADD_MEMBERSHIP: Final = 1
PACKET_RX_RING: Final = 5
PACKET_STATISTICS: Final = 6
PACKET_AUXDATA: Final = 8
PACKET_VERSION: Final = 10
PACKET_RESERVE: Final = 12
PACKET_IGNORE_OUTGOING: Final = 23
PACKET_MR_PROMISC: Final = 1
SO_TIMESTAMPNS: Final = 35
ETH_P_ALL: Final = 0x0003

VLAN_VALID: Final = 1 << 4
"""Bit of tp_status: a VLAN tag was stripped into tp_vlan_tci."""

TPID_VALID: Final = 1 << 6
"""Bit of tp_status: tp_vlan_tpid tells which kind of tag; 802.1Q otherwise."""

VLAN_BYTES: Final = 4
MAC_BYTES: Final = 12  # of both addresses, in front of the tag

MIN_SNAPLEN: Final = 128
"""Shortest capture length: Ethernet, IPv6, UDP, GTP-U and the inner headers must fit."""

MAX_RING_MB: Final = 16_384
"""Largest ring: the kernel never swaps it out."""

RETIRE_MS: Final = 50
"""How long the kernel keeps a block that is not full, and how long we wait before saying that
nothing comes: short enough that a stop takes effect within 200 ms, long enough that a quiet link
costs nothing."""


@dataclass(frozen=True, slots=True)
class LiveSettings:
    """How to capture.

    Attributes
    ----------
    ring_mb
        Size of the ring of each socket, MiB: what may arrive while nobody reads.
    snaplen
        Most bytes captured of a packet.
    promiscuous
        Whether to see frames for other stations, as a mirror carries them.

    Raises
    ------
    VeilwatchError
        If a value is out of range.
    """

    ring_mb: int = 64
    snaplen: int = MAX_CAPTURED
    promiscuous: bool = True

    def __post_init__(self) -> None:
        for name, value, least, most in (
            ("ring_mb", self.ring_mb, 1, MAX_RING_MB),
            ("snaplen", self.snaplen, MIN_SNAPLEN, MAX_CAPTURED),
        ):
            if not least <= value <= most:
                raise VeilwatchError(
                    "out of range", where=name, hint=f"give a value from {least} to {most}"
                )
