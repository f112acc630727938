"""Kernels against the reference on packets that Hypothesis nests, cuts and corrupts."""

from __future__ import annotations

from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from scapy.contrib.erspan import ERSPAN_II, ERSPAN_III
from scapy.contrib.geneve import GENEVE
from scapy.contrib.gtp import GTP_U_Header, GTPPDUSessionContainer
from scapy.contrib.mpls import MPLS
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
from scapy.layers.l2 import GRE, GRE_PPTP, Dot1AD, Dot1Q, Ether
from scapy.layers.ppp import PPP, PPPoE
from scapy.layers.sctp import SCTP
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw

from tests.examples import examples
from tests.traffic.decode.frames import Frame, as_block, assert_as_reference

addresses4 = st.ip_addresses(v=4).map(str)
addresses6 = st.ip_addresses(v=6).map(str)
ports = st.integers(0, 65535)


@st.composite
def transports(draw: st.DrawFn) -> Packet:
    payload = Raw(draw(st.binary(max_size=24)))
    flags = draw(st.sampled_from(["S", "SA", "A", "PA", "FA", "R", "SEC"]))
    options = draw(
        st.lists(
            st.sampled_from([("MSS", 1460), ("WScale", 200), ("NOP", None), ("SAckOK", b"")]),
            max_size=4,
        )
    )
    header = draw(
        st.sampled_from(
            [
                TCP(sport=draw(ports), dport=draw(ports), flags=flags, options=options),
                UDP(sport=draw(ports), dport=draw(ports)),
                UDP(sport=draw(ports), dport=2152),
                UDP(sport=draw(ports), dport=2152) / GTP_U_Header(gtp_type=1, S=1),
                SCTP(sport=draw(ports), dport=draw(ports)),
                ICMP(type=draw(st.integers(0, 255))),
                ICMPv6EchoRequest(),
                Raw(b""),
            ]
        )
    )
    return header / payload


@st.composite
def networks(draw: st.DrawFn, upper: Packet) -> Packet:
    # What Scapy sees as bytes it gives no protocol number: IP in IP, GRE by hand, anything else.
    numbers = [4, 4, 41, 41, 47, 50, 97, 115, 137, 143, 33, 136]
    bare = draw(st.sampled_from(numbers)) if isinstance(upper, Raw) else None
    if draw(st.booleans()):
        flags, frag = draw(st.sampled_from([(0, 0), (0, 0), ("DF", 0), ("MF", 0), (0, 9)]))
        options = [IPOption_NOP()] * draw(st.integers(0, 4))
        header: Packet = IP(
            src=draw(addresses4), dst=draw(addresses4), flags=flags, frag=frag, options=options
        )
        if bare:
            header.proto = bare
        if draw(st.integers(0, 9)) == 0:
            header /= AH(icv=b"\0" * 12)
        return header / upper
    header = IPv6(src=draw(addresses6), dst=draw(addresses6), tc=draw(st.integers(0, 255)))
    if bare:
        header.nh = bare
        return header / upper
    extensions = st.sampled_from(
        [
            IPv6ExtHdrHopByHop(),
            IPv6ExtHdrDestOpt(),
            IPv6ExtHdrRouting(),
            IPv6ExtHdrFragment(m=1, id=9),
            IPv6ExtHdrFragment(offset=3),
            AH(icv=b"\0" * 12),
        ]
    )
    for extension in draw(st.lists(extensions, max_size=3)):
        header /= extension.copy()
    return header / upper


PPP_HEADS = (b"\xff\x03\0\x21", b"\xff\x03\0\x57", b"\0\x21", b"\x57", b"\0\xfd")
HEADS: dict[int, list[bytes]] = {
    97: [b"\x30\0", b"\3\0"],
    115: [b"\0\0\0\5" + cookie for cookie in (b"", b"abcd", b"abcdefgh")] + [bytes(4)],
    137: [b"\0\1\1\x40", b"\0\1\0\x40\0\1\1\x40", b"\0\1\1\x40" + bytes(4)],
    1701: [
        *(b"\0\2\0\7\0\1" + ppp for ppp in PPP_HEADS),
        *(b"\x0a\2\0\7\0\1" + bytes(4) + b"\0\2ab" + ppp for ppp in PPP_HEADS),
        *(b"\0\3\0\0\0\0\0\5" + cookie for cookie in (b"", b"abcd", b"abcdefghijkl")),
        b"\xc8\2\0\x0c" + bytes(8),
    ],
    4341: [b"\xc0\0\0\1\0\0\0\1"],
    4754: [b"\0\0\x08\0", b"\x20\0\x65\x58abcd", b"\0\0\x12\x34"],
    5072: [b"\x42\x52\x11\x29" + bytes(40), b"\2\2\x11\x29" + bytes(5)],
    5247: [
        b"\0\x10\2\0\0\0\0\0",
        b"\0\x10\2\x80\0\7\0\0",
        b"\0\x10\2\x80\0\7\0\x08",
        b"\0\x10\3\0\0\0\0\0\x08\2" + bytes(22) + b"\xaa\xaa\3\0\0\0\x08\0",
    ],
    6080: [b"\0\4\0\0", b"\1\x29\0\0abcd", b"\0\x8f\0\0", b"\0\x2f\0\0\0\0\x08\0", b""],
    6635: [b"\0\1\1\x40", b"\0\1\0\x40\0\1\1\x40", b"\0\1\1\x40" + bytes(4)],
    37008: [b"\1\0\0\1\1", b"\1\0\0\1\x0a\1\0\0\0\1", b"\1\4\0\0"],
}
"""What stands between a port, or an IP protocol below 256, and the content of a tunnel."""


@st.composite
def tunnels(draw: st.DrawFn, content: Packet) -> Packet:
    """What stands between two IP headers; a tunnel may announce another thing than it holds."""
    framed = Ether(type=draw(st.sampled_from([0x800, 0x86DD, 0x8847, 0x806]))) / content
    ethertype = draw(st.sampled_from([0x800, 0x86DD, 0x8847, 0x8864, 0x1234]))
    kinds = ["gtp", "gtp", "gre", "bridged", "erspan", "udp", "ip", "pptp", "port", "port"]
    kind = draw(st.sampled_from(kinds))
    bits = {name: draw(st.integers(0, 1)) for name in ("chksum", "key", "seqnum")}
    present = {f"{name}_present": bit for name, bit in bits.items()}
    match kind:
        case "gtp":
            header = GTP_U_Header(
                teid=draw(st.integers(0, 2**32 - 1)), S=draw(st.integers(0, 1)), gtp_type=255
            )
            if draw(st.booleans()):
                header.E, header.next_ex = 1, 0x85
                header /= GTPPDUSessionContainer(
                    type=draw(st.integers(0, 1)), QFI=draw(st.integers(0, 63))
                )
            return UDP(sport=draw(ports), dport=2152) / header / content
        case "gre":
            return GRE(proto=ethertype, **present) / content
        case "bridged":
            return GRE(proto=0x6558, **present) / framed
        case "erspan":
            header = draw(st.sampled_from([Raw(b""), ERSPAN_II(), ERSPAN_III(), ERSPAN_III(o=1)]))
            proto = draw(st.sampled_from([0x88BE, 0x22EB]))
            return GRE(proto=proto, seqnum_present=bits["seqnum"]) / Raw(bytes(header)) / framed
        case "udp":
            port = draw(st.sampled_from([3386, 3544, 4789, 4790, 6081, 8472]))
            options = Raw(bytes.fromhex("0000000041424344"))
            header = draw(
                st.sampled_from(
                    [VXLAN(flags=8), Raw(b"\x0c\0\0\x01" + bytes(4)), GENEVE(proto=0x6558), options]
                )
            )
            inside = draw(st.sampled_from([framed, content]))
            return UDP(sport=draw(ports), dport=port) / Raw(bytes(header)) / inside
        case "port":
            port, heads = draw(st.sampled_from(list(HEADS.items())))
            head = draw(st.sampled_from(heads))
            inside = draw(st.sampled_from([framed, content]))
            if port < 256:  # an IP protocol, which `networks` gives to what Scapy knows as bytes
                return Raw(head) / inside
            ends = {"sport": draw(ports), "dport": port}
            if draw(st.integers(0, 3)) == 0:
                ends = {"sport": port, "dport": draw(ports)}
            return UDP(**ends) / Raw(head) / inside
        case "pptp":
            ppp = Raw(draw(st.sampled_from([b"\0\x21", b"\xff\x03\0\x57", b"\x21", b"\0\xfd"])))
            return Raw(bytes(GRE_PPTP(seqnum_present=bits["seqnum"]))) / ppp / content
    return content


@st.composite
def packets(draw: st.DrawFn) -> bytes:
    packet = draw(networks(draw(transports())))
    for _ in range(draw(st.integers(0, 6))):
        # the payload as bytes: Scapy would otherwise recompute what it believes about it
        packet = draw(networks(draw(tunnels(Raw(bytes(packet))))))
    frame: Packet = Ether()
    for tag in draw(st.lists(st.sampled_from([Dot1Q, Dot1AD]), max_size=3)):
        frame /= tag(vlan=draw(st.integers(0, 4095)))
    if draw(st.booleans()):
        return bytes(frame / packet)
    if draw(st.integers(0, 3)) == 0:
        kind, head = draw(
            st.sampled_from(
                [
                    (0x88E7, bytes(4)),
                    (0x8903, bytes(2)),
                    (0x22F3, b"\0\x7f\0\1\0\2" + bytes(4)),
                    (0x894F, b"\x0f\xc2\2\3" + bytes(4)),
                    (0x88E5, b"\x20" + bytes(13) + b"\x08\0"),
                    (0x8926, bytes(4) + b"\x08\0"),
                    (0x880B, b"\xff\3\0\x21"),
                ]
            )
        )
        return bytes(Ether(type=kind)) + head + bytes(frame / packet if len(head) != 16 else packet)
    shim = PPPoE(sessionid=1) / PPP(proto=0x21 if isinstance(packet, IP) else 0x57)
    if draw(st.booleans()):
        shim = MPLS(s=0) / MPLS(s=1) / Raw(draw(st.sampled_from([b"", b"", bytes(4)])))
    return bytes(frame / shim / Raw(bytes(packet)))


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    data = bytearray(draw(packets()))
    length = len(data)
    for _ in range(draw(st.integers(0, 3))):
        data[draw(st.integers(0, length - 1))] = draw(st.integers(0, 255))
    data += bytes(draw(st.sampled_from([0, 0, 6, 18])))  # Ethernet padding
    if draw(st.booleans()):
        del data[draw(st.integers(0, len(data))) :]
    claimed = draw(st.sampled_from([None, length, length, 0, 2**32 - 1]))
    return Frame(bytes(data), 1, claimed)


@examples(40, suppress_health_check=list(HealthCheck))
@given(st.lists(frames(), min_size=1, max_size=4))
def test_kernels_agree_with_the_reference(sample: list[Frame]) -> None:
    assert_as_reference(as_block(sample))
