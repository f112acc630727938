"""Building of GTP-U frames as a probe on an N3 (or S1-U) link would see them.

Sources: 3GPP TS 29.281 clause 5 (GTP-U header and extension headers), TS 38.415 clause 5.5
(PDU session container), RFC 791, RFC 768, RFC 8200, RFC 6935 (zero UDP checksum in tunnels).
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Final

GTPU_PORT: Final = 2152
"""UDP port of GTP-U, TS 29.281 clause 4.4.2."""

MAX_TEID: Final = 2**32 - 1

MAX_INNER: Final = 65_535 - 20 - 8 - 16
"""Longest inner packet: the outer IPv4 length field also counts IP, UDP and GTP-U headers."""

_G_PDU: Final = 0xFF
_PDU_SESSION_CONTAINER: Final = 0x85
_TUNNEL_TTL: Final = 64

IPAddress = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Subscriber:
    """One PDU session: the subscriber's address and the pair of tunnels that carries it.

    Attributes
    ----------
    address
        Inner address of the UE.
    uplink_teid, downlink_teid
        TEID that the UPF gave out (packets towards it) and that the gNB gave out.
    qfi
        QoS flow identifier, 0…63.
    gnb, upf
        Tunnel end points; both IPv4 or both IPv6.
    """

    address: IPAddress
    uplink_teid: int
    downlink_teid: int
    qfi: int
    gnb: IPAddress
    upf: IPAddress

    def __post_init__(self) -> None:
        if self.gnb.version != self.upf.version:
            raise ValueError("gNB and UPF address are of different IP versions")
        if not 0 <= self.qfi < 64:
            raise ValueError(f"QFI {self.qfi} is outside 0…63")
        for teid in (self.uplink_teid, self.downlink_teid):
            if not 0 < teid <= MAX_TEID:
                raise ValueError(f"TEID {teid} is outside 1…{MAX_TEID}")


def word_sum(data: bytes) -> int:
    """Sum the 16-bit big-endian words of `data` in one's-complement arithmetic.

    2^16 is 1 modulo 65535, so the whole string read as one number leaves the same remainder:
    one division in C instead of a loop over words. An odd last byte is padded with zero.
    """
    number = int.from_bytes(data, "big")
    return (number << 8 if len(data) & 1 else number) % 0xFFFF


def checksum(total: int) -> int:
    """Return the Internet checksum (RFC 1071) of non-zero data whose `word_sum` is `total`."""
    return 0xFFFF - (total % 0xFFFF or 0xFFFF)


@lru_cache(maxsize=65_536)
def mac_of(address: IPAddress) -> bytes:
    """Return a locally administered unicast MAC that always belongs to `address`."""
    return b"\x02" + hashlib.sha256(address.packed).digest()[:5]


@dataclass(frozen=True, slots=True)
class _Leg:
    """What all frames of one tunnel direction have in common."""

    ethernet: bytes
    source: bytes
    destination: bytes
    address_sum: int
    gtp_flags: int
    teid: int
    options: bytes  # optional fields and extension header of GTP-U


@lru_cache(maxsize=65_536)
def _leg(subscriber: Subscriber, uplink: bool, pdu_session: bool) -> _Leg:
    ends = (subscriber.gnb, subscriber.upf)
    source, destination = ends if uplink else ends[::-1]
    ethertype = 0x0800 if source.version == 4 else 0x86DD
    options = b""
    if pdu_session:
        # sequence number 0, N-PDU number 0, next extension; then the container of 4 octets:
        # length in 4 octets, PDU type (1 uplink, 0 downlink) in the high nibble, QFI, no more
        options = struct.pack(
            "!HBBBBBB", 0, 0, _PDU_SESSION_CONTAINER, 1, uplink << 4, subscriber.qfi, 0
        )
    return _Leg(
        ethernet=mac_of(destination) + mac_of(source) + ethertype.to_bytes(2, "big"),
        source=source.packed,
        destination=destination.packed,
        address_sum=word_sum(source.packed + destination.packed),
        gtp_flags=0x34 if pdu_session else 0x30,  # version 1, GTP; E: extension header follows
        teid=subscriber.uplink_teid if uplink else subscriber.downlink_teid,
        options=options,
    )


def wrap(
    ip_packet: bytes,
    subscriber: Subscriber,
    *,
    uplink: bool,
    pdu_session: bool,
    length: int | None = None,
) -> bytes:
    """Wrap one IP packet in Ethernet, outer IP, UDP and GTP-U.

    Parameters
    ----------
    ip_packet
        The inner packet, as far as it was captured.
    subscriber
        Whose tunnel carries it.
    uplink
        Whether it runs from the gNB to the UPF.
    pdu_session
        Whether a PDU session container with QFI and PDU type is added (5G).
    length
        Bytes of the inner packet on the wire if the capture holds fewer. The headers then state
        the whole length and the UDP checksum is 0 ("not computed"), as it covers missing bytes.

    Returns
    -------
    bytes
        The frame; the same input always gives the same frame.

    Raises
    ------
    ValueError
        If the inner packet is longer than `MAX_INNER`.
    """
    leg = _leg(subscriber, uplink, pdu_session)
    inner = len(ip_packet) if length is None else length
    if inner > MAX_INNER:
        raise ValueError(f"inner packet of {inner} bytes leaves no room for the tunnel headers")
    gtp = (
        struct.pack("!BBHI", leg.gtp_flags, _G_PDU, len(leg.options) + inner, leg.teid)
        + leg.options
    )
    udp_length = 8 + len(gtp) + inner
    if inner == len(ip_packet):
        total = (
            leg.address_sum
            + 17  # protocol number in the pseudo-header
            + 2 * udp_length  # pseudo-header and UDP header
            + 2 * GTPU_PORT
            + word_sum(gtp)
            + word_sum(ip_packet)
        )
        udp_sum = checksum(total) or 0xFFFF
    else:
        udp_sum = 0
    if len(leg.source) == 4:
        ip_length = 20 + udp_length
        fixed = 0x4500 + ip_length + 0x4000 + ((_TUNNEL_TTL << 8) | 17) + leg.address_sum
        outer = struct.pack(
            "!BBHHHBBH", 0x45, 0, ip_length, 0, 0x4000, _TUNNEL_TTL, 17, checksum(fixed)
        )
    else:
        outer = struct.pack("!IHBB", 0x60000000, udp_length, 17, _TUNNEL_TTL)
    udp = struct.pack("!HHHH", GTPU_PORT, GTPU_PORT, udp_length, udp_sum)
    return b"".join((leg.ethernet, outer, leg.source, leg.destination, udp, gtp, ip_packet))
