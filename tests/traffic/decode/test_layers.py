"""Exact values for every wrapping, from packets that Scapy builds."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any, Literal

import pytest
from scapy.contrib.gtp import GTP_U_Header, GTPPDUSessionContainer
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.ipsec import AH
from scapy.layers.l2 import (
    ARP,
    GRE,
    LLC,
    SNAP,
    CookedLinux,
    CookedLinuxV2,
    Dot1AD,
    Dot1Q,
    Dot3,
    Ether,
)
from scapy.layers.sctp import SCTP
from scapy.packet import Packet, Raw

from tests.traffic.decode.frames import Frame, as_block, assert_as_reference, decode_one
from veilwatch.schema.packets import NONE8, Status

SRC, DST = "10.1.2.3", "93.184.216.34"
SRC6, DST6 = "2001:db8::a", "2001:db8:0:1::b"
GNB, UPF = "172.16.0.9", "172.16.0.1"
PAYLOAD = b"0123456789"


def halves(address: str) -> tuple[int, int]:
    """Return an address as the schema keeps it."""
    parsed = ip_address(address)
    value = int(parsed) if parsed.version == 6 else 0xFFFF << 32 | int(parsed)
    return value >> 64, value % 2**64


def ends(src: str, dst: str, prefix: str = "") -> dict[str, int]:
    """Return the four address fields of two end points."""
    names = ("src_hi", "src_lo", "dst_hi", "dst_lo")
    return dict(zip((prefix + name for name in names), halves(src) + halves(dst), strict=True))


def assert_fields(got: dict[str, int], **want: int) -> None:
    assert {name: got[name] for name in want} == want


def tcp() -> Packet:
    return TCP(sport=40000, dport=443, seq=7, ack=9, flags="PA", window=500) / Raw(PAYLOAD)


TCP_FIELDS = {
    "protocol": 6,
    "src_port": 40000,
    "dst_port": 443,
    "tcp_seq": 7,
    "tcp_ack": 9,
    "tcp_flags": 0x18,
    "tcp_window": 500,
    "payload_length": 10,
    "payload_captured": 10,
    "status": Status.OK,
}


def inner() -> Packet:
    return IP(src=SRC, dst=DST, id=77, ttl=61, tos=0xB8) / tcp()


def on_ethernet(packet: Packet) -> bytes:
    return bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / packet)


def gtp(teid: int, packet: Packet | bytes, **header: int) -> Packet:
    """Return a G-PDU over UDP between the gNB and the UPF, without the outer IP header."""
    tunnelled = packet if isinstance(packet, bytes) else bytes(packet)
    head = GTP_U_Header(teid=teid, gtp_type=255, **header)
    return UDP(sport=2152, dport=2152) / head / Raw(tunnelled)


def raw_gtp(header: bytes, content: bytes) -> bytes:
    """Return a frame with a hand-made GTP-U header."""
    return on_ethernet(IP(src=GNB, dst=UPF) / UDP(sport=2152, dport=2152) / Raw(header + content))


# link


@pytest.mark.parametrize(
    ("link", "frame", "vlan"),
    [
        pytest.param(1, on_ethernet(inner()), 0, id="Ethernet"),
        pytest.param(1, on_ethernet(Dot1Q(vlan=5) / inner()), 5, id="802.1Q"),
        pytest.param(1, on_ethernet(Dot1AD(vlan=9) / Dot1Q(vlan=5) / inner()), 5, id="QinQ"),
        pytest.param(
            1, bytes(Ether(type=0x9100) / Raw(b"\x00\x09\x81\x00\xe0\x05\x08\x00") / inner()), 5,
            id="0x9100 and priority bits",
        ),
        pytest.param(
            1, bytes(Dot3() / LLC(dsap=0xAA, ssap=0xAA, ctrl=3) / SNAP(code=0x800) / inner()), 0,
            id="802.3 SNAP",
        ),
        pytest.param(1, bytes(Dot3() / LLC(dsap=6, ssap=6, ctrl=3) / inner()), 0, id="802.3 IP"),
        pytest.param(113, bytes(CookedLinux(proto=0x800) / inner()), 0, id="SLL"),
        pytest.param(
            113, bytes(CookedLinux(proto=0x8100) / Dot1Q(vlan=3) / inner()), 3, id="SLL tagged"
        ),
        pytest.param(276, bytes(CookedLinuxV2(proto=0x800) / inner()), 0, id="SLL2"),
        *(pytest.param(link, bytes(inner()), 0, id=f"raw {link}") for link in (12, 14, 101, 228)),
        pytest.param(0, b"\x02\0\0\0" + bytes(inner()), 0, id="NULL, little-endian host"),
        pytest.param(0, b"\0\0\0\x02" + bytes(inner()), 0, id="NULL, big-endian host"),
        pytest.param(108, b"\0\0\0\x02" + bytes(inner()), 0, id="LOOP"),
    ],
)  # fmt: skip
def test_link_types_lead_to_the_same_packet(link: int, frame: bytes, vlan: int) -> None:
    got = decode_one(frame, link)

    assert_fields(got, **TCP_FIELDS, **ends(SRC, DST), vlan=vlan, ip_version=4, ip_length=50)
    assert_fields(got, ip_id=77, ttl=61, dscp=0xB8, fragment=0, wire_length=len(frame))
    assert_fields(got, payload_offset=len(frame) - len(PAYLOAD), number=1, source=3)
    assert_fields(got, gtp_depth=0, gtp_message=0, gtp_qfi=NONE8, gtp_pdu_type=NONE8)
    assert_fields(got, **dict.fromkeys(ends(SRC, DST, "outer_"), 0))


@pytest.mark.parametrize("family", [10, 23, 24, 28, 30])
@pytest.mark.parametrize("order", ["little", "big"])
def test_loopback_knows_every_number_of_ipv6(family: int, order: Literal["little", "big"]) -> None:
    packet = bytes(IPv6(src=SRC6, dst=DST6) / tcp())
    got = decode_one(family.to_bytes(4, order) + packet, 0)
    assert_fields(got, **TCP_FIELDS, **ends(SRC6, DST6), ip_version=6, ip_length=70)


@pytest.mark.parametrize(
    ("link", "frame", "status"),
    [
        (1, b"", Status.EMPTY),
        (190, b"x" * 60, Status.UNSUPPORTED_LINK),
        (1, on_ethernet(inner())[:13], Status.TRUNCATED_LINK),
        (1, on_ethernet(Dot1Q(vlan=5) / inner())[:17], Status.TRUNCATED_LINK),
        (1, on_ethernet(ARP()), Status.NOT_IP),
        (1, bytes(Dot3() / LLC(dsap=0x42, ssap=0x42, ctrl=3) / Raw(b"x" * 40)), Status.NOT_IP),
        (1, bytes(12) + b"\x81\0\0\1" * 9 + b"\x08\0" + bytes(inner()), Status.TOO_DEEP),
        (0, b"\x02\x01\0\0" + bytes(inner()), Status.NOT_IP),
        (113, bytes(CookedLinux(proto=0x806) / inner()), Status.NOT_IP),
        (113, bytes(CookedLinux(proto=0x800) / inner())[:15], Status.TRUNCATED_LINK),
        (276, bytes(CookedLinuxV2(proto=0x800) / inner())[:19], Status.TRUNCATED_LINK),
        (101, b"\x50" + bytes(inner())[1:], Status.BAD_NETWORK),
        (228, bytes(IPv6() / tcp()), Status.BAD_NETWORK),
        (229, bytes(inner()), Status.BAD_NETWORK),
    ],
)
def test_frames_without_a_packet_for_us_are_named(link: int, frame: bytes, status: int) -> None:
    assert decode_one(frame, link)["status"] == status


def test_eight_vlan_tags_are_followed() -> None:
    frame = bytes(12) + b"".join(b"\x81\0\0" + bytes([i]) for i in range(8))
    assert_fields(decode_one(frame + b"\x08\0" + bytes(inner())), vlan=7, **TCP_FIELDS)


# network


def test_ethernet_padding_is_no_payload() -> None:
    frame = on_ethernet(IP(src=SRC, dst=DST) / TCP(flags="A")) + bytes(6)
    assert_fields(decode_one(frame), payload_length=0, payload_captured=0, ip_length=40, status=0)


def test_sizes_come_from_the_ip_header_where_the_capture_is_cut() -> None:
    frame = on_ethernet(IP(src=SRC, dst=DST) / TCP() / Raw(b"x" * 1000))
    got = decode_one(frame[:100], length=len(frame))
    assert_fields(got, ip_length=1040, payload_length=1000, payload_captured=46, wire_length=1054)
    assert got["payload_offset"] == 54


def test_ipv4_options_are_stepped_over() -> None:
    packet = IP(src=SRC, dst=DST, options=[IPOption_NOP()] * 8) / tcp()
    assert_fields(decode_one(on_ethernet(packet)), **TCP_FIELDS, ip_length=58)


@pytest.mark.parametrize(
    ("wire", "believed"),
    [(None, 90), (5000, 5000), (0, 90), (2**32 - 1, 262_144)],
)
def test_length_of_zero_means_the_frame(wire: int | None, believed: int) -> None:
    # segmentation offload leaves 0; the record says how long the frame was
    packet = IP(src=SRC, dst=DST, len=0) / TCP() / Raw(b"x" * 50)
    got = decode_one(bytes(packet), 101, wire)
    assert_fields(got, ip_length=believed, payload_length=believed - 40, payload_captured=50)


def test_ipv6_extension_headers_are_walked() -> None:
    packet = IPv6(src=SRC6, dst=DST6, tc=0x12, hlim=9) / IPv6ExtHdrHopByHop()
    packet /= IPv6ExtHdrRouting(addresses=["2001:db8::c"]) / IPv6ExtHdrDestOpt()
    packet /= AH(nh=6, payloadlen=4, icv=b"\0" * 12) / tcp()
    got = decode_one(on_ethernet(packet))
    assert_fields(got, **TCP_FIELDS, **ends(SRC6, DST6), dscp=0x12, ttl=9, ip_id=0, fragment=0)
    assert got["ip_length"] == len(packet)


def test_ipv4_authentication_header_is_walked() -> None:
    packet = IP(src=SRC, dst=DST) / AH(nh=6, payloadlen=4, icv=b"\0" * 12) / tcp()
    assert_fields(decode_one(on_ethernet(packet)), **TCP_FIELDS)


def test_ipv4_fragments() -> None:
    first = (
        IP(src=SRC, dst=DST, id=5, flags="MF") / UDP(sport=1, dport=2, len=3000) / Raw(b"x" * 24)
    )
    later = IP(src=SRC, dst=DST, id=5, frag=4, proto=17) / Raw(b"x" * 24)
    got = decode_one(on_ethernet(first))
    assert_fields(got, status=0, fragment=1, ip_id=5, src_port=1, dst_port=2, payload_length=24)
    got = decode_one(on_ethernet(later))
    assert_fields(got, status=Status.LATER_FRAGMENT, fragment=2, ip_id=5, protocol=17, src_port=0)
    assert_fields(got, **ends(SRC, DST), payload_length=24, payload_captured=24)
    assert_fields(got, payload_offset=34, fragment_start=34, fragment_offset=32)


def test_nothing_follows_an_ipv6_header_that_says_so() -> None:
    # A length of 0 is the truth here (Teredo bubbles); what the frame holds more is padding.
    data = on_ethernet(IPv6(src=SRC6, dst=DST6, nh=59, plen=0) / Raw(b"padding"))
    assert_as_reference(as_block([Frame(data)]))
    assert_fields(decode_one(data), status=0, protocol=59, ip_length=40, payload_length=0)


def test_all_fragments_of_a_packet_share_a_key() -> None:
    def key(**fields: Any) -> int:
        packet = IP(**({"src": SRC, "dst": DST, "id": 5, "proto": 17} | fields)) / Raw(b"x" * 24)
        return decode_one(on_ethernet(packet))["fragment_key"]

    first = key(flags="MF")
    assert first == key(frag=3, flags="MF") == key(frag=6)
    others = [key(frag=3, id=6), key(frag=3, src=DST), key(frag=3, dst=SRC)]
    assert len({first, *others}) == 4
    assert key() == 0


def test_an_outer_first_fragment_keeps_its_key_inside_the_tunnel() -> None:
    datagram = bytes(IP(src=GNB, dst=UPF) / gtp(9, IP(src=SRC, dst=DST) / tcp()))
    whole = decode_one(on_ethernet(IP(datagram)))
    first = decode_one(on_ethernet(IP(src=GNB, dst=UPF, flags="MF", proto=17) / Raw(datagram[20:])))
    later = decode_one(on_ethernet(IP(src=GNB, dst=UPF, frag=99, proto=17) / Raw(b"x" * 8)))
    assert (whole["fragment_key"], first["fragment"]) == (0, 0)
    assert first["fragment_key"] == later["fragment_key"] != 0
    assert_fields(first, fragment_start=34, **ends(SRC, DST))


def test_ipv6_fragments() -> None:
    head = IPv6(src=SRC6, dst=DST6)
    first = head / IPv6ExtHdrFragment(id=0xDEADBEEF, m=1) / tcp()
    assert_fields(decode_one(on_ethernet(first)), **TCP_FIELDS, fragment=1, ip_id=0xDEADBEEF)
    atomic = head / IPv6ExtHdrFragment(id=3) / tcp()
    assert_fields(decode_one(on_ethernet(atomic)), **TCP_FIELDS, fragment=0, ip_id=3)
    later = head / IPv6ExtHdrFragment(id=3, offset=2, nh=6) / Raw(b"x" * 40)
    got = decode_one(on_ethernet(later))
    assert_fields(got, status=Status.LATER_FRAGMENT, fragment=2, ip_id=3, protocol=6, src_port=0)
    assert_fields(got, payload_length=40, payload_offset=62, fragment_offset=16)


@pytest.mark.parametrize(
    ("packet", "status"),
    [
        (IP(ihl=4, len=60) / tcp(), Status.BAD_NETWORK),
        (IP(len=19) / tcp(), Status.BAD_NETWORK),
        (IP(version=5) / tcp(), Status.BAD_NETWORK),
        (IPv6(plen=4, nh=60) / Raw(b"\x06\0\0\0\0\0\0\0"), Status.BAD_NETWORK),
        (IPv6(nh=60) / Raw(b"\x06\x20" + bytes(30)), Status.BAD_NETWORK),
        (IPv6(nh=60) / Raw((b"\x3c" + bytes(7)) * 16 + b"\x06" + bytes(40)), Status.BAD_NETWORK),
        (IPv6(nh=51) / Raw(b"\x06\x00" + bytes(30)), Status.BAD_NETWORK),
    ],
)
def test_impossible_network_headers(packet: Packet, status: int) -> None:
    frame = bytes(Ether(type=0x86DD if packet.name == "IPv6" else 0x800) / packet)
    assert decode_one(frame)["status"] == status


# transport


@pytest.mark.parametrize(
    ("transport", "fields"),
    [
        (UDP(sport=5, dport=53) / Raw(PAYLOAD), {"src_port": 5, "dst_port": 53}),
        (SCTP(sport=5, dport=36412) / Raw(PAYLOAD), {"src_port": 5, "dst_port": 36412}),
        (ICMP(type=3, code=13) / Raw(PAYLOAD), {"icmp_type": 3, "icmp_code": 13, "src_port": 0}),
        (ICMPv6EchoRequest(data=PAYLOAD), {"icmp_type": 128, "icmp_code": 0, "dst_port": 0}),
        (GRE(proto=0x1234) / Raw(PAYLOAD[4:]), {"protocol": 47, "src_port": 0, "dst_port": 0}),
    ],
)
@pytest.mark.parametrize("version", [4, 6])
def test_other_transports(transport: Packet, fields: dict[str, int], version: int) -> None:
    network = IP(src=SRC, dst=DST) if version == 4 else IPv6(src=SRC6, dst=DST6)
    if isinstance(transport, ICMP):  # Scapy sets neither of these in the other's IP
        network = IP(src=SRC, dst=DST)
    elif isinstance(transport, ICMPv6EchoRequest):
        network = IPv6(src=SRC6, dst=DST6)
    frame = on_ethernet(network / transport)
    got = decode_one(frame)
    assert_fields(got, status=0, payload_length=10, payload_captured=10, **fields)
    assert got["payload_offset"] == len(frame) - 10


def test_options_of_a_syn() -> None:
    options = [("NOP", None), ("MSS", 1380), ("SAckOK", b""), ("WScale", 8)]
    frame = on_ethernet(IP() / TCP(flags="S", options=options))
    assert_fields(decode_one(frame), tcp_mss=1380, tcp_wscale=8, tcp_flags=2)
    answer = on_ethernet(IP() / TCP(flags="A", options=options))
    assert_fields(decode_one(answer), tcp_mss=0, tcp_wscale=NONE8)


def test_tcp_options_cut_by_the_capture_leave_a_good_packet() -> None:
    frame = on_ethernet(IP() / TCP(flags="S", options=[("MSS", 1380)] * 4) / Raw(PAYLOAD))
    got = decode_one(frame[: 14 + 20 + 21], length=len(frame))
    assert_fields(got, status=0, tcp_mss=0, payload_length=10, payload_captured=0)


def test_all_nine_tcp_flags() -> None:
    frame = on_ethernet(IP() / TCP(flags="NCEUAPRSF"))
    assert decode_one(frame)["tcp_flags"] == 0x1FF


@pytest.mark.parametrize(
    ("packet", "kept", "status"),
    [
        (IP() / tcp(), 20 + 19, Status.TRUNCATED_TRANSPORT),
        (IP() / UDP(), 20 + 7, Status.TRUNCATED_TRANSPORT),
        (IP() / ICMP(), 20 + 7, Status.TRUNCATED_TRANSPORT),
        (IP() / SCTP(), 20 + 11, Status.TRUNCATED_TRANSPORT),
        (IP() / tcp(), 19, Status.TRUNCATED_NETWORK),
        (IP() / TCP(dataofs=4), None, Status.BAD_TRANSPORT),
        (IP() / TCP(dataofs=9), None, Status.BAD_TRANSPORT),
        (IP(len=39) / TCP(), None, Status.BAD_TRANSPORT),
        (IP() / UDP(len=7), None, Status.BAD_TRANSPORT),
        (IP(len=27) / UDP(), None, Status.BAD_TRANSPORT),
    ],
)
def test_cut_and_impossible_transports(packet: Packet, kept: int | None, status: int) -> None:
    data = bytes(packet)
    assert decode_one(data[:kept], 101, len(data))["status"] == status


def test_udp_ends_by_its_own_length() -> None:
    packet = IP() / UDP(sport=1, dport=2, len=13) / Raw(PAYLOAD)
    assert_fields(decode_one(on_ethernet(packet)), payload_length=5, payload_captured=5, status=0)


def test_udp_length_of_zero_means_all_of_the_packet() -> None:
    packet = IP() / UDP(sport=1, dport=2, len=0) / Raw(PAYLOAD)
    assert_fields(decode_one(on_ethernet(packet)), payload_length=10, payload_captured=10, status=0)


# GTP-U


@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("version", [4, 6])
def test_g_pdu(outer: int, version: int) -> None:
    network = IP(src=GNB, dst=UPF, id=1) if outer == 4 else IPv6(src=SRC6, dst=DST6)
    packet = inner() if version == 4 else IPv6(src=DST6, dst=SRC6) / tcp()
    frame = on_ethernet(network / gtp(0xCAFE0001, packet))

    got = decode_one(frame)

    assert_fields(got, **TCP_FIELDS, gtp_teid=0xCAFE0001, gtp_depth=1, gtp_message=255)
    assert_fields(got, gtp_qfi=NONE8, gtp_pdu_type=NONE8, gtp_extension_count=0, gtp_extensions=0)
    assert_fields(got, **(ends(SRC, DST) if version == 4 else ends(DST6, SRC6)))
    assert_fields(got, **(ends(GNB, UPF, "outer_") if outer == 4 else ends(SRC6, DST6, "outer_")))
    assert_fields(got, ip_version=version, ip_length=len(packet), ip_id=77 if version == 4 else 0)
    assert got["payload_offset"] == len(frame) - len(PAYLOAD)


@pytest.mark.parametrize("flags", [{"S": 1}, {"PN": 1}, {"S": 1, "PN": 1}])
def test_optional_fields_without_extensions(flags: dict[str, int]) -> None:
    got = decode_one(on_ethernet(IP() / gtp(7, inner(), **flags)))
    assert_fields(got, **TCP_FIELDS, gtp_teid=7, gtp_extension_count=0)


@pytest.mark.parametrize(("pdu_type", "qfi"), [(0, 9), (1, 63), (1, 0)])
def test_pdu_session_container(pdu_type: int, qfi: int) -> None:
    header = GTP_U_Header(teid=7, E=1, next_ex=0x85, gtp_type=255)
    container = GTPPDUSessionContainer(type=pdu_type, QFI=qfi)
    packet = IP(src=GNB, dst=UPF) / UDP(sport=2152, dport=2152) / header / container / inner()
    got = decode_one(on_ethernet(packet))
    assert_fields(got, **TCP_FIELDS, **ends(SRC, DST), gtp_pdu_type=pdu_type, gtp_qfi=qfi)
    assert_fields(got, gtp_extension_count=1, gtp_extensions=0x85)


def extended(kinds: list[int]) -> bytes:
    """Return a G-PDU with a chain of 4-byte extension headers."""
    following = [*kinds[1:], 0]
    chain = b"".join(b"\x01\x10\x05" + bytes([kind]) for kind in following)
    content = b"\0\0\0" + bytes([kinds[0]]) + chain + bytes(inner())
    return raw_gtp(b"\x34\xff" + len(content).to_bytes(2) + b"\0\0\0\x09", content)


def test_chains_of_extension_headers() -> None:
    got = decode_one(extended([0x40, 0x85, 0xC0, 0x20, 0x81]))
    assert_fields(got, **TCP_FIELDS, gtp_teid=9, gtp_extension_count=5, gtp_extensions=0x20C08540)
    assert_fields(got, gtp_pdu_type=1, gtp_qfi=5)
    assert_fields(decode_one(extended([0x40] * 16)), **TCP_FIELDS, gtp_extension_count=16)
    assert decode_one(extended([0x40] * 17))["status"] == Status.BAD_TUNNEL


def test_extension_headers_that_contradict_the_message() -> None:
    frame = extended([0x85])
    chain_at = len(frame) - len(inner()) - 4
    for units in (0, 30):
        broken = bytearray(frame)
        broken[chain_at] = units
        assert decode_one(bytes(broken))["status"] == Status.BAD_TUNNEL


def test_gtp_in_gtp_keeps_the_innermost_tunnel() -> None:
    middle = IP(src="172.20.0.1", dst="172.20.0.2") / gtp(2, inner())
    session = GTP_U_Header(teid=1, E=1, next_ex=0x85, gtp_type=255)
    session /= GTPPDUSessionContainer(type=1, QFI=9)
    outer = IP(src=GNB, dst=UPF) / UDP(sport=2152, dport=2152) / session / Raw(bytes(middle))
    got = decode_one(on_ethernet(outer))
    assert_fields(got, **TCP_FIELDS, **ends("172.20.0.1", "172.20.0.2", "outer_"), gtp_teid=2)
    assert_fields(got, gtp_depth=2, gtp_qfi=NONE8, gtp_extension_count=0)


@pytest.mark.parametrize(("depth", "status"), [(4, Status.OK), (5, Status.TOO_DEEP)])
def test_tunnels_nest_to_a_bound(depth: int, status: int) -> None:
    packet: Packet = inner()
    for teid in range(depth):
        packet = IP(src=GNB, dst=UPF) / gtp(teid, packet)
    got = decode_one(on_ethernet(packet))
    assert_fields(got, status=status, gtp_depth=depth, gtp_teid=0)


@pytest.mark.parametrize("message", [1, 2, 26, 31, 254])
def test_messages_between_the_ends_stay_their_own_packet(message: int) -> None:
    header = b"\x32" + bytes([message]) + b"\x00\x06" + b"\0\0\0\x2a" + b"\0\x01\0\0" + b"\x0e\0"
    got = decode_one(raw_gtp(header, b""))
    assert_fields(got, status=0, gtp_message=message, gtp_teid=42, gtp_depth=0, protocol=17)
    assert_fields(got, **ends(GNB, UPF), src_port=2152, dst_port=2152, payload_length=14)
    assert_fields(got, **dict.fromkeys(ends(SRC, DST, "outer_"), 0))


def test_a_message_inside_a_tunnel_leaves_the_tunnel_alone() -> None:
    echo = UDP(sport=2152, dport=2152) / Raw(b"\x32\x01\x00\x04\0\0\0\0\0\x01\0\0")
    got = decode_one(on_ethernet(IP(src=GNB, dst=UPF) / gtp(5, IP(src=SRC, dst=DST) / echo)))
    assert_fields(got, gtp_message=255, gtp_teid=5, gtp_depth=1, **ends(SRC, DST), dst_port=2152)


TPDU = bytes(inner())


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x30\xff\x00", id="shorter than a header"),
        pytest.param(b"\x50\xff\x00\x32\0\0\0\x09" + TPDU, id="version 2"),
        pytest.param(b"\x20\xff\x00\x32\0\0\0\x09" + TPDU, id="GTP prime"),
        pytest.param(b"\x30\xff\x00\x33\0\0\0\x09" + TPDU, id="longer than the datagram"),
        pytest.param(b"\x32\xff\x00\x03\0\0\0\x09" + TPDU, id="no room for optional fields"),
        pytest.param(b"\x30\xff\x00\x32\0\0\0\x09" + b"\x73" + TPDU[1:], id="not IP inside"),
        pytest.param(b"\x30\xff\x00\x32\0\0\0\x09" + b"\x44" + TPDU[1:], id="bad header inside"),
        pytest.param(b"\x30\xff\x00\x28\0\0\0\x09" + TPDU, id="more inside than fits"),
        pytest.param(b"\x30\xff\x00\x13\0\0\0\x09" + TPDU[:19], id="less inside than a header"),
        pytest.param(
            b"\x30\xff\x00\x32\0\0\0\x09" + b"\x60" + TPDU[1:], id="IPv6 that does not fit"
        ),
        pytest.param(b"\x30\xff\x00\x00\0\0\0\x09", id="nothing inside"),
        pytest.param(b"\x32\x01\x00\x05\0\0\0\0\0\x01\0\0", id="echo of a wrong length"),
        pytest.param(b"SIP/2.0 200 OK\r\n", id="text"),
    ],
)
def test_other_programs_on_the_port_stay_ordinary_udp(payload: bytes) -> None:
    got = decode_one(raw_gtp(payload, b""))
    assert_fields(got, status=0, gtp_message=0, gtp_teid=0, gtp_depth=0, gtp_extension_count=0)
    assert_fields(got, **ends(GNB, UPF), dst_port=2152, payload_length=len(payload))


@pytest.mark.parametrize(
    ("cut", "status"),
    [
        (28 + 7, Status.TRUNCATED_TUNNEL),  # in the mandatory header
        (28 + 11, Status.TRUNCATED_TUNNEL),  # in the optional fields
        (28 + 15, Status.TRUNCATED_TUNNEL),  # in the extension header
        (28 + 16, Status.TRUNCATED_NETWORK),  # before the inner packet
        (28 + 16 + 19, Status.TRUNCATED_NETWORK),  # in its IP header
        (28 + 16 + 20 + 19, Status.TRUNCATED_TRANSPORT),  # in its TCP header
    ],
)
def test_tunnels_cut_by_the_capture(cut: int, status: int) -> None:
    frame = extended([0x85])
    assert decode_one(frame[: 14 + cut], length=len(frame))["status"] == status


def test_first_outer_fragment_shows_the_whole_inner_packet() -> None:
    # Arrange: an inner packet of 1,460 bytes in a datagram that was cut on its way
    packet = IP(src=SRC, dst=DST) / TCP(sport=4, dport=5) / Raw(b"x" * 1420)
    datagram = bytes(IP(src=GNB, dst=UPF) / gtp(9, packet))
    first = IP(src=GNB, dst=UPF, flags="MF", proto=17) / Raw(datagram[20:1300])
    later = IP(src=GNB, dst=UPF, frag=160, proto=17) / Raw(datagram[1300:])

    # Act
    head, tail = decode_one(on_ethernet(first)), decode_one(on_ethernet(later))

    # Assert
    assert_fields(head, status=0, gtp_teid=9, ip_length=1460, payload_length=1420, fragment=0)
    assert head["payload_captured"] == 1280 - 8 - 8 - 40
    assert_fields(tail, status=Status.LATER_FRAGMENT, gtp_depth=0, **ends(GNB, UPF))


def test_later_inner_fragment_names_its_tunnel_and_no_ports() -> None:
    packet = IP(src=SRC, dst=DST, frag=3, proto=6) / Raw(b"x" * 40)
    got = decode_one(on_ethernet(IP(src=GNB, dst=UPF) / gtp(9, packet)))
    assert_fields(got, status=Status.LATER_FRAGMENT, fragment=2, gtp_teid=9, **ends(SRC, DST))
    assert_fields(got, src_port=0, dst_port=0, payload_length=40, fragment_offset=24)
