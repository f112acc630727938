"""The same decoding in plain Python: slow, readable, and the oracle that the kernels are tested by.

Nothing here is shared with the kernels except the constants that bound them: layers are objects
of bytes with a stated length, refusals are exceptions, and the result is a dictionary.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from tests.traffic.decode import reference_links as links
from tests.traffic.decode import reference_tunnels as tunnels
from tests.traffic.decode.reference_layer import (
    VLAN_ETHERTYPES,
    Layer,
    Refused,
    inner_version,
    looks_like_frame,
    packet_in_ppp,
    ppp,
)
from veilwatch.schema.packets import MAX_CAPTURED, NONE8, PACKET_DTYPE, Status
from veilwatch.traffic.decode.gtp_u import MAX_GTP_EXTENSIONS
from veilwatch.traffic.decode.kernel import MAX_LINK_LENGTH, MAX_TUNNEL_DEPTH
from veilwatch.traffic.decode.link import MAX_VLAN_TAGS
from veilwatch.traffic.decode.network import MAX_EXTENSION_HEADERS
from veilwatch.traffic.decode.shim import MAX_LABELS

TAGS = dict.fromkeys(VLAN_ETHERTYPES, 4)
TAGS |= {0x8926: 6, 0x892F: 6, 0xF1C1: 6, 0x893F: 8, 0x8909: 8, 0xDADA: 8}
"""Lengths of tags with the EtherType that ends them."""
SIGNALLING = {
    1: "gtp_echo_request",
    2: "gtp_echo_response",
    26: "gtp_error_indication",
    254: "gtp_end_marker",
}


@dataclass
class Decoded:
    """One decoded packet.

    Attributes
    ----------
    fields
        The fields of `PACKET_DTYPE` by name.
    notes
        How often each name of `counters.INFORMATIVE` applies.
    """

    fields: dict[str, int] = field(default_factory=dict)
    notes: Counter[str] = field(default_factory=Counter)


def decode(
    data: bytes,
    link: int,
    length: int | None = None,
    *,
    offset: int = 0,
    ts_ns: int = 0,
    number: int = 0,
    source: int = 0,
    interface: int = 0,
) -> Decoded:
    """Decode one frame.

    Parameters
    ----------
    data
        The captured bytes.
    link
        LINKTYPE_ value.
    length
        Bytes on the wire, by default as many as were captured.
    offset, ts_ns, number, source, interface
        As in `RECORD_DTYPE`; `offset` is added to the packet's offsets.
    """
    wire = len(data) if length is None else length
    walk = PlainWalk()
    packet = walk.result.fields
    packet.update(ts_ns=ts_ns, number=number, source=source, wire_length=wire)
    packet["interface"] = _place(data, link, interface)
    frame = Layer(data, max(len(data), min(wire, MAX_CAPTURED)), 0)
    try:
        walk.link(frame, link)
        status = Status.OK
    except Refused as refusal:
        status = refusal.status
        if status is Status.NOT_IP and walk.ip_headers:
            status = Status.TUNNEL_PAYLOAD
    packet["status"] = int(status)
    if "payload_captured" in packet:
        packet["payload_offset"] += offset
    if "ip_offset" in packet:
        packet["ip_offset"] += offset
    if "fragment_key" in packet:
        packet["fragment_start"] += offset
    if packet.get("fragment") == 1:
        walk.result.notes["first_fragments"] += 1
    if packet.get("vlan"):
        walk.result.notes["vlan_tagged"] += 1
    defaults = dict.fromkeys(PACKET_DTYPE.names or (), 0)
    defaults.update(tcp_wscale=NONE8, gtp_qfi=NONE8, gtp_pdu_type=NONE8)
    walk.result.fields = defaults | packet
    return walk.result


def _place(data: bytes, link: int, interface: int) -> int:
    """What a link header says of the place: packet type, of SLL2 the interface, two addresses."""
    if link == 1 and len(data) >= 12:
        for at in range(0, 12, 2):
            interface = 31 * interface + int.from_bytes(data[at : at + 2])
    if link == 113 and len(data) >= 2:
        interface += int.from_bytes(data[:2])
    if link == 276 and len(data) >= 11:
        interface += int.from_bytes(data[4:8]) * 8 + data[10]
    return interface % 2**16


def mix(value: int) -> int:
    """The finaliser of SplitMix64, as in `veilwatch.traffic.hashing`."""
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    value = (value ^ value >> 27) * 0x94D049BB133111EB % 2**64
    return value ^ value >> 31


class PlainWalk:
    """The walk through one frame; each method reads a layer and goes on."""

    def __init__(self) -> None:
        self.result = Decoded()
        self.ip_headers = 0
        self.frames = 0

    # link

    def link(self, frame: Layer, link: int) -> None:
        if not frame.data:
            raise Refused(Status.EMPTY)
        match link:
            case 1:
                self.ethernet(frame)
            case 51:
                self.pppoe(frame)
            case 12 | 14 | 101:
                self.raw_ip(frame)
            case 228:
                self.ip(frame, 4)
            case 229:
                self.ip(frame, 6)
            case 0 | 108:
                head = frame.need(4, Status.TRUNCATED_LINK)
                families = {*struct.unpack("<I", head), *struct.unpack(">I", head)}
                ethertype = int.from_bytes(head)
                if 2 in families or ethertype == 0x0800:
                    self.ip(frame.after(4), 4)
                elif families & links.INET6_FAMILIES or ethertype == 0x86DD:
                    self.ip(frame.after(4), 6)
                else:
                    raise Refused(Status.NOT_IP)
            case _ if link in links.READERS:
                links.READERS[link](self, frame)
            case _:
                raise Refused(Status.UNSUPPORTED_LINK)

    def raw_ip(self, packet: Layer) -> None:
        version = packet.need(1, Status.TRUNCATED_NETWORK)[0] >> 4
        if version not in (4, 6):
            raise Refused(Status.BAD_NETWORK)
        self.ip(packet, version)

    def ethernet(self, frame: Layer) -> None:
        self.frames += 1
        if self.frames > MAX_TUNNEL_DEPTH + 1:
            raise Refused(Status.TOO_DEEP)
        head = frame.need(14, Status.TRUNCATED_LINK)
        self.ethertype(int.from_bytes(head[12:]), frame.after(14), tagged=True)

    def ethertype(self, kind: int, rest: Layer, *, tagged: bool, tags: int = 0) -> None:
        """Follow an EtherType; `tagged`: tags and 802.3 lengths are possible."""
        size = TAGS.get(kind, 0)
        if kind == 0xD28B:
            size = 12 if len(rest.data) >= 4 and rest.data[3] & 0x20 else 14
        if size and tagged:
            tag = rest.need(size, Status.TRUNCATED_LINK)
            if tags == MAX_VLAN_TAGS:
                raise Refused(Status.TOO_DEEP)
            if kind in VLAN_ETHERTYPES:
                self.result.fields["vlan"] = int.from_bytes(tag[:2]) % 4096
            inner = int.from_bytes(tag[-2:])
            self.ethertype(inner, rest.after(size), tagged=True, tags=tags + 1)
            return
        if kind < 0x600 and tagged:
            self.llc(rest)
            return
        readers: dict[int, Callable[[], None]] = {
            0x0800: lambda: self.ip(rest, 4),
            0x86DD: lambda: self.ip(rest, 6),
            0x8847: lambda: self.mpls(rest),
            0x8848: lambda: self.mpls(rest),
            0x8864: lambda: self.pppoe(rest),
            0x880B: lambda: self.ppp(rest),
            0x6558: lambda: self.ethernet(rest),
            0x88E7: lambda: tunnels.framed(self, rest, 4),
            0x8903: lambda: tunnels.framed(self, rest, 2),
            0x22F3: lambda: tunnels.trill(self, rest),
            0x88E5: lambda: tunnels.macsec(self, rest),
            0x894F: lambda: tunnels.nsh(self, rest),
        }
        if kind not in readers:
            raise Refused(Status.NOT_IP)
        readers[kind]()

    def llc(self, rest: Layer) -> None:
        header = rest.need(3, Status.TRUNCATED_LINK)
        if header == b"\x06\x06\x03":
            self.ip(rest.after(3), 4)
        elif header == b"\xaa\xaa\x03":
            snap = rest.need(8, Status.TRUNCATED_LINK)
            if snap[3:6] not in (b"\0\0\0", b"\0\0\xf8"):
                raise Refused(Status.NOT_IP)
            self.ethertype(int.from_bytes(snap[6:]), rest.after(8), tagged=False)
        elif header == b"\xfe\xfe\x03":
            links.nlpid(self, rest.after(3))
        else:
            raise Refused(Status.NOT_IP)

    def mpls(self, rest: Layer) -> None:
        labels, entry = 0, 0
        while not entry & 0x100:  # the last one says so
            entry = int.from_bytes(rest.need(4, Status.TRUNCATED_LINK))
            if labels == MAX_LABELS:
                raise Refused(Status.TOO_DEEP)
            labels += 1
            rest = rest.after(4)
        self.result.notes["mpls"] += 1
        rest.need(1, Status.TRUNCATED_LINK)
        version = inner_version(rest)
        if version is not None:
            self.ip(rest, version)
            return
        likely = {0x0800, 0x86DD, 0x0806, 0x8847, 0x8848, 0x8864, *VLAN_ETHERTYPES}
        likely |= {0x880B, 0x6558, 0x88E7, 0x8903, 0x22F3, 0x88E5, 0x894F}
        first = rest.data[0] >> 4
        if len(rest.data) >= 14 and int.from_bytes(rest.data[12:14]) in likely:
            self.ethernet(rest)
        elif first == 0:
            self.ethernet(rest.after(4))
        elif first in (4, 6):
            self.ip(rest, first)
        else:
            raise Refused(Status.NOT_IP)

    def pppoe(self, rest: Layer) -> None:
        kind, code, _, length = struct.unpack(">BBHH", rest.need(6, Status.TRUNCATED_LINK))
        if (kind, code) != (0x11, 0):
            raise Refused(Status.NOT_IP)
        self.result.notes["pppoe"] += 1
        content = rest.after(6)
        self.ppp(content.limited(min(content.length, length)))

    def ppp(self, rest: Layer) -> None:
        protocol, content = ppp(rest)
        match protocol:
            case 0x21:
                self.ip(content, 4)
            case 0x57:
                self.ip(content, 6)
            case 0x281 | 0x283:
                self.mpls(content)
            case _:
                raise Refused(Status.NOT_IP)

    # network

    def ip(self, packet: Layer, version: int) -> None:
        self.ip_headers += 1
        if self.ip_headers > MAX_TUNNEL_DEPTH + 1:
            raise Refused(Status.TOO_DEEP)
        if self.ip_headers == 1:
            self.result.fields["link_length"] = min(packet.at, MAX_LINK_LENGTH)
        self.result.fields["ip_headers"] = self.ip_headers
        if packet.data and packet.data[0] >> 4 != version:
            raise Refused(Status.BAD_NETWORK)
        if version == 4:
            self.ipv4(packet)
        else:
            self.ipv6(packet)

    def addresses(self, src: int, dst: int) -> None:
        low = 2**64 - 1
        self.result.fields.update(
            src_hi=src >> 64, src_lo=src & low, dst_hi=dst >> 64, dst_lo=dst & low
        )

    def ipv4(self, packet: Layer) -> None:
        head = packet.need(20, Status.TRUNCATED_NETWORK)
        first, tos, stated, ident, position, ttl, protocol, _, src, dst = struct.unpack(
            ">BBHHHBBH4s4s", head
        )
        size = first % 16 * 4
        length = stated or packet.length
        if size < 20 or length < size:
            raise Refused(Status.BAD_NETWORK)
        packet.need(size, Status.TRUNCATED_NETWORK)
        more, fragment_offset = bool(position & 0x2000), position & 0x1FFF
        self.result.fields.update(
            ip_version=4,
            ip_length=length,
            ip_offset=packet.at,
            ip_id=ident,
            dscp=tos,
            ttl=ttl,
            protocol=protocol,
            fragment=0,
        )
        mapped = [int(IPv6Address(f"::ffff:{IPv4Address(address)}")) for address in (src, dst)]
        self.addresses(*mapped)
        rest = packet.limited(length).after(size)
        self.fragment(fragment_offset * 8, more, rest)
        if protocol == 51:
            self.extension_headers(protocol, rest)
        else:
            self.transport(protocol, rest)

    def ipv6(self, packet: Layer) -> None:
        head = packet.need(40, Status.TRUNCATED_NETWORK)
        word, stated, protocol, ttl, src, dst = struct.unpack(">IHBB16s16s", head)
        length = 40 + stated if stated or protocol == 59 else max(40, packet.length)
        self.result.fields.update(
            ip_version=6,
            ip_length=length,
            ip_offset=packet.at,
            ip_id=0,
            dscp=(word >> 20) & 0xFF,
            ttl=ttl,
            fragment=0,
        )
        self.addresses(int.from_bytes(src), int.from_bytes(dst))
        self.extension_headers(protocol, packet.limited(length).after(40))

    def fragment(self, position: int, more: bool, rest: Layer) -> None:
        """Note a fragment whose data is `rest`; a later one ends the walk."""
        packet = self.result.fields
        if not position and not more:
            return
        key = self.fragment_key(packet["ip_id"])
        packet.update(fragment=1, fragment_key=key, fragment_start=rest.at)
        if position:
            self.payload(rest)
            packet.update(fragment=2, fragment_offset=position)
            raise Refused(Status.LATER_FRAGMENT)

    def fragment_key(self, identification: int) -> int:
        packet = self.result.fields
        key = mix(packet["src_hi"] ^ mix(packet["src_lo"]))
        key = mix(key ^ packet["dst_hi"] ^ mix(packet["dst_lo"] ^ identification))
        if packet.get("gtp_depth"):
            key = mix(key ^ packet["outer_dst_lo"] ^ mix(packet["gtp_teid"]))
        return key | 1

    def extension_headers(self, protocol: int, rest: Layer) -> None:
        packet = self.result.fields
        seen = 0
        while True:
            packet["protocol"] = protocol
            if protocol not in (0, 43, 44, 51, 60):
                return self.transport(protocol, rest)
            smallest = 12 if protocol == 51 else 8
            head = rest.need(smallest, Status.TRUNCATED_NETWORK, bad=Status.BAD_NETWORK)
            match protocol:
                case 44:
                    size = 8
                case 51:
                    size = head[1] * 4 + 8
                case _:
                    size = head[1] * 8 + 8
            if size < smallest:
                raise Refused(Status.BAD_NETWORK)
            rest.need(size, Status.TRUNCATED_NETWORK, bad=Status.BAD_NETWORK)
            if protocol == 44:
                _, _, position, packet["ip_id"] = struct.unpack(">BBHI", head)
                if position >> 3:
                    packet["protocol"] = head[0]
                self.fragment(position & ~7, bool(position % 2), rest.after(8))
            seen += 1
            if seen > MAX_EXTENSION_HEADERS:
                raise Refused(Status.BAD_NETWORK)
            protocol, rest = head[0], rest.after(size)

    # transport

    def transport(self, protocol: int, segment: Layer) -> None:
        match protocol:
            case 6:
                self.tcp(segment)
            case 17:
                self.udp(segment)
            case 1 | 58:
                head = segment.need(8, Status.TRUNCATED_TRANSPORT, bad=Status.BAD_TRANSPORT)
                self.result.fields.update(icmp_type=head[0], icmp_code=head[1])
                self.result.fields["checksum"] = int.from_bytes(head[2:4])
                self.payload(segment.after(8))
            case 4 | 41:
                version = 4 if protocol == 4 else 6
                if segment.length <= 0 or (segment.data and segment.data[0] >> 4 != version):
                    self.payload(segment)
                    return
                self.result.notes["ip_in_ip"] += 1
                self.ip(segment, version)
            case 47:
                self.gre(segment)
            case 132:
                head = segment.need(12, Status.TRUNCATED_TRANSPORT, bad=Status.BAD_TRANSPORT)
                self.ports(head)
                self.payload(segment.after(12))
            case _ if protocol in tunnels.PROTOCOLS:
                tunnels.PROTOCOLS[protocol](self, segment)
            case _:
                self.payload(segment)

    def ports(self, head: bytes) -> tuple[int, int]:
        src, dst = struct.unpack(">HH", head[:4])
        self.result.fields.update(src_port=src, dst_port=dst)
        return src, dst

    def payload(self, rest: Layer) -> None:
        self.result.fields.update(
            payload_offset=rest.at, payload_length=rest.length, payload_captured=len(rest.data)
        )

    def tcp(self, segment: Layer) -> None:
        head = segment.need(20, Status.TRUNCATED_TRANSPORT, bad=Status.BAD_TRANSPORT)
        _, _, seq, ack, offset_flags, window = struct.unpack(">HHIIHH", head[:16])
        size = (offset_flags >> 12) * 4
        if not 20 <= size <= segment.length:
            raise Refused(Status.BAD_TRANSPORT)
        self.ports(head)
        self.result.fields.update(
            tcp_seq=seq, tcp_ack=ack, tcp_flags=offset_flags & 0x1FF, tcp_window=window
        )
        self.result.fields["checksum"] = int.from_bytes(head[16:18])
        if offset_flags & 2:
            self.syn_options(segment.data[20:size])
        self.payload(segment.after(size))

    def syn_options(self, options: bytes) -> None:
        while len(options) >= 2 and options[0] != 0:
            if options[0] == 1:
                options = options[1:]
                continue
            kind, size = options[0], options[1]
            value = options[2:size]
            if size < 2 or len(value) != size - 2:
                return
            if (kind, size) == (2, 4):
                self.result.fields["tcp_mss"] = int.from_bytes(value)
            if (kind, size) == (3, 3):
                self.result.fields["tcp_wscale"] = min(value[0], 14)
            options = options[size:]

    def udp(self, segment: Layer) -> None:
        head = segment.need(8, Status.TRUNCATED_TRANSPORT, bad=Status.BAD_TRANSPORT)
        stated = int.from_bytes(head[4:6])
        if 0 < stated < 8:
            raise Refused(Status.BAD_TRANSPORT)
        ports = self.ports(head)
        self.result.fields["checksum"] = int.from_bytes(head[6:8])
        present = segment.limited(min(segment.length, stated or segment.length)).after(8)
        self.payload(present)
        whole = Layer(present.data, (stated or segment.length) - 8, present.at)
        src, dst = ports
        match dst:
            case 2152:
                self.gtp(whole)
            case 3386:
                self.charging(whole)
            case 3544:
                self.teredo(whole)
            case 4789 | 4790 | 8472:
                self.vxlan(whole)
            case 6081:
                self.geneve(whole)
            case _ if dst in tunnels.PORTS:
                tunnels.PORTS[dst](self, whole)
            case _ if src in tunnels.ANSWERING_PORTS:
                tunnels.PORTS[src](self, whole)
            case _ if src == 2152:
                self.gtp(whole)
            case _ if src == 3386:
                self.charging(whole)
            case _ if src == 3544:
                self.teredo(whole)

    # tunnel

    def gre(self, packet: Layer, within: str | None = None) -> None:
        """Read GRE above IP, or within a datagram, whose own count `within` names if it has one."""
        if packet.length < 4:
            self.not_gre(packet, within)
            return
        flags, protocol = struct.unpack(">HH", packet.need(4, Status.TRUNCATED_TUNNEL))
        if (flags, protocol) == (0x2001, 0x6400):
            tunnels.eoip(self, packet, within)
            return
        version = flags % 8
        options = [0x8000, 0x2000, 0x1000] + ([0x0080] if version == 1 else [])
        size = 4 + 4 * sum(bool(flags & option) for option in options)
        if size > packet.length or flags & 0x4000 or version > 1:
            self.not_gre(packet, within)
            return
        packet.need(size, Status.TRUNCATED_TUNNEL)
        content = packet.after(size)
        if protocol == 0x880B and (version == 0 or flags & 0x1000):
            try:
                kind, inner = ppp(content)
            except Refused:
                kind, inner = 0, content
            if kind in (0x21, 0x57):
                self.enter_gre(within)
                self.ip(inner, 4 if kind == 0x21 else 6)
                return
        if version == 1 or protocol == 0x880B:
            self.not_gre(packet, within)
            return
        if protocol in (0x88BE, 0x22EB):
            self.erspan(packet, content, protocol, bool(flags & 0x1000), within)
            return
        redirected = content if inner_version(content) else content.after(4)
        version_there = inner_version(redirected)
        inside: Callable[[], None] | None = {
            0x0800: lambda: self.ip(content, 4),
            0x86DD: lambda: self.ip(content, 6),
            0x8847: lambda: self.mpls(content),
            0x8848: lambda: self.mpls(content),
            0x8864: lambda: self.pppoe(content),
            0x6558: lambda: self.ethernet(content),
            0x6559: lambda: links.frame_relay(self, content),
            0x88E7: lambda: tunnels.framed(self, content, 4),
            0x8903: lambda: tunnels.framed(self, content, 2),
            0x22F3: lambda: tunnels.trill(self, content),
            0x88E5: lambda: tunnels.macsec(self, content),
            0x894F: lambda: tunnels.nsh(self, content),
            **dict.fromkeys(range(0x8200, 0x8380, 16), lambda: links.wlan(self, content)),
        }.get(protocol)
        if protocol == 0x883E and version_there is not None:
            self.enter_gre(within)
            self.ip(redirected, version_there)
        elif inside is None:
            self.not_gre(packet, within)
        else:
            self.enter_gre(within)
            inside()

    def not_gre(self, packet: Layer, within: str | None) -> None:
        """Leave GRE that nobody reads to its end points, or the datagram that it is in."""
        if within is None:
            self.payload(packet)
        else:
            self.result.notes["tunnel_false"] += 1

    def enter_gre(self, within: str | None) -> None:
        self.result.notes["gre"] += 1
        if within is not None:
            self.leave_udp()
        if within:
            self.result.notes[within] += 1

    def erspan(
        self, packet: Layer, content: Layer, protocol: int, numbered: bool, within: str | None
    ) -> None:
        if protocol == 0x22EB:
            size, version = 12, 2
        else:
            size, version = (8, 1) if numbered else (0, -1)
        if content.length < size:
            self.not_gre(packet, within)
            return
        head = content.need(size, Status.TRUNCATED_TUNNEL)
        if size and head[0] >> 4 != version:
            self.not_gre(packet, within)
            return
        mirrored: Callable[[Layer], None] = self.ethernet
        if size == 12:
            last = int.from_bytes(head[10:])
            if last >> 10 & 31 not in (0, 2):
                self.not_gre(packet, within)
                return
            if last >> 10 & 31 == 2:
                mirrored = self.raw_ip
            size += 8 * (last & 1)
        frame = content.after(size)
        if frame.length <= 0:
            self.not_gre(packet, within)
            return
        frame.need(1, Status.TRUNCATED_TUNNEL)
        self.enter_gre(within)
        self.result.notes["erspan"] += 1
        mirrored(frame)

    def leave_udp(self) -> None:
        for name in ("src_port", "dst_port", "checksum"):
            del self.result.fields[name]
        for name in ("payload_offset", "payload_length", "payload_captured"):
            del self.result.fields[name]

    def vxlan(self, datagram: Layer) -> None:
        if datagram.length <= 8:
            self.result.notes["tunnel_false"] += 1
            return
        head = datagram.need(8, Status.TRUNCATED_TUNNEL)
        kind = head[3] if head[0] & 4 else 3
        content = datagram.after(8)
        known = kind in (1, 2, 3, 5) or (kind == 4 and tunnels.is_nsh(content))
        if head[0] & 0b0011_1011 != 0b1000 or head[7] or not known:
            self.result.notes["tunnel_false"] += 1
            return
        self.result.notes["vxlan"] += 1
        self.leave_udp()
        match kind:
            case 3:
                self.ethernet(content)
            case 4:
                tunnels.nsh(self, content)
            case 5:
                self.mpls(content)
            case _:
                self.ip(content, 4 if kind == 1 else 6)

    def geneve(self, datagram: Layer) -> None:
        notes = self.result.notes
        if datagram.length <= 8:
            notes["tunnel_false"] += 1
            return
        head = datagram.need(8, Status.TRUNCATED_TUNNEL)
        version, options, kind = head[0] // 64, head[0] % 64, int.from_bytes(head[2:4])
        size = 8 + 4 * options
        known = kind in (0x6558, 0x0800, 0x86DD)
        if version or head[7] or not known or size >= datagram.length:
            notes["tunnel_false"] += 1
            return
        datagram.need(size, Status.TRUNCATED_TUNNEL)
        notes["geneve"] += 1
        self.leave_udp()
        if kind == 0x6558:
            self.ethernet(datagram.after(size))
        else:
            self.ip(datagram.after(size), 4 if kind == 0x0800 else 6)

    def teredo(self, datagram: Layer) -> None:
        notes, rest = self.result.notes, datagram
        if rest.data[:2] == b"\0\1" and len(rest.data) >= 4:
            rest = rest.after(13 + rest.data[2] + rest.data[3])
        if rest.data[:2] == b"\0\0":
            rest = rest.after(8)
        if rest.length <= 0:
            notes["tunnel_false"] += 1
            return
        rest.need(1, Status.TRUNCATED_TUNNEL)
        if inner_version(rest) != 6:
            notes["tunnel_false"] += 1
            return
        notes["teredo"] += 1
        self.leave_udp()
        self.ip(rest, 6)

    def charging(self, datagram: Layer) -> None:
        if datagram.length >= 4 > len(datagram.data):
            return
        size = datagram.length - int.from_bytes(datagram.data[2:4])
        name = "tunnel_false"
        if datagram.length >= 4:
            version, is_gtp = datagram.data[0] >> 5, bool(datagram.data[0] & 0x10)
            if is_gtp and (version, size) == (0, 20):
                name = "gtp_v0"
            if not is_gtp and version <= 2 and size in (6, 20):
                name = "gtp_prime"
        self.result.notes[name] += 1

    def gtp(self, datagram: Layer) -> None:
        notes = self.result.notes
        if datagram.length < 8 or (datagram.data and datagram.data[0] & 0xF0 != 0x30):
            notes["gtp_false"] += 1
            return
        head = datagram.need(8, Status.TRUNCATED_TUNNEL)
        flags, message, stated, teid = struct.unpack(">BBHI", head)
        if message != 255:
            if 8 + stated != datagram.length:
                notes["gtp_false"] += 1
                return
            notes[SIGNALLING.get(message, "gtp_other")] += 1
            if not self.result.fields.get("gtp_depth"):
                self.result.fields.update(gtp_message=message, gtp_teid=teid)
            return
        optional = flags & 7 != 0
        if 8 + stated > datagram.length or (optional and stated < 4):
            notes["gtp_false"] += 1
            return
        next_kind = 0
        tpdu = datagram.limited(8 + stated).after(8)
        if optional:
            fields = tpdu.need(4, Status.TRUNCATED_TUNNEL)
            next_kind = fields[3] if flags & 4 else 0
            tpdu = tpdu.after(4)
        extensions: list[tuple[int, bytes]] = []
        while next_kind:
            if len(extensions) == MAX_GTP_EXTENSIONS:
                raise Refused(Status.BAD_TUNNEL)
            units = tpdu.need(1, Status.TRUNCATED_TUNNEL, bad=Status.BAD_TUNNEL)[0]
            if units == 0:
                raise Refused(Status.BAD_TUNNEL)
            content = tpdu.need(4 * units, Status.TRUNCATED_TUNNEL, bad=Status.BAD_TUNNEL)
            extensions.append((next_kind, content[1:-1]))
            next_kind = content[-1]
            tpdu = tpdu.after(4 * units)
        version, session = inner_version(tpdu), tpdu
        if version is None and looks_like_frame(tpdu):
            notes["gtp_ethernet"] += 1
            version = 0
        if version is None:
            with suppress(Refused):
                version, session = packet_in_ppp(tpdu) or (None, tpdu)
            notes["gtp_ppp"] += version is not None
        if version is None:
            notes["gtp_not_ip"] += 1
            return
        notes["gtp_g_pdu"] += 1
        self.enter_tunnel(teid, extensions)
        if version == 0:
            self.ethernet(session)
        else:
            self.ip(session, version)

    def enter_tunnel(self, teid: int, extensions: list[tuple[int, bytes]]) -> None:
        packet = self.result.fields
        for name in ("src_hi", "src_lo", "dst_hi", "dst_lo"):
            packet[f"outer_{name}"] = packet[name]
        pdu_type = qfi = NONE8
        for kind, content in extensions:
            if kind == 0x85:
                pdu_type = content[0] >> 4
                qfi = content[1] % 64 if pdu_type in (0, 1) else NONE8
        packet.update(
            gtp_depth=packet.get("gtp_depth", 0) + 1,
            gtp_message=255,
            gtp_teid=teid,
            gtp_extensions=int.from_bytes(bytes(k for k, _ in extensions[:4]), "little"),
            gtp_extension_count=len(extensions),
            gtp_pdu_type=pdu_type,
            gtp_qfi=qfi,
        )
        self.leave_udp()
