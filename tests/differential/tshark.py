"""What tshark says of each packet, layer by layer: the other side of the differential tests."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LAYER_FIELDS: Final = {
    "vlan": ("vlan.id",),
    "ieee8021ad": ("ieee8021ad.id",),
    "ip": (
        *("ip.src", "ip.dst", "ip.proto", "ip.len", "ip.hdr_len", "ip.ttl", "ip.id"),
        *("ip.dsfield", "ip.flags.mf", "ip.frag_offset"),
    ),
    "ipv6": ("ipv6.src", "ipv6.dst", "ipv6.nxt", "ipv6.plen", "ipv6.hlim", "ipv6.tclass"),
    "ipv6.fraghdr": (
        *("ipv6.fraghdr.nxt", "ipv6.fraghdr.offset"),
        *("ipv6.fraghdr.more", "ipv6.fraghdr.ident"),
    ),
    "ipv6.hopopts": ("ipv6.hopopts.nxt", "ipv6.hopopts.len_oct"),
    "ipv6.dstopts": ("ipv6.dstopts.nxt", "ipv6.dstopts.len_oct"),
    "ipv6.routing": ("ipv6.routing.nxt", "ipv6.routing.len_oct"),
    "ah": ("ah.next_header", "ah.length"),
    "tcp": (
        *("tcp.srcport", "tcp.dstport", "tcp.seq_raw", "tcp.ack_raw", "tcp.flags"),
        *("tcp.window_size_value", "tcp.checksum", "tcp.hdr_len"),
        *("tcp.options.mss_val", "tcp.options.wscale.shift"),
    ),
    "udp": ("udp.srcport", "udp.dstport", "udp.length", "udp.checksum"),
    "udplite": ("udp.srcport", "udp.dstport", "udp.checksum"),
    "dccp": ("dccp.srcport", "dccp.dstport", "dccp.checksum", "dccp.data_offset"),
    "sctp": ("sctp.srcport", "sctp.dstport"),
    "icmp": ("icmp.type", "icmp.code", "icmp.checksum"),
    "icmpv6": ("icmpv6.type", "icmpv6.code", "icmpv6.checksum"),
    "gtp": (
        *("gtp.message", "gtp.teid", "gtp.ext_hdr", "gtp.ext_hdr.next"),
        *("gtp.ext_hdr.pdu_ses_con.pdu_type", "gtp.ext_hdr.pdu_ses_con.qos_flow_id"),
    ),
}
"""Fields by the name that a layer has in `frame.protocols`."""

OPTIONAL: Final = {
    *("tcp.options.mss_val", "tcp.options.wscale.shift"),
    *("gtp.teid", "gtp.ext_hdr", "gtp.ext_hdr.next"),
    *("gtp.ext_hdr.pdu_ses_con.pdu_type", "gtp.ext_hdr.pdu_ses_con.qos_flow_id"),
}
"""Fields that a whole header may lack."""

TCP_ANALYSIS: Final = (
    *("retransmission", "fast_retransmission", "spurious_retransmission"),
    *("out_of_order", "lost_segment", "keep_alive", "zero_window", "zero_window_probe"),
)

FRAME_FIELDS: Final = (
    *("frame.protocols", "_ws.short", "_ws.malformed", "_ws.expert.message"),
    *(f"tcp.analysis.{name}" for name in TCP_ANALYSIS),
)

SETTINGS: Final = (
    # A fragment is a packet here; what lies in it is to be seen at that packet.
    *("-o", "ip.defragment:FALSE", "-o", "ipv6.defragment:FALSE"),
    *("-o", "tcp.desegment_tcp_streams:FALSE"),
    *("-d", "udp.port==8472,vxlan"),  # the port that Linux uses
)

AMBIGUOUS: Final = "?"
"""Stands before the values of a field that some layer of this name lacks: whose they are is not
said."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One header: its name, and the values of each of its fields; one that is absent has none."""

    name: str
    values: dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame: its headers from the outermost in, and what tshark holds against it."""

    layers: list[Layer]
    short: bool
    malformed: bool
    expert: str
    analysis: frozenset[str]

    @property
    def path(self) -> str:
        """Names of all layers."""
        return ":".join(layer.name for layer in self.layers)


def frames(capture: Path) -> Iterator[Frame]:
    """Let tshark read a capture."""
    columns = [*FRAME_FIELDS, *(name for names in LAYER_FIELDS.values() for name in names)]
    command = ["tshark", "-n", "-r", str(capture), *SETTINGS, "-T", "fields", "-E", "aggregator=|"]
    for name in columns:
        command += ["-e", name]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, errors="replace"
    ) as process:
        assert process.stdout
        for line in process.stdout:
            yield _frame(dict(zip(columns, line.rstrip("\n").split("\t"), strict=True)))


def _frame(row: dict[str, str]) -> Frame:
    path = row["frame.protocols"].split(":")
    totals = {name: path.count(name) for name in LAYER_FIELDS.keys() & {*path}}
    seen = dict.fromkeys(totals, 0)
    layers = []
    for name in path:
        values = {}
        if name in totals:
            for column in LAYER_FIELDS[name]:
                found = row[column].split("|") if row[column] else []
                values[column] = _share(column, found, seen[name], totals[name])
            seen[name] += 1
        layers.append(Layer(name, values))
    analysis = frozenset(name for name in TCP_ANALYSIS if row[f"tcp.analysis.{name}"])
    return Frame(
        layers,
        bool(row["_ws.short"]),
        bool(row["_ws.malformed"]),
        row["_ws.expert.message"],
        analysis,
    )


def _share(column: str, found: list[str], at: int, total: int) -> list[str]:
    """Return which of a field's values belong to layer `at` of `total` with one name."""
    if total == 1:
        return found
    # Only the last header of a name can be cut.
    if len(found) == total or (len(found) < total and column not in OPTIONAL):
        return found[at : at + 1]
    return [AMBIGUOUS, *found] if found else []
