"""Frames of many subscribers behind few tunnel end points, in every wrapping we balance by."""

from __future__ import annotations

from scapy.contrib.gtp import GTP_U_Header, GTPPDUSessionContainer
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

WRAPPINGS = (
    "plain",
    "gtp",
    "gtp with sequence number",
    "gtp with container",
    "gtp over IPv6",
    "gtp in a VLAN",
    "gtp in QinQ",
    "IPv6 in gtp",
)

MAC = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}


def frames(wrapping: str, subscriber: int, port: int = 2152) -> tuple[bytes, bytes]:
    """Return an uplink and a downlink frame of one subscriber; all have one server and one gNB."""
    if wrapping.startswith("IPv6"):
        up: Packet = IPv6(src=f"2001:db8:0:{subscriber:x}::1", dst="2001:db8:ffff::53")
        down: Packet = IPv6(src="2001:db8:ffff::53", dst=f"2001:db8:0:{subscriber:x}::1")
    else:
        address = f"10.45.{subscriber >> 8}.{subscriber & 255}"
        up, down = IP(src=address, dst="198.51.100.7"), IP(src="198.51.100.7", dst=address)
    own = 40_000 + WRAPPINGS.index(wrapping)  # what is seen in two wrappings is a copy
    up /= UDP(sport=own, dport=9999) / Raw(subscriber.to_bytes(4, "big"))
    down /= UDP(sport=9999, dport=own) / Raw(subscriber.to_bytes(4, "big"))
    return (
        bytes(_wrap(wrapping, up, uplink=True, port=port)),
        bytes(_wrap(wrapping, down, uplink=False, port=port)),
    )


def _wrap(wrapping: str, inner: Packet, *, uplink: bool, port: int) -> Packet:
    if wrapping == "plain":
        return Ether(**MAC) / inner
    teid = 0x1000 if uplink else 0x2000
    gtp = GTP_U_Header(teid=teid, gtp_type=255)
    if "sequence" in wrapping:
        gtp = GTP_U_Header(teid=teid, gtp_type=255, S=1, seq=7)
    if "container" in wrapping:
        gtp = GTP_U_Header(teid=teid, gtp_type=255, E=1, next_ex=0x85) / GTPPDUSessionContainer(
            type=1 if uplink else 0, QFI=9
        )
    ends = ("192.0.2.1", "192.0.2.2") if uplink else ("192.0.2.2", "192.0.2.1")
    if "over IPv6" in wrapping:
        source, target = (f"2001:db8:1::{end[-1]}" for end in ends)
        outer: Packet = IPv6(src=source, dst=target)
    else:
        outer = IP(src=ends[0], dst=ends[1])
    link: Packet = Ether(**MAC)
    if "VLAN" in wrapping:
        link /= Dot1Q(vlan=42)
    if "QinQ" in wrapping:
        link /= Dot1AD(vlan=7) / Dot1Q(vlan=42)
    return link / outer / UDP(sport=port, dport=port) / gtp / inner
