"""tshark's layers in the words of `PACKET_DTYPE`: one reading for each IP header of a frame."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from tests.differential.tshark import AMBIGUOUS, Frame, Layer
from veilwatch.schema.packets import NONE8
from veilwatch.traffic.decode.gtp_u import PACKED_EXTENSIONS

EXTENSIONS: Final = {
    "ipv6.hopopts": ("ipv6.hopopts.nxt", "ipv6.hopopts.len_oct"),
    "ipv6.dstopts": ("ipv6.dstopts.nxt", "ipv6.dstopts.len_oct"),
    "ipv6.routing": ("ipv6.routing.nxt", "ipv6.routing.len_oct"),
    "ipv6.fraghdr": ("ipv6.fraghdr.nxt", ""),  # 8 bytes
    "ah": ("ah.next_header", "ah.length"),
}
"""Name of the next header, and length of this one."""

TRANSPORTS: Final[dict[str, dict[str, str]]] = {
    "tcp": {
        "src_port": "tcp.srcport",
        "dst_port": "tcp.dstport",
        "tcp_seq": "tcp.seq_raw",
        "tcp_ack": "tcp.ack_raw",
        "tcp_flags": "tcp.flags",
        "tcp_window": "tcp.window_size_value",
        "checksum": "tcp.checksum",
        "transport_header": "tcp.hdr_len",
    },
    "udp": {
        "src_port": "udp.srcport",
        "dst_port": "udp.dstport",
        "checksum": "udp.checksum",
        "udp_length": "udp.length",
    },
    "udplite": {"src_port": "udp.srcport", "dst_port": "udp.dstport", "checksum": "udp.checksum"},
    "dccp": {
        "src_port": "dccp.srcport",
        "dst_port": "dccp.dstport",
        "checksum": "dccp.checksum",
        "transport_header": "dccp.data_offset",  # in words of four bytes
    },
    "sctp": {"src_port": "sctp.srcport", "dst_port": "sctp.dstport"},
    "icmp": {"icmp_type": "icmp.type", "icmp_code": "icmp.code", "checksum": "icmp.checksum"},
    "icmpv6": {
        "icmp_type": "icmpv6.type",
        "icmp_code": "icmpv6.code",
        "checksum": "icmpv6.checksum",
    },
}
HEADER_BYTES: Final = {"udp": 8, "udplite": 8, "sctp": 12, "icmp": 8, "icmpv6": 8}

SYN: Final = 2
G_PDU: Final = 255
WHOLE, FIRST, LATER = 0, 1, 2

Fields = dict[str, int]


@dataclass
class Reading:
    """One IP header and what follows it up to the next one.

    Attributes
    ----------
    fields
        By the names of `PACKET_DTYPE`, as far as tshark tells them; addresses as one number.
    quoted
        Whether it lies inside an ICMP message: an excerpt of a packet and not one that travels.
    after
        Names of the layers behind the header, up to the next IP header.
    unsure
        Values of fields that tshark gives for several layers without saying for which.
    """

    fields: Fields
    quoted: bool
    after: list[str] = field(default_factory=list)
    unsure: dict[str, set[int]] = field(default_factory=dict)

    @property
    def transport(self) -> bool:
        """Whether tshark recognised a header above IP that we read as well."""
        return bool({*TRANSPORTS} & {*self.after})


@cache
def address(text: str) -> int:
    """Return an address as a number, IPv4 as ::ffff:a.b.c.d."""
    return int(IPv6Address(text)) if ":" in text else 0xFFFF << 32 | int(IPv4Address(text))


def readings(frame: Frame) -> list[Reading]:
    """Return the IP packets of a frame from the outermost in; a header that is cut is none."""
    found: list[Reading] = []
    around: Fields = {"vlan": 0, "gtp_depth": 0}
    unsure: dict[str, set[int]] = {}
    quoted = False
    for layer in frame.layers:
        if layer.name in ("ip", "ipv6"):
            fields = ipv4(layer) if layer.name == "ip" else ipv6(layer)
            if fields is not None:
                found.append(Reading(around | fields, quoted, unsure=dict(unsure)))
            continue
        if layer.name in ("vlan", "ieee8021ad"):
            around["vlan"] = last(layer, f"{layer.name}.id", around["vlan"])
        if not found:
            continue
        here = found[-1]
        here.after.append(layer.name)
        if layer.name in EXTENSIONS:
            extension(layer, here.fields)
        elif layer.name in TRANSPORTS and not {*TRANSPORTS} & {*here.after[:-1]}:
            quoted = quoted or layer.name.startswith("icmp")
            transport(layer, here)
        elif layer.name == "gtp":
            gtp(layer, here, around, unsure)
    return found


def last(layer: Layer, name: str, default: int = -1) -> int:
    """Return the last value of a field; `default` where there is none, or whose it is unsure."""
    found = layer.values.get(name)
    if not found or found[0] == AMBIGUOUS:
        return default
    return int(found[-1], 0)


def ipv4(layer: Layer) -> Fields | None:
    """Read an IPv4 header; None where tshark did not reach its end."""
    if not layer.values["ip.dst"] or layer.values["ip.dst"][0] == AMBIGUOUS:
        return None
    length, header = last(layer, "ip.len"), last(layer, "ip.hdr_len")
    position = 8 * last(layer, "ip.frag_offset")
    more = last(layer, "ip.flags.mf") == 1
    return {
        "ip_version": 4,
        "src": address(layer.values["ip.src"][0]),
        "dst": address(layer.values["ip.dst"][0]),
        "protocol": last(layer, "ip.proto"),
        "ip_length": length,
        "ip_header": header,
        "payload_length": length - header,
        "ttl": last(layer, "ip.ttl"),
        "ip_id": last(layer, "ip.id"),
        "dscp": last(layer, "ip.dsfield"),
        "fragment": LATER if position else FIRST if more else WHOLE,
        "fragment_offset": position,
    }


def ipv6(layer: Layer) -> Fields | None:
    """Read an IPv6 header; None where tshark did not reach its end."""
    if not layer.values["ipv6.dst"] or layer.values["ipv6.dst"][0] == AMBIGUOUS:
        return None
    return {
        "ip_version": 6,
        "src": address(layer.values["ipv6.src"][0]),
        "dst": address(layer.values["ipv6.dst"][0]),
        "protocol": last(layer, "ipv6.nxt"),
        "ip_length": 40 + last(layer, "ipv6.plen"),
        "ip_header": 40,
        "payload_length": last(layer, "ipv6.plen"),
        "ttl": last(layer, "ipv6.hlim"),
        "ip_id": 0,
        "dscp": last(layer, "ipv6.tclass"),
        "fragment": WHOLE,
        "fragment_offset": 0,
    }


def extension(layer: Layer, mine: Fields) -> None:
    """Read an extension header."""
    following, length = EXTENSIONS[layer.name]
    mine["protocol"] = last(layer, following, mine["protocol"])
    size = 4 * last(layer, length) + 8 if layer.name == "ah" else last(layer, length, 8)
    mine["ip_header"] += size
    mine["payload_length"] -= size
    if layer.name == "ipv6.fraghdr":
        mine["ip_id"] = last(layer, "ipv6.fraghdr.ident")
        position = 8 * last(layer, "ipv6.fraghdr.offset")
        mine["fragment_offset"] = position
        mine["fragment"] = LATER if position else last(layer, "ipv6.fraghdr.more")


def transport(layer: Layer, here: Reading) -> None:
    """Read the header above IP, as far as tshark got."""
    mine = here.fields
    for ours, theirs in TRANSPORTS[layer.name].items():
        value = last(layer, theirs)
        if value >= 0:
            mine[ours] = value
    if layer.name == "dccp" and "transport_header" in mine:
        mine["transport_header"] *= 4
    if "tcp_flags" in mine:
        mine["tcp_flags"] &= 0x1FF
        if mine["tcp_flags"] & SYN:
            optional(layer, here.unsure, mine, "tcp_mss", "tcp.options.mss_val", 0)
            optional(layer, here.unsure, mine, "tcp_wscale", "tcp.options.wscale.shift", NONE8)
    mine["payload_length"] -= HEADER_BYTES.get(layer.name, mine.get("transport_header", 0))
    if mine.get("udp_length"):
        mine["payload_length"] = min(mine["payload_length"], mine["udp_length"] - 8)


def optional(
    layer: Layer, unsure: dict[str, set[int]], told: Fields, ours: str, theirs: str, absent: int
) -> None:
    """Take over a field that a header may lack."""
    told[ours] = last(layer, theirs, absent)
    values = layer.values[theirs]
    unsure.pop(ours, None)
    if values[:1] == [AMBIGUOUS]:
        unsure[ours] = {absent, *(int(value, 0) for value in values[1:])}


def gtp(layer: Layer, here: Reading, around: Fields, unsure: dict[str, set[int]]) -> None:
    """Read a GTP header: of a G-PDU for the packet within, of another message for this one."""
    message = last(layer, "gtp.message")
    if message == G_PDU:
        container = "gtp.ext_hdr.pdu_ses_con"
        around["gtp_message"] = message
        around["gtp_depth"] += 1
        around["outer_src"], around["outer_dst"] = here.fields["src"], here.fields["dst"]
        optional(layer, unsure, around, "gtp_teid", "gtp.teid", 0)
        optional(layer, unsure, around, "gtp_pdu_type", f"{container}.pdu_type", NONE8)
        optional(layer, unsure, around, "gtp_qfi", f"{container}.qos_flow_id", NONE8)
        # The field of the next header's type stands in the fixed header and in each extension.
        count = len(layer.values["gtp.ext_hdr"])
        kinds = layer.values["gtp.ext_hdr.next"][:count]
        for name in ("gtp_extension_count", "gtp_extensions"):
            unsure.pop(name, None)
        if AMBIGUOUS in kinds or AMBIGUOUS in layer.values["gtp.ext_hdr"]:
            unsure["gtp_extension_count"] = unsure["gtp_extensions"] = set()
        else:
            packed = bytes(int(kind, 0) for kind in kinds[:PACKED_EXTENSIONS])
            around["gtp_extension_count"] = count
            around["gtp_extensions"] = int.from_bytes(packed, "little")
    elif not here.fields["gtp_depth"]:
        here.fields["gtp_message"] = message
        here.fields["gtp_teid"] = last(layer, "gtp.teid", 0)
