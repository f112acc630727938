"""Every wrapping beside GTP-U: the same packet comes out, and what is none is left alone."""

from __future__ import annotations

import pytest
from scapy.contrib.erspan import ERSPAN_II, ERSPAN_III
from scapy.contrib.geneve import GENEVE
from scapy.contrib.mpls import MPLS
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, GRE, GRE_PPTP, Dot1Q, Ether
from scapy.layers.ppp import HDLC, PPP, PPPoE
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw

from tests.decode.frames import Frame, as_block, assert_as_reference, decode_one
from tests.decode.test_layers import (
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
from veilwatch.decode import Decoder
from veilwatch.decode.kernel import MAX_TUNNEL_DEPTH
from veilwatch.decode.shim import MAX_LABELS
from veilwatch.schema.packets import NONE8, Status

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
def test_a_mirror_of_n3_keeps_subscriber_and_tunnel(mirror: object, version: int) -> None:
    network = IP(src=GNB, dst=UPF) if version == 4 else IPv6(src=SRC6, dst=DST6)
    data = mirror(frame(network / gtp(0xBEEF, inner())))  # type: ignore[operator]
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
