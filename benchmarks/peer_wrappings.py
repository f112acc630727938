"""What NFStream, tshark and Veilwatch see of one conversation in each wrapping.

A conversation of ten datagrams each way between two addresses is written once for each wrapping; a
tool sees it if one flow (tshark: packets) has exactly these addresses. Prints a Markdown table::

    pip install nfstream        # beside Veilwatch; nothing else needs it
    python benchmarks/peer_wrappings.py
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from scapy.contrib.erspan import ERSPAN_II, ERSPAN_III
from scapy.contrib.geneve import GENEVE
from scapy.contrib.gtp import GTP_U_Header, GTPPDUSessionContainer
from scapy.contrib.mpls import MPLS
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import GRE, Dot1AD, Dot1Q, Ether
from scapy.layers.ppp import PPP, PPPoE
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw

from veilwatch.traffic.capture import PcapWriter
from veilwatch.traffic.pipeline import FlowReader

UE, SERVER = "10.45.0.7", "198.51.100.7"
A, B = "192.0.2.1", "192.0.2.2"
A6, B6 = "2001:db8::1", "2001:db8::2"
PACKETS: Final = 10
MAC = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}

Wrap = Callable[[Packet, bool], Packet]


def outer(up: bool, version: int = 4) -> Packet:
    """Return the tunnel's own IP header."""
    ends = (A, B) if version == 4 else (A6, B6)
    src, dst = ends if up else ends[::-1]
    return IP(src=src, dst=dst) if version == 4 else IPv6(src=src, dst=dst)


def gtp(inner: Packet, up: bool, version: int = 4) -> Packet:
    """Wrap in GTP-U with a PDU session container, as on N3."""
    header = GTP_U_Header(teid=5 if up else 7, gtp_type=255, E=1, next_ex=0x85)
    container = GTPPDUSessionContainer(type=1 if up else 0, QFI=9)
    return outer(up, version) / UDP(sport=2152, dport=2152) / header / container / inner


def frame(packet: Packet) -> Packet:
    """Put a packet into an Ethernet frame."""
    return Ether(**MAC) / packet


WRAPPINGS: Final[dict[str, Wrap]] = {
    "none": lambda inner, up: frame(inner),
    "802.1Q": lambda inner, up: Ether(**MAC) / Dot1Q(vlan=5) / inner,
    "802.1Q, another VLAN each way": lambda inner, up: (
        Ether(**MAC) / Dot1Q(vlan=5 if up else 6) / inner
    ),
    "QinQ (0x88a8)": lambda inner, up: Ether(**MAC) / Dot1AD(vlan=7) / Dot1Q(vlan=5) / inner,
    "MPLS": lambda inner, up: Ether(**MAC, type=0x8847) / MPLS(label=16, s=1, ttl=9) / inner,
    "PPPoE": lambda inner, up: (
        Ether(**MAC, type=0x8864) / PPPoE(sessionid=1) / PPP(proto=0x21) / inner
    ),
    "GRE": lambda inner, up: frame(outer(up) / GRE(proto=0x0800) / inner),
    "IP in IP": lambda inner, up: frame(outer(up) / inner),
    "ERSPAN II": lambda inner, up: frame(
        outer(up) / GRE(seqnum_present=1, proto=0x88BE) / ERSPAN_II() / frame(inner)
    ),
    "ERSPAN III": lambda inner, up: frame(
        outer(up) / GRE(seqnum_present=1, proto=0x22EB) / ERSPAN_III() / frame(inner)
    ),
    "VXLAN": lambda inner, up: frame(
        outer(up) / UDP(sport=50000, dport=4789) / VXLAN(vni=9, flags=8) / frame(inner)
    ),
    "GENEVE": lambda inner, up: frame(
        outer(up) / UDP(sport=50000, dport=6081) / GENEVE(vni=9, proto=0x6558) / frame(inner)
    ),
    "GTP-U": lambda inner, up: frame(gtp(inner, up)),
    "GTP-U over IPv6": lambda inner, up: frame(gtp(inner, up, 6)),
    "GTP-U in QinQ": lambda inner, up: (
        Ether(**MAC) / Dot1AD(vlan=7) / Dot1Q(vlan=5) / gtp(inner, up)
    ),
    "GTP-U in VXLAN": lambda inner, up: frame(
        outer(up) / UDP(sport=50000, dport=4789) / VXLAN(vni=9, flags=8) / frame(gtp(inner, up))
    ),
    "GTP-U in ERSPAN II": lambda inner, up: frame(
        outer(up) / GRE(seqnum_present=1, proto=0x88BE) / ERSPAN_II() / frame(gtp(inner, up))
    ),
    "GTP-U in GRE": lambda inner, up: frame(outer(up) / GRE(proto=0x0800) / gtp(inner, up)),
    "GTP-U in GTP-U": lambda inner, up: frame(gtp(gtp(inner, up), up)),
}


def write(path: Path, wrap: Wrap) -> None:
    """Write the conversation in one wrapping."""
    with PcapWriter(path) as writer:
        for k in range(PACKETS):
            for up in (True, False):
                src, dst = (UE, SERVER) if up else (SERVER, UE)
                ports = (40_000, 9999) if up else (9999, 40_000)
                inner = IP(src=src, dst=dst, id=2 * k + up) / UDP(sport=ports[0], dport=ports[1])
                time = 1_700_000_000_000_000_000 + k * 200_000_000 + (0 if up else 60_000_000)
                writer.write(time, bytes(wrap(inner / Raw(bytes([k]) * 40), up)))


def veilwatch(path: Path) -> str:
    """Return what Veilwatch makes of a capture."""
    with FlowReader([path]) as reader:
        rows = reader.read_all().frame.select("src_ip", "dst_ip", "fwd_packets", "bwd_packets")
    return verdict([(a, b, up + down) for a, b, up, down in rows.iter_rows()])


def nfstream(path: Path) -> str:
    """Return what NFStream makes of it."""
    try:
        from nfstream import NFStreamer
    except ImportError:
        return "not installed"
    streamer = NFStreamer(source=str(path), n_dissections=0, n_meters=1)
    return verdict([(f.src_ip, f.dst_ip, f.bidirectional_packets) for f in streamer])


def tshark(path: Path) -> str:
    """Return what tshark makes of it."""
    if shutil.which("tshark") is None:
        return "not installed"
    fields = ["-T", "fields", "-E", "occurrence=l", "-e", "ip.src", "-e", "ip.dst"]
    output = subprocess.run(
        ["tshark", "-r", str(path), "-n", *fields], capture_output=True, text=True, check=False
    ).stdout
    seen = sum({*line.split("\t")} == {UE, SERVER} for line in output.splitlines())
    return "inside" if seen == 2 * PACKETS else f"{seen} of {2 * PACKETS} packets"


def verdict(flows: list[tuple[str, str, int]]) -> str:
    """Say what a tool made of the conversation."""
    if not flows:
        return "no flow"
    mine = [count for src, dst, count in flows if {src, dst} == {UE, SERVER}]
    if not mine:
        return f"{len(flows)} outer flow" + "s" * (len(flows) > 1)
    if len(flows) > 1:
        return f"split in {len(flows)}"
    return "inside" if mine == [2 * PACKETS] else f"{mine[0]} packets"


def main() -> None:
    """Print the table."""
    print("| wrapping | Veilwatch | NFStream | tshark |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, wrap in WRAPPINGS.items():
            path = Path(folder) / "a.pcap"
            write(path, wrap)
            print(f"| {name} | {veilwatch(path)} | {nfstream(path)} | {tshark(path)} |", flush=True)


if __name__ == "__main__":
    main()
