"""Every wrapping beside GTP-U: the same packet comes out, and what is none is left alone."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from scapy.contrib.erspan import ERSPAN_II, ERSPAN_III
from scapy.contrib.geneve import GENEVE
from scapy.contrib.mpls import MPLS
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrSegmentRouting
from scapy.layers.l2 import ARP, GRE, GRE_PPTP, Dot1Q, Ether
from scapy.layers.ppp import HDLC, PPP, PPPoE
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw

from tests.traffic.decode.frames import Frame, as_block, assert_as_reference, decode_one
from tests.traffic.decode.links import AVS, PRISM, QOS, SNAP, WLAN
from tests.traffic.decode.test_layers import (
    DST,
    DST6,
    GNB,
    PAYLOAD,
    SRC,
    SRC6,
    TCP_FIELDS,
    UPF,
    assert_fields,
    ends,
    gtp,
    inner,
    tcp,
)
from veilwatch.schema.packets import NONE8, Status
from veilwatch.traffic.decode import Decoder
from veilwatch.traffic.decode.kernel import MAX_TUNNEL_DEPTH
from veilwatch.traffic.decode.link import MAX_VLAN_TAGS
from veilwatch.traffic.decode.shim import MAX_LABELS

A, B = "192.0.2.1", "192.0.2.2"


def frame(packet: Packet | bytes) -> bytes:
    """An Ethernet frame of a packet, or of ready bytes of IPv4."""
    head = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    return bytes(head / packet) if isinstance(packet, Packet) else bytes(head) + packet


def mirrored() -> Packet:
    return Ether(src="02:00:00:00:00:03", dst="02:00:00:00:00:04") / inner()


def over_udp(port: int, content: Packet | bytes, sport: int = 51000) -> bytes:
    data = content if isinstance(content, bytes) else bytes(content)
    return frame(IP(src=A, dst=B) / UDP(sport=sport, dport=port) / Raw(data))


def outer(content: Packet | bytes, protocol: int) -> bytes:
    data = content if isinstance(content, bytes) else bytes(content)
    return frame(IP(src=A, dst=B, proto=protocol) / Raw(data))


def labels(count: int, content: Packet | bytes) -> bytes:
    stack = b"".join(bytes(MPLS(label=16 + k, s=k == count - 1, ttl=9)) for k in range(count))
    data = content if isinstance(content, bytes) else bytes(content)
    return bytes(Ether(type=0x8847)) + stack + data


ERSPAN_SEQUENCE = GRE(proto=0x88BE, seqnum_present=1, sequence_number=5)
TYPE_III = GRE(proto=0x22EB, seqnum_present=1, sequence_number=5)
INNER = bytes(inner())

FRAME = bytes(mirrored())
VLAN_FRAME = bytes(Ether(src="02:00:00:00:00:03") / Dot1Q(vlan=0) / inner())
IP_BEHIND = b"\x08\0" + INNER
PPP_IN = b"\xff\x03\x00\x21" + INNER
COOKIE = bytes.fromhex("8a134f5e2201c3d440000007")
PSEUDOWIRES = {
    "frame": FRAME,
    "tagged frame": VLAN_FRAME,
    "packet": INNER,
    "PPP": PPP_IN,
    "Cisco HDLC": b"\x0f\0\x08\0" + INNER,
}


def tagged(ethertype: int, content: bytes) -> bytes:
    """An Ethernet frame of another EtherType."""
    return bytes(Ether(dst="02:00:00:00:00:02", src="02:00:00:00:00:01", type=ethertype)) + content


def nsh(words: int, following: int) -> bytes:
    """A network service header of a length in words of four bytes."""
    return bytes([0x0F, 0xC0 | words, 2 if words == 2 else 1, following]) + bytes(4 * words - 4)


def eoip(length: int) -> bytes:
    return b"\x20\1\x64\0" + length.to_bytes(2, "big") + b"\5\0"


def l2tp(flags: int, content: bytes = b"") -> bytes:
    """A data message of version 2 with the fields that its flags announce."""
    rest = struct.pack(">HH", 7, 1)
    if flags & 0x0800:
        rest += struct.pack(">HH", 1, 0)
    if flags & 0x0200:
        rest += struct.pack(">H", 4) + bytes(4)
    rest += content
    if flags & 0x4000:
        rest = struct.pack(">H", 4 + len(rest)) + rest
    return struct.pack(">H", flags | 2) + rest


def l2tp_3(content: bytes) -> bytes:
    return over_udp(1701, struct.pack(">HHI", 3, 0, 99) + content)


def l2tp_3_in_ip(content: bytes) -> bytes:
    return outer(struct.pack(">I", 99) + content, 115)


def capwap(
    flags: int, words: int = 2, binding: int = 1, fragment: tuple[int, int] = (0, 0)
) -> bytes:
    """A CAPWAP header of a length in words of four bytes."""
    identification, position = fragment
    head = struct.pack(">BBHHH", 0, words << 3, binding << 9 | flags, identification, position)
    return head + bytes(4 * words - 8)


WRAPPED = {
    "MPLS": ({"mpls": 1}, labels(1, INNER)),
    "MPLS, five labels": ({"mpls": 1}, labels(5, INNER)),
    "MPLS behind a VLAN tag": (
        {"mpls": 1},
        bytes(Ether() / Dot1Q(vlan=0, type=0x8847)) + labels(1, INNER)[14:],
    ),
    "MPLS pseudowire": ({"mpls": 1}, labels(2, mirrored())),
    "MPLS pseudowire with control word": ({"mpls": 1}, labels(2, bytes(4) + bytes(mirrored()))),
    "PPPoE": ({"pppoe": 1}, frame(PPPoE(sessionid=9) / PPP(proto=0x21) / inner())),
    "PPPoE, compressed protocol": (
        {"pppoe": 1},
        bytes(Ether(type=0x8864)) + b"\x11\0\0\x09" + (51).to_bytes(2, "big") + b"\x21" + INNER,
    ),
    "GRE": ({"gre": 1}, frame(IP(src=A, dst=B) / GRE() / inner())),
    "GRE with checksum, key and sequence": (
        {"gre": 1},
        frame(
            IP(src=A, dst=B)
            / GRE(chksum_present=1, key_present=1, seqnum_present=1, key=7)
            / inner()
        ),
    ),
    "GRE over IPv6": ({"gre": 1}, frame(IPv6(src=SRC6, dst=DST6) / GRE() / inner())),
    "GRE with Ethernet": ({"gre": 1}, frame(IP(src=A, dst=B) / GRE(proto=0x6558) / mirrored())),
    "GRE with MPLS": (
        {"gre": 1, "mpls": 1},
        outer(bytes(GRE(proto=0x8847)) + labels(1, INNER)[14:], 47),
    ),
    "PPTP": (
        {"gre": 1},
        outer(bytes(GRE_PPTP(seqnum_present=1, payload_len=54)) + b"\xff\x03\x00\x21" + INNER, 47),
    ),
    "GRE with PPP": ({"gre": 1}, outer(bytes(GRE(proto=0x880B)) + b"\x21" + INNER, 47)),
    "ERSPAN I": (
        {"gre": 1, "erspan": 1},
        outer(bytes(GRE(proto=0x88BE)) + bytes(mirrored()), 47),
    ),
    "ERSPAN II": (
        {"gre": 1, "erspan": 1},
        outer(bytes(ERSPAN_SEQUENCE) + bytes(ERSPAN_II(session_id=3)) + bytes(mirrored()), 47),
    ),
    "ERSPAN III": (
        {"gre": 1, "erspan": 1},
        outer(bytes(TYPE_III) + bytes(ERSPAN_III()) + bytes(mirrored()), 47),
    ),
    "ERSPAN III with subheader": (
        {"gre": 1, "erspan": 1},
        outer(bytes(TYPE_III) + bytes(ERSPAN_III(o=1)) + bytes(8) + bytes(mirrored()), 47),
    ),
    "ERSPAN III of IP": (
        {"gre": 1, "erspan": 1},
        outer(bytes(TYPE_III) + bytes(ERSPAN_III(ft=2)) + INNER, 47),
    ),
    "IP in IP": ({"ip_in_ip": 1}, frame(IP(src=A, dst=B) / inner())),
    "IPv4 in IPv6": ({"ip_in_ip": 1}, frame(IPv6(src=SRC6, dst=DST6, nh=4) / inner())),
    "VXLAN": ({"vxlan": 1}, over_udp(4789, VXLAN(vni=5) / mirrored())),
    "VXLAN with group policy": (
        {"vxlan": 1},
        over_udp(8472, b"\x88" + bytes(7) + bytes(mirrored())),
    ),
    "VXLAN-GPE": ({"vxlan": 1}, over_udp(4790, b"\x0c\0\0\x01" + bytes(4) + INNER)),
    "GENEVE": ({"geneve": 1}, over_udp(6081, GENEVE(vni=5) / mirrored())),
    "GENEVE with options": (
        {"geneve": 1},
        over_udp(6081, bytes.fromhex("02 00 08 00 000005 00") + bytes(8) + INNER),
    ),
    "802.1ah": ({"fabric": 1}, tagged(0x88E7, bytes(4) + FRAME)),
    "FabricPath": ({"fabric": 1}, tagged(0x8903, b"\0\1" + FRAME)),
    "TRILL": ({"fabric": 1}, tagged(0x22F3, b"\0\x3f\0\1\0\2" + FRAME)),
    "TRILL with options": ({"fabric": 1}, tagged(0x22F3, b"\0\x7f\0\1\0\2" + bytes(4) + FRAME)),
    "MACsec, not encrypted": ({"macsec": 0}, tagged(0x88E5, bytes(6) + IP_BEHIND + bytes(16))),
    "MACsec with a channel": (
        {"macsec": 0},
        tagged(0x88E5, b"\x20" + bytes(13) + IP_BEHIND + bytes(16)),
    ),
    "VN-Tag": ({}, tagged(0x8926, bytes(4) + IP_BEHIND)),
    "E-Tag": ({}, tagged(0x893F, bytes(6) + IP_BEHIND)),
    "HSR": ({}, tagged(0x892F, b"\0\x36\0\1" + IP_BEHIND)),
    "R-Tag": ({}, tagged(0xF1C1, bytes(4) + IP_BEHIND)),
    "TrustSec": ({}, tagged(0x8909, b"\1\1\0\1\0\5" + IP_BEHIND)),
    "Arista's time": ({}, tagged(0xD28B, b"\0\1\0\x10" + bytes(8) + IP_BEHIND)),
    "Arista's short time": ({}, tagged(0xD28B, b"\0\1\0\x20" + bytes(6) + IP_BEHIND)),
    "EDSA": ({}, tagged(0xDADA, b"\0\0\xc0\0\0\1" + IP_BEHIND)),
    "PPP on Ethernet": ({}, tagged(0x880B, b"\0\x21" + INNER)),
    "a frame in Ethernet": ({}, tagged(0x6558, FRAME)),
    "NSH with IP": ({"nsh": 1}, tagged(0x894F, b"\x0f\xc2\2\1" + bytes(4) + INNER)),
    "NSH with Ethernet": ({"nsh": 1}, tagged(0x894F, nsh(6, 3) + FRAME)),
    "NSH with MPLS": ({"nsh": 1, "mpls": 1}, tagged(0x894F, nsh(2, 5) + labels(1, INNER)[14:])),
    "NSH in GRE": ({"gre": 1, "nsh": 1}, outer(b"\0\0\x89\x4f" + nsh(2, 3) + FRAME, 47)),
    "NSH in VXLAN-GPE": (
        {"vxlan": 1, "nsh": 1},
        over_udp(4790, b"\x0c\0\0\4" + bytes(4) + nsh(2, 1) + INNER),
    ),
    "MPLS in VXLAN-GPE": (
        {"vxlan": 1, "mpls": 1},
        over_udp(4790, b"\x0c\0\0\5" + bytes(4) + labels(2, INNER)[14:]),
    ),
    "WCCP": ({"gre": 1}, outer(b"\0\0\x88\x3e" + INNER, 47)),
    "WCCP version 2": ({"gre": 1}, outer(b"\0\0\x88\x3e" + bytes(4) + INNER, 47)),
    "802.11 in GRE": ({"gre": 1}, outer(b"\0\0\x82\x30" + WLAN, 47)),
    "Frame Relay in GRE": ({"gre": 1}, outer(b"\0\0\x65\x59\x18\x41\x03\xcc" + INNER, 47)),
    "EoIP": ({"gre": 1, "eoip": 1}, outer(eoip(len(FRAME)) + FRAME, 47)),
    "EtherIP": ({"etherip": 1}, outer(b"\x30\0" + FRAME, 97)),
    "EtherIP, halves swapped": ({"etherip": 1}, outer(b"\3\0" + FRAME, 97)),
    "EoIP over IPv6": (
        {"etherip": 1},
        frame(IPv6(src=SRC6, dst=DST6, nh=97) / Raw(b"\x13\x25" + FRAME)),
    ),
    "MPLS in IP": ({"mpls": 1}, outer(labels(2, INNER)[14:], 137)),
    "Ethernet in IP": ({}, outer(FRAME, 143)),
    "Ethernet behind a segment routing header": (
        {},
        frame(
            IPv6(src=SRC6, dst=DST6)
            / IPv6ExtHdrSegmentRouting(nh=143, addresses=[DST6])
            / Raw(FRAME)
        ),
    ),
    "GRE in UDP": ({"gre": 1}, over_udp(4754, b"\0\0\x08\0" + INNER)),
    "GRE in UDP with a key": ({"gre": 1}, over_udp(4754, b"\x20\0\x65\x58" + bytes(4) + FRAME)),
    "MPLS in UDP": ({"mpls": 1}, over_udp(6635, labels(2, INNER)[14:])),
    "MPLS pseudowire in UDP": ({"mpls": 1}, over_udp(6635, labels(1, bytes(4) + FRAME)[14:])),
    "GUE": ({"gue": 1}, over_udp(6080, b"\0\4\0\0" + INNER)),
    "GUE with options": ({"gue": 1}, over_udp(6080, b"\2\4\0\1" + bytes(8) + INNER)),
    "GUE, version 1": ({"gue": 1}, over_udp(6080, INNER)),
    "GUE with GRE": ({"gue": 1, "gre": 1}, over_udp(6080, b"\0\x2f\0\0\0\0\x08\0" + INNER)),
    "GUE with EtherIP": ({"gue": 1}, over_udp(6080, b"\0\x61\0\0\x30\0" + FRAME)),
    "GUE with Ethernet": ({"gue": 1}, over_udp(6080, b"\0\x8f\0\0" + FRAME)),
    "GUE with MPLS": (
        {"gue": 1, "mpls": 1},
        over_udp(6080, b"\0\x89\0\0" + labels(1, INNER)[14:]),
    ),
    "LISP": ({"lisp": 1}, over_udp(4341, b"\xc0\0\0\1\0\0\0\1" + INNER)),
    "L2TP": ({"l2tp": 1}, over_udp(1701, l2tp(0) + PPP_IN)),
    "L2TP, answered": ({"l2tp": 1}, over_udp(50000, l2tp(0) + PPP_IN, sport=1701)),
    "L2TP with length": ({"l2tp": 1}, over_udp(1701, l2tp(0x4000, PPP_IN))),
    "L2TP with length and padding": ({"l2tp": 1}, over_udp(1701, l2tp(0x4000, PPP_IN) + bytes(5))),
    "L2TP with sequence": ({"l2tp": 1}, over_udp(1701, l2tp(0x0800, PPP_IN))),
    "L2TP with all fields": ({"l2tp": 1}, over_udp(1701, l2tp(0x4B00, PPP_IN))),
    "L2TP with offset": ({"l2tp": 1}, over_udp(1701, l2tp(0x0200, PPP_IN))),
    "L2TP, no framing": ({"l2tp": 1}, over_udp(1701, l2tp(0, b"\0\x21" + INNER))),
    "L2TP, compressed protocol": ({"l2tp": 1}, over_udp(1701, l2tp(0, b"\x21" + INNER))),
    **{
        f"L2TPv3 in {name}, {size} bytes before the {what}": (
            {"l2tp": 1},
            wrap(COOKIE[:size] + content),
        )
        for name, wrap in (("UDP", l2tp_3), ("IP", l2tp_3_in_ip))
        for size in (0, 4, 8, 12)
        for what, content in PSEUDOWIRES.items()
    },
    "TZSP": ({"tzsp": 1}, over_udp(37008, b"\1\0\0\1\1" + FRAME)),
    "TZSP with tags": (
        {"tzsp": 1},
        over_udp(37008, b"\1\0\0\1\0\x0a\1\x32\0\x29\2\0\x40\1" + FRAME),
    ),
    "TZSP to send": ({"tzsp": 1}, over_udp(37008, b"\1\1\0\1\1" + FRAME)),
    "TZSP with 802.11": ({"tzsp": 1}, over_udp(37008, b"\1\0\0\x12\1" + WLAN)),
    "TZSP with Prism": ({"tzsp": 1}, over_udp(37008, b"\1\0\0\x77\1" + PRISM + WLAN)),
    "TZSP with AVS": ({"tzsp": 1}, over_udp(37008, b"\1\0\0\x7f\1" + AVS + WLAN)),
    "CAPWAP": ({"capwap": 1}, over_udp(5247, capwap(0) + FRAME)),
    "CAPWAP, answered": ({"capwap": 1}, over_udp(50000, capwap(0) + FRAME, sport=5247)),
    "CAPWAP with radio address": (
        {"capwap": 1},
        over_udp(5247, capwap(0x10, 4) + FRAME),
    ),
    "CAPWAP with 802.11": ({"capwap": 1}, over_udp(5247, capwap(0x100) + WLAN)),
    "CAPWAP with 802.11, QoS": ({"capwap": 1}, over_udp(5247, capwap(0x100) + QOS + SNAP)),
    "CAPWAP with 802.11, swapped": (
        {"capwap": 1},
        over_udp(5247, capwap(0x100) + WLAN[1::-1] + WLAN[2:]),
    ),
    "CAPWAP with 802.11 of no binding": (
        {"capwap": 1},
        over_udp(5247, capwap(0x100, binding=0) + WLAN[1::-1] + WLAN[2:]),
    ),
}


@pytest.mark.parametrize(("counted", "data"), WRAPPED.values(), ids=WRAPPED)
def test_the_same_packet_comes_out(counted: dict[str, int], data: bytes) -> None:
    decoder = Decoder()
    assert_as_reference(as_block([Frame(data)]), decoder)
    assert {name: decoder.balance[name] for name in counted} == counted
    assert decoder.balance["OK"] == 1
    got = decode_one(data)
    assert_fields(got, **TCP_FIELDS, **ends(SRC, DST), ip_version=4, ip_length=50, vlan=0)
    assert_fields(got, gtp_depth=0, gtp_message=0, gtp_qfi=NONE8)
    assert_fields(got, **dict.fromkeys(ends(SRC, DST, "outer_"), 0))
    assert_fields(got, payload_offset=data.rindex(PAYLOAD))


@pytest.mark.parametrize("data", [data for _, data in WRAPPED.values()], ids=WRAPPED)
def test_cut_at_every_length(data: bytes) -> None:
    cut = [Frame(data[:size], length=len(data)) for size in range(len(data))]
    assert_as_reference(as_block(cut))
    for packet in (decode_one(item.data, length=item.length) for item in cut):
        # Whatever was cut, nobody is given the outer end points as those of a TCP packet.
        if packet["status"] == Status.OK and packet["protocol"] == 6:
            assert_fields(packet, **ends(SRC, DST))


def test_ipv6_inside() -> None:
    packet = IPv6(src=SRC6, dst=DST6) / tcp()
    for data in (
        frame(IP(src=A, dst=B, proto=41) / packet),  # 6in4, RFC 4213
        frame(IP(src=A, dst=B) / GRE() / packet),
        frame(PPPoE() / PPP(proto=0x57) / packet),
        labels(2, packet),
        over_udp(3544, packet),
        over_udp(40000, packet, sport=3544),
        over_udp(3544, b"\0\0" + bytes(6) + bytes(packet)),  # origin indication
        over_udp(3544, b"\0\1\0\0" + bytes(9) + b"\0\0" + bytes(6) + bytes(packet)),
        over_udp(3544, b"\0\1\2\3" + bytes(14) + bytes(packet)),  # authentication with values
    ):
        assert_as_reference(as_block([Frame(data)]))
        assert_fields(decode_one(data), **TCP_FIELDS, **ends(SRC6, DST6), ip_version=6)


@pytest.mark.parametrize(
    ("link", "data"),
    [
        (9, b"\x00\x21" + INNER),
        (9, b"\xff\x03\x00\x21" + INNER),
        (50, bytes(HDLC() / PPP(proto=0x21)) + INNER),
        (51, bytes(PPPoE(len=52) / PPP(proto=0x21)) + INNER),
    ],
)
def test_ppp_links(link: int, data: bytes) -> None:
    assert_as_reference(as_block([Frame(data, link)]))
    assert_fields(decode_one(data, link), **TCP_FIELDS, **ends(SRC, DST))


@pytest.mark.parametrize(
    "mirror",
    [
        lambda n3: outer(bytes(ERSPAN_SEQUENCE) + bytes(ERSPAN_II()) + n3, 47),
        lambda n3: outer(bytes(TYPE_III) + bytes(ERSPAN_III()) + n3, 47),
        lambda n3: outer(bytes(GRE(proto=0x6558)) + n3, 47),
        lambda n3: over_udp(4789, bytes(VXLAN(vni=1)) + n3),
        lambda n3: over_udp(6081, bytes(GENEVE(proto=0x6558)) + n3),
        lambda n3: labels(1, bytes(4) + n3),
    ],
    ids=["ERSPAN II", "ERSPAN III", "GRE", "VXLAN", "GENEVE", "MPLS"],
)
@pytest.mark.parametrize("version", [4, 6])
def test_a_mirror_of_n3_keeps_subscriber_and_tunnel(
    mirror: Callable[[bytes], bytes], version: int
) -> None:
    network = IP(src=GNB, dst=UPF) if version == 4 else IPv6(src=SRC6, dst=DST6)
    data = mirror(frame(network / gtp(0xBEEF, inner())))
    got = decode_one(data)
    assert_as_reference(as_block([Frame(data)]))
    assert_fields(got, **TCP_FIELDS, **ends(SRC, DST), gtp_depth=1, gtp_teid=0xBEEF)
    assert_fields(got, **(ends(GNB, UPF, "outer_") if version == 4 else ends(SRC6, DST6, "outer_")))


def test_a_subscribers_own_tunnel_keeps_the_gtp_fields() -> None:
    data = frame(IP(src=GNB, dst=UPF) / gtp(5, IP(src=A, dst=B) / GRE() / inner()))
    got = decode_one(data)
    assert_as_reference(as_block([Frame(data)]))
    assert_fields(got, **TCP_FIELDS, **ends(SRC, DST), gtp_depth=1, gtp_teid=5)
    assert_fields(got, **ends(GNB, UPF, "outer_"))


LEFT_ALONE = {
    "VXLAN without its flag": over_udp(4789, bytes(8) + bytes(mirrored())),
    "VXLAN with reserved flags": over_udp(4789, b"\x18" + bytes(7) + bytes(mirrored())),
    "VXLAN without a frame": over_udp(4789, b"\x08" + bytes(7)),
    "VXLAN-GPE of something else": over_udp(4790, b"\x0c\0\0\x04" + bytes(4) + INNER),
    "GENEVE of another version": over_udp(6081, b"\x40\0\x65\x58" + bytes(4) + bytes(mirrored())),
    "GENEVE of something else": over_udp(6081, b"\0\0\x12\x34" + bytes(4) + INNER),
    "GENEVE with options past its end": over_udp(6081, b"\x3f\0\x65\x58" + bytes(4) + INNER),
    "Teredo without IPv6": over_udp(3544, PAYLOAD * 9),
    "Teredo with IPv6 that does not fit": over_udp(
        3544, bytes(IPv6(src=SRC6, dst=DST6, plen=900) / tcp())
    ),
    "neither GTP version 0 nor GTP'": over_udp(3386, PAYLOAD),
    "VXLAN-GPE of a chain that is none": over_udp(4790, b"\x0c\0\0\x04" + bytes(4) + bytes(40)),
    "L2TP of another version": over_udp(1701, b"\0\1" + l2tp(0, PPP_IN)[2:]),
    "L2TP with reserved flags": over_udp(1701, b"\x20\2" + l2tp(0, PPP_IN)[2:]),
    "L2TP without a session": over_udp(1701, struct.pack(">HHH", 2, 7, 0) + PPP_IN),
    "L2TP longer than its datagram": over_udp(1701, l2tp(0x4000, PPP_IN)[:-1]),
    "L2TP with an offset past its end": over_udp(
        1701, struct.pack(">HHHH", 0x0202, 7, 1, 900) + PPP_IN
    ),
    "L2TP, control of another length": over_udp(1701, struct.pack(">HH", 0xC802, 90) + bytes(8)),
    "L2TPv3 with something reserved": over_udp(1701, struct.pack(">HHI", 3, 1, 99) + FRAME),
    "L2TPv3 without a session": over_udp(1701, struct.pack(">HHI", 3, 0, 0) + FRAME),
    "TZSP of another version": over_udp(37008, b"\2\0\0\1\1" + FRAME),
    "TZSP of something else": over_udp(37008, b"\1\0\0\3\1" + FRAME),
    "TZSP whose tags do not end": over_udp(37008, b"\1\0\0\1" + b"\x0a\2ab" * 70 + b"\1" + FRAME),
    "TZSP whose tag is too long": over_udp(37008, b"\1\0\0\1\x0a\xff" + FRAME),
    "TZSP without a frame": over_udp(37008, b"\1\0\0\1\0\0\1"),
    "CAPWAP of another version": over_udp(5247, b"\x10" + capwap(0)[1:] + FRAME),
    "CAPWAP with reserved flags": over_udp(5247, capwap(1) + FRAME),
    "CAPWAP with a header past its end": over_udp(5247, capwap(0, 31)[:20]),
    "CAPWAP of another binding": over_udp(5247, capwap(0x100, binding=3) + WLAN),
    "CAPWAP without a frame": over_udp(5247, capwap(0)),
    "CAPWAP at a place, but no fragment": over_udp(5247, capwap(0, fragment=(9, 80)) + FRAME),
    "GUE of a later version": over_udp(6080, b"\xc0\4\0\0" + INNER),
    "GUE with options past its end": over_udp(6080, b"\x1f\4\0\0" + INNER),
    "GUE of something else": over_udp(6080, b"\0\6\0\0" + INNER),
    "GUE with another IP version": over_udp(6080, b"\0\x29\0\0" + INNER),
    "GUE with GRE that nobody reads": over_udp(6080, b"\0\x2f\0\0\0\0\x12\x34" + INNER),
    "GUE, version 1, that does not fit": over_udp(6080, INNER[:-1]),
    "GRE in UDP that nobody reads": over_udp(4754, b"\0\0\x12\x34" + INNER),
    "GRE in UDP with reserved flags": over_udp(4754, b"\x08\0\x08\0" + INNER),
    "ERSPAN in UDP of another version": over_udp(4754, b"\x10\0\x88\xbe" + bytes(12) + FRAME),
    "MPLS in UDP without an end": over_udp(6635, bytes(100)),
    "MPLS in UDP with something else": over_udp(6635, labels(1, PAYLOAD * 9)[14:]),
    "LISP with something else": over_udp(4341, bytes(8) + PAYLOAD * 9),
    "AYIYA with something else": over_udp(5072, b"\x22\x52\x11\x29" + bytes(40) + PAYLOAD * 9),
    "AYIYA of IPv4": over_udp(5072, b"\x22\x52\x11\4" + bytes(28) + INNER),
}


@pytest.mark.parametrize("data", LEFT_ALONE.values(), ids=LEFT_ALONE)
def test_a_datagram_that_is_no_tunnel_stays_udp(data: bytes) -> None:
    decoder = Decoder()
    assert_as_reference(as_block([Frame(data)]), decoder)
    assert decoder.balance["tunnel_false"] == 1
    got = decode_one(data)
    assert_fields(got, **ends(A, B), status=Status.OK, protocol=17, src_port=51000)
    assert_fields(got, payload_length=len(data) - 42, payload_captured=len(data) - 42)


@pytest.mark.parametrize("port", [4789, 6081])
def test_an_overlay_is_not_looked_for_behind_its_own_port_as_source(port: int) -> None:
    data = over_udp(40000, bytes(VXLAN(vni=5) / mirrored()), sport=port)
    assert_fields(decode_one(data), **ends(A, B), protocol=17, dst_port=40000)


NOT_UNWRAPPED = {
    "unknown protocol": bytes(GRE(proto=0x1234)) + INNER,
    "keep-alive": bytes(GRE(proto=0)),
    "source routing": b"\x40\0\x08\0" + bytes(4) + INNER,
    "later version": b"\0\x02\x08\0" + INNER,
    "PPTP acknowledgement": bytes(GRE_PPTP(acknum_present=1)),
    "encrypted PPTP": bytes(GRE_PPTP(seqnum_present=1)) + b"\x00\xfd" + INNER,
    "options past its end": b"\xb0\0\x08\0",
    "ERSPAN II of another version": bytes(ERSPAN_SEQUENCE) + bytes(8) + bytes(mirrored()),
    "ERSPAN III of something else": bytes(TYPE_III) + bytes(ERSPAN_III(ft=5)) + bytes(mirrored()),
    "ERSPAN III without a frame": bytes(TYPE_III) + bytes(ERSPAN_III()),
    "EoIP's keep-alive": eoip(0),
    "EoIP longer than its packet": eoip(len(FRAME) + 1) + FRAME,
    "WCCP with something else": b"\0\0\x88\x3e" + PAYLOAD * 9,
}


@pytest.mark.parametrize("content", NOT_UNWRAPPED.values(), ids=NOT_UNWRAPPED)
def test_gre_that_nobody_reads_stays_a_flow_of_its_end_points(content: bytes) -> None:
    data = outer(content, 47)
    decoder = Decoder()
    assert_as_reference(as_block([Frame(data)]), decoder)
    got = decode_one(data)
    assert_fields(got, **ends(A, B), status=Status.OK, protocol=47, payload_length=len(content))
    assert decoder.balance["gre"] == 0


def test_ip_in_ip_of_another_version_stays_a_flow_of_its_end_points() -> None:
    for protocol, content in ((4, b"\x60" + bytes(59)), (41, INNER), (4, b"")):
        data = outer(content, protocol)
        assert_as_reference(as_block([Frame(data)]))
        assert_fields(decode_one(data), **ends(A, B), status=Status.OK, protocol=protocol)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (over_udp(4789, VXLAN(vni=5) / Ether() / ARP()), Status.TUNNEL_PAYLOAD),
        (outer(bytes(GRE(proto=0x6558)) + bytes(Ether() / ARP()), 47), Status.TUNNEL_PAYLOAD),
        (labels(1, Ether() / ARP()), Status.NOT_IP),
        (frame(PPPoE() / PPP(proto=0xC021) / Raw(b"lcp")), Status.NOT_IP),
        (bytes(Ether(type=0x8864)) + b"\x11\x09" + bytes(4), Status.NOT_IP),
        (labels(1, b"\x10" + bytes(30)), Status.NOT_IP),  # an associated channel, RFC 4385, 5
        (labels(1, b"\x4f" + bytes(30)), Status.BAD_NETWORK),
        (labels(1, b""), Status.TRUNCATED_LINK),
    ],
)
def test_what_carries_no_ip_is_counted_as_that(data: bytes, status: Status) -> None:
    assert_as_reference(as_block([Frame(data)]))
    assert Status(decode_one(data)["status"]) == status


def test_nesting_is_bounded() -> None:
    for count, status in ((MAX_LABELS, Status.OK), (MAX_LABELS + 1, Status.TOO_DEEP)):
        data = labels(count, INNER)
        assert_as_reference(as_block([Frame(data)]))
        assert Status(decode_one(data)["status"]) == status
    for depth, status in ((MAX_TUNNEL_DEPTH, Status.OK), (MAX_TUNNEL_DEPTH + 1, Status.TOO_DEEP)):
        wrapped, framed = INNER, bytes(mirrored())
        for _ in range(depth):
            wrapped = bytes(IP(src=A, dst=B, proto=4) / Raw(wrapped))
            framed = labels(1, framed)  # frames in labels in frames: no IP header to count
        for data in (frame(Raw(wrapped))[:12] + b"\x08\0" + wrapped, framed):
            assert_as_reference(as_block([Frame(data)]))
            assert Status(decode_one(data)["status"]) == status


def test_gtp_version_0_and_gtp_prime_are_recognised_and_left_as_udp() -> None:
    cases = {
        "gtp_v0": b"\x1e\xff" + len(INNER).to_bytes(2, "big") + bytes(16) + INNER,
        "gtp_prime": b"\x4e\xf0\x00\x0a\x00\x01" + PAYLOAD,
    }
    for name, content in cases.items():
        for ports in ((51000, 3386), (3386, 51000)):
            data = over_udp(ports[1], content, sport=ports[0])
            decoder = Decoder()
            assert_as_reference(as_block([Frame(data)]), decoder)
            assert (decoder.balance[name], decoder.balance["tunnel_false"]) == (1, 0)
            assert_fields(decode_one(data), **ends(A, B), protocol=17, payload_length=len(content))


def test_gtp_u_on_a_port_of_ones_own() -> None:
    data = over_udp(9999, bytes(gtp(7, inner()))[8:])
    assert_fields(decode_one(data), **ends(A, B), gtp_depth=0)
    packets = Decoder(gtp_ports=[9999]).decode(as_block([Frame(data)])).packets
    assert (packets["gtp_depth"][0], packets["gtp_teid"][0]) == (1, 7)


def test_first_fragments_of_tunnels_lead_inside() -> None:
    """The inner header stands in the first fragment; its packet reaches beyond it."""
    large = bytes(IP(src=SRC, dst=DST) / tcp() / Raw(bytes(900)))
    for protocol, content in ((4, large), (47, bytes(GRE(proto=0x0800)) + large)):
        data = frame(IP(src=A, dst=B, proto=protocol, flags="MF") / Raw(content[:400]))
        assert_as_reference(as_block([Frame(data)]))
        assert_fields(decode_one(data), **ends(SRC, DST), status=Status.OK, ip_length=len(large))


def test_control_messages_stay_the_flow_of_their_end_points() -> None:
    messages = {
        1701: [struct.pack(">HHHHHH", 0xC800 | v, 12, 7, 0, 1, 1) for v in (2, 3)],
        37008: [b"\1\4\0\0", b"\1\3\0\1" + PAYLOAD],
        5247: [
            capwap(8, 2) + bytes(20),
            b"\1\0\0\0\x17\xfe\xfd" + bytes(40),  # protected by DTLS
        ],
        6080: [b"\x20\0\0\0"],
    }
    for port, contents in messages.items():
        for content in contents:
            data = over_udp(port, content)
            decoder = Decoder()
            assert_as_reference(as_block([Frame(data)]), decoder)
            assert (decoder.balance["tunnel_control"], decoder.balance["tunnel_false"]) == (1, 0)
            assert_fields(decode_one(data), **ends(A, B), protocol=17, payload_length=len(content))


def test_l2tp_that_carries_no_ip_stays_the_flow_of_its_end_points() -> None:
    for data in (
        over_udp(1701, l2tp(0, b"\xff\x03\xc0\x21\1\1\0\4")),  # LCP
        over_udp(1701, l2tp(0x4800, b"\xff\x03\x00\xfd" + bytes(60))),  # encrypted
        over_udp(1701, l2tp(0, b"\xff\x03\x00\x21" + INNER[:-1])),  # IP that does not fit
        l2tp_3(bytes(12) + b"\1\x80\xc2\0\0\0" + FRAME[6:12] + b"\0\x26\x42\x42\3" + bytes(35)),
        l2tp_3_in_ip(PAYLOAD * 9),
    ):
        decoder = Decoder()
        assert_as_reference(as_block([Frame(data)]), decoder)
        assert decoder.balance["tunnel_not_ip"] == 1
        assert_fields(decode_one(data), **ends(A, B), status=Status.OK)


def test_l2tp_3_control_right_above_ip() -> None:
    data = outer(bytes(4) + struct.pack(">HHIHH", 0xC803, 12, 7, 1, 1), 115)
    decoder = Decoder()
    assert_as_reference(as_block([Frame(data)]), decoder)
    assert decoder.balance["tunnel_control"] == 1
    assert_fields(decode_one(data), **ends(A, B), protocol=115)


def test_ip_protocols_that_hold_something_else_stay_flows_of_their_end_points() -> None:
    for protocol, content in (
        (97, b"\x20\0" + FRAME),
        (97, b"\3\0" + PAYLOAD * 9),
        (97, b"\x30\0"),
        (115, b"\0\0"),
        (137, PAYLOAD * 9),
        (143, PAYLOAD * 9),
        (108, INNER),  # IPComp
    ):
        data = outer(content, protocol)
        assert_as_reference(as_block([Frame(data)]))
        got = decode_one(data)
        assert_fields(got, **ends(A, B), protocol=protocol, payload_length=len(content))


def test_ipv6_in_what_carries_both() -> None:
    packet = bytes(IPv6(src=SRC6, dst=DST6) / tcp())
    framed = bytes(Ether(src="02:00:00:00:00:03", type=0x86DD)) + packet
    for data in (
        over_udp(1701, l2tp(0x4800, b"\xff\x03\x00\x57" + packet)),
        l2tp_3(b"abcd" + framed),
        l2tp_3_in_ip(packet),
        over_udp(6080, b"\0\x29\0\0" + packet),
        over_udp(6080, packet),
        over_udp(4341, bytes(8) + packet),
        over_udp(5072, b"\x42\x52\x11\x29" + bytes(4 + 16 + 20) + packet),
        over_udp(50000, b"\x42\x52\x11\x29" + bytes(4 + 16 + 20) + packet, sport=5072),
        over_udp(6635, labels(1, packet)[14:]),
        tagged(0x894F, nsh(2, 2) + packet),
    ):
        assert_as_reference(as_block([Frame(data)]))
        assert_as_reference(as_block([Frame(data[:k], length=len(data)) for k in range(len(data))]))
        assert_fields(decode_one(data), **TCP_FIELDS, **ends(SRC6, DST6), ip_version=6)


ETHERNET_SESSIONS = {
    "IPv4": ({"gtp_ethernet": 1, "OK": 1}, FRAME),
    "tagged": ({"gtp_ethernet": 1, "OK": 1}, VLAN_FRAME),
    "padded": ({"gtp_ethernet": 1, "OK": 1}, FRAME + bytes(8)),
    "PPPoE": (
        {"gtp_ethernet": 1, "pppoe": 1, "OK": 1},
        bytes(Ether(src="02:00:00:00:00:03", type=0x8864)) + b"\x11\0\0\x09\0\x34\0\x21" + INNER,
    ),
    "PPP": ({"gtp_ppp": 1, "OK": 1}, PPP_IN),
    "PPP, no framing": ({"gtp_ppp": 1, "OK": 1}, b"\0\x21" + INNER),
}


@pytest.mark.parametrize(("counted", "content"), ETHERNET_SESSIONS.values(), ids=ETHERNET_SESSIONS)
@pytest.mark.parametrize("container", [False, True])
def test_sessions_of_other_types_than_ip(
    counted: dict[str, int], content: bytes, container: bool
) -> None:
    header = struct.pack(
        ">BBHI", 0x34 if container else 0x30, 255, len(content) + 8 * container, 77
    )
    header += bytes.fromhex("000000 85 01 10 09 00") if container else b""
    data = frame(IP(src=GNB, dst=UPF) / UDP(sport=2152, dport=2152) / Raw(header + content))
    decoder = Decoder()
    assert_as_reference(as_block([Frame(data)]), decoder)
    assert_as_reference(as_block([Frame(data[:k], length=len(data)) for k in range(len(data))]))
    assert {name: decoder.balance[name] for name in counted} == counted
    assert (decoder.balance["gtp_g_pdu"], decoder.balance["gtp_not_ip"]) == (1, 0)
    got = decode_one(data)
    assert_fields(got, **TCP_FIELDS, **ends(SRC, DST), **ends(GNB, UPF, "outer_"))
    assert_fields(got, gtp_depth=1, gtp_teid=77, gtp_qfi=9 if container else NONE8)


def test_what_an_ethernet_session_carries_beside_ip() -> None:
    arp = bytes(Ether(src="02:00:00:00:00:03", dst="ff:ff:ff:ff:ff:ff") / ARP())
    data = frame(IP(src=GNB, dst=UPF) / gtp(5, arp))
    assert_as_reference(as_block([Frame(data)]))
    assert Status(decode_one(data)["status"]) == Status.TUNNEL_PAYLOAD
    for content in (
        PAYLOAD * 9,  # unstructured
        FRAME[:6] + b"\x01" + FRAME[7:],  # sent by a group of stations
        FRAME[:-1],  # a packet that does not fit
        PPP_IN[:-1],
    ):
        data = frame(IP(src=GNB, dst=UPF) / gtp(5, content))
        decoder = Decoder()
        assert_as_reference(as_block([Frame(data)]), decoder)
        assert decoder.balance["gtp_not_ip"] == 1
        assert_fields(decode_one(data), **ends(GNB, UPF), gtp_depth=0, dst_port=2152)


def test_fragments_of_capwap_belong_together() -> None:
    """The first fragment has the header; the second one carries the rest of its packet."""
    large = bytes(Ether(src="02:00:00:00:00:03") / IP(src=SRC, dst=DST) / tcp() / Raw(bytes(900)))
    head = over_udp(5247, capwap(0x80, fragment=(9, 0)) + large[:400])
    tail = over_udp(5247, capwap(0xC0, fragment=(9, 50 << 3)) + large[400:])
    other = over_udp(5247, capwap(0xC0, fragment=(10, 50 << 3)) + large[400:])
    decoder = Decoder()
    assert_as_reference(as_block([Frame(head), Frame(tail), Frame(other)]), decoder)
    assert (decoder.balance["capwap"], decoder.balance["capwap_fragment"]) == (1, 2)
    first, second, third = (decode_one(data) for data in (head, tail, other))
    assert_fields(first, **ends(SRC, DST), status=Status.OK, ip_length=len(large) - 14, fragment=0)
    assert_fields(second, status=Status.LATER_FRAGMENT, fragment=2, fragment_offset=400)
    assert first["fragment_key"] == second["fragment_key"] != third["fragment_key"]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (tagged(0x88E5, b"\x0c" + bytes(60)), Status.NOT_IP),
        (tagged(0x894F, nsh(2, 4) + nsh(2, 1) + INNER), Status.NOT_IP),
        (tagged(0x894F, b"\x4f" + nsh(2, 1)[1:] + INNER), Status.NOT_IP),
        (tagged(0x22F3, b"\x40" + bytes(5) + FRAME), Status.NOT_IP),
        (over_udp(5247, capwap(0x100) + b"\x80\0" + bytes(60)), Status.TUNNEL_PAYLOAD),
        (over_udp(37008, b"\1\0\0\1\1" + bytes(Ether() / ARP())), Status.TUNNEL_PAYLOAD),
        (outer(b"\x30\0" + bytes(Ether() / ARP()), 97), Status.TUNNEL_PAYLOAD),
    ],
)
def test_frames_without_ip_are_refused_as_that(data: bytes, status: Status) -> None:
    assert_as_reference(as_block([Frame(data)]))
    assert Status(decode_one(data)["status"]) == status


def test_encrypted_frames_are_counted_by_name() -> None:
    decoder = Decoder()
    decoder.decode(as_block([Frame(tagged(0x88E5, b"\x0c" + bytes(60)))]))
    assert decoder.balance["macsec"] == 1


def test_frames_in_frames_are_bounded() -> None:
    for kind, head in ((0x88E7, bytes(4)), (0x8903, bytes(2)), (0x6558, b"")):
        data = FRAME
        for _ in range(MAX_TUNNEL_DEPTH + 1):
            data = tagged(kind, head + data)
        assert_as_reference(as_block([Frame(data)]))
        assert Status(decode_one(data)["status"]) == Status.TOO_DEEP


def test_tags_of_all_kinds_are_bounded_together() -> None:
    for count, status in ((MAX_VLAN_TAGS, Status.OK), (MAX_VLAN_TAGS + 1, Status.TOO_DEEP)):
        data = bytes(12) + b"\xf1\xc1" + (bytes(4) + b"\xf1\xc1") * (count - 1)
        data += bytes(4) + IP_BEHIND
        assert_as_reference(as_block([Frame(data)]))
        assert Status(decode_one(data)["status"]) == status
