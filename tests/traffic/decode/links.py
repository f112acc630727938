"""One frame for every link type and every form of it, with the same packet inside."""

from __future__ import annotations

import struct
import zlib

from scapy.layers.l2 import Ether

from tests.traffic.decode.test_layers import inner

INNER = bytes(inner())
MACS = bytes.fromhex("020000000004020000000003")
FRAME = bytes(Ether(MACS + b"\x08\0")) + INNER
TAGGED = MACS + bytes.fromhex("810000050800") + INNER
SNAP = bytes.fromhex("aaaa030000000800") + INNER
BRIDGED = bytes.fromhex("aaaa030080c20007")
PPP = b"\xff\x03\x00\x21" + INNER
CISCO = b"\x0f\0\x08\0" + INNER
FCS = zlib.crc32(FRAME).to_bytes(4, "little")
PREAMBLE = b"\x55" * 7

TO_STATION = b"\x08\x02" + bytes(22)  # a data frame from an access point
WLAN = TO_STATION + SNAP
QOS = b"\x88\x02" + bytes(24)
FOUR_ADDRESSES = b"\x88\x03" + bytes(30)


def attributes(order: str) -> bytes:
    """NFLOG's record with two attributes, the second the packet."""
    head = struct.pack(f"{order}HH", 7, 10) + b"abc\0"  # a prefix, padded
    return b"\2\0\0\0" + head + struct.pack(f"{order}HH", 4 + len(INNER), 9) + INNER


def cooked(protocol: int, hardware: int, content: bytes) -> bytes:
    return struct.pack(">HHH8xH", 0, hardware, 6, protocol) + content


def cooked_v2(protocol: int, hardware: int, content: bytes) -> bytes:
    return struct.pack(">HHIHBB8x", protocol, 0, 3, hardware, 0, 6) + content


def ppi(link: int, content: bytes, fields: bytes = b"") -> bytes:
    return struct.pack("<BBHI", 0, 0, 8 + len(fields), link) + fields + content


def pktap(link: int, content: bytes) -> bytes:
    return struct.pack("<III", 108, 1, link) + bytes(96) + content


def erf(kind: int, content: bytes, extensions: bytes = b"") -> bytes:
    head = struct.pack(">8xBBHHH", kind, 4, 16 + len(content), 0, len(content))
    return head + extensions + content


def radiotap(present: int, fields: bytes = b"") -> bytes:
    return struct.pack("<BBHI", 0, 0, 8 + len(fields), present) + fields


def juniper(flags: int, content: bytes, extensions: bytes = b"") -> bytes:
    length = struct.pack(">H", len(extensions)) if flags & 0x80 else b""
    return b"MGC" + bytes([flags]) + length + extensions + content


PRISM = struct.pack("<II16s", 0x44, 144, b"wlan0") + bytes(120)
AVS = struct.pack(">II", 0x80211001, 64) + bytes(56)

LINKS: dict[str, tuple[int, bytes]] = {
    "SLL, Ethernet": (113, cooked(3, 1, FRAME)),
    "SLL, tagged Ethernet": (113, cooked(3, 1, TAGGED)),
    "SLL, bridged over GRE": (113, cooked(0x6558, 778, FRAME)),
    "SLL, 802.2": (113, cooked(4, 1, SNAP)),
    "SLL, 802.2 with IP's SAP": (113, cooked(4, 1, b"\x06\x06\x03" + INNER)),
    "SLL, PPP": (113, cooked(7, 512, PPP)),
    "SLL, PPP of a ppp interface": (113, cooked(0x0800, 512, INNER)),
    "SLL, PPP without framing": (113, cooked(8, 512, b"\0\x21" + INNER)),
    "SLL, PPP under 802.2": (113, cooked(4, 512, PPP)),
    "SLL, PPP under PPP's own number": (113, cooked(0x21, 512, INNER)),
    "SLL, PPP under its EtherType": (113, cooked(0x880B, 512, b"\0\x21" + INNER)),
    "SLL, VLAN": (113, cooked(0x8100, 1, b"\0\5\x08\0" + INNER)),
    "SLL, tun": (113, cooked(0x0800, 65534, INNER)),
    "SLL, tun without a protocol": (113, cooked(0, 65534, INNER)),
    "SLL, modem": (113, cooked(0x00F5, 519, INNER)),
    "SLL, 6in4 interface": (113, cooked(0x0800, 776, INNER)),
    "SLL, GRE interface": (113, cooked(0x0800, 778, INNER)),
    "SLL, 802.11": (113, cooked(4, 801, WLAN)),
    "SLL, Prism": (113, cooked(4, 802, PRISM + WLAN)),
    "SLL, radiotap": (113, cooked(4, 803, radiotap(0) + WLAN)),
    "SLL, Frame Relay": (113, cooked(0x0800, 770, b"\x18\x41\x03\xcc" + INNER)),
    "SLL, Ethernet under 802.3": (113, cooked(1, 1, FRAME)),
    "SLL2, Ethernet": (276, cooked_v2(3, 1, FRAME)),
    "SLL2, PPP": (276, cooked_v2(7, 512, PPP)),
    "SLL2, 802.2": (276, cooked_v2(4, 1, SNAP)),
    "SLL2, tun": (276, cooked_v2(0, 65534, INNER)),
    "SLL2, radiotap": (276, cooked_v2(4, 803, radiotap(0) + WLAN)),
    "PPP": (9, b"\0\x21" + INNER),
    "PPP, Cisco's framing": (9, CISCO),
    "PPP in HDLC": (50, PPP),
    "PPP in HDLC, Cisco's framing": (50, CISCO),
    "HDLC": (112, CISCO),
    "HDLC, PPP": (112, PPP),
    "PPP of pppd": (166, b"\0\x03\0\x21" + INNER),
    "PPP of pppd, whole framing": (166, b"\1" + PPP),
    "PPP with direction": (204, b"\0" + PPP),
    "PPP with direction, no framing": (204, b"\1\0\x21" + INNER),
    "Cisco HDLC": (104, CISCO),
    "Cisco HDLC, multicast": (104, b"\x8f\0\x08\0" + INNER),
    "Cisco HDLC with direction": (205, b"\1" + CISCO),
    "Frame Relay": (107, b"\x18\x41\x03\xcc" + INNER),
    "Frame Relay, four bytes": (107, b"\x18\x40\0\x41\x03\xcc" + INNER),
    "Frame Relay, padded SNAP": (107, b"\x18\x41\x03\0\x80" + SNAP[3:]),
    "Frame Relay, bridged": (107, b"\x18\x41\x03\0\x80\0\x80\xc2\0\7" + FRAME),
    "Frame Relay, PPP": (107, b"\x18\x41\x03\xcf\0\x21" + INNER),
    "Frame Relay, Cisco": (107, b"\x18\x41\x08\0" + INNER),
    "Frame Relay with direction": (206, b"\0\x18\x41\x03\xcc" + INNER),
    "ATM, SNAP": (100, SNAP),
    "ATM, NLPID": (100, b"\xfe\xfe\x03\xcc" + INNER),
    "ATM, bridged": (100, BRIDGED + bytes(2) + FRAME),
    "ATM, PPP": (100, b"\xfe\xfe\x03\xcf\0\x21" + INNER),
    "ATM, IP alone": (100, INNER),
    "ATM, PPP alone": (100, b"\0\x21" + INNER),
    "ATM, bridged alone": (100, bytes(2) + FRAME),
    "ATM, classical IP": (106, INNER),
    "SunATM, 802.2": (123, b"\x02\0\0\x64" + SNAP),
    "SunATM, LANE": (123, b"\x81\0\0\x64\0\1" + FRAME),
    "SunATM, IP alone": (123, b"\0\0\0\x64" + INNER),
    "LANE": (110, b"\0\1" + FRAME),
    "Token Ring": (6, b"\x10\x40" + MACS + SNAP),
    "Token Ring, routed": (
        6,
        b"\x10\x40" + MACS[:6] + b"\x82" + MACS[7:] + b"\x06\x30\0\1\0\2" + SNAP,
    ),
    "FDDI": (10, b"\x50" + MACS + SNAP),
    "Fibre Channel": (122, bytes(16) + SNAP),
    "FireWire": (138, bytes(16) + b"\x08\0" + INNER),
    "ARCNET, Linux": (129, b"\1\2\0\0\xd4\0\0\1" + INNER),
    "ARCNET, Linux, old": (129, b"\1\2\0\0\xf0" + INNER),
    "ARCNET": (7, b"\1\2\xd4\0\0\1" + INNER),
    "enc": (109, b"\2" + bytes(11) + INNER),
    "enc, the other byte order": (109, bytes(3) + b"\2" + bytes(8) + INNER),
    "pflog, OpenBSD 3.4": (117, b"\x2d\2" + bytes(46) + INNER),
    "pflog": (117, b"\x3d\2" + bytes(62) + INNER),
    "pflog, FreeBSD": (117, b"\x45\2" + bytes(70) + INNER),
    "pflog, OpenBSD 4.9": (117, b"\x64\2" + bytes(98) + INNER),
    "pflog, before 3.4": (17, struct.pack(">I24x", 2) + INNER),
    "ipnet": (226, b"\1\2\0\0" + struct.pack(">I16x", len(INNER)) + INNER),
    "NFLOG": (239, attributes("<")),
    "NFLOG, big-endian": (239, attributes(">")),
    "PPI, Ethernet": (192, ppi(1, FRAME)),
    "PPI, raw IP": (192, ppi(101, INNER)),
    "PPI, 802.11": (192, ppi(105, WLAN, struct.pack("<HH20x", 2, 20))),
    "pktap, Ethernet": (258, pktap(1, FRAME)),
    "pktap, raw IP": (258, pktap(12, INNER)),
    "pktap, loopback": (258, pktap(0, b"\2\0\0\0" + INNER)),
    "ERF, Ethernet": (197, erf(2, bytes(2) + FRAME)),
    "ERF, extended": (197, erf(0x82, bytes(2) + FRAME, b"\x85" + bytes(7) + b"\5" + bytes(7))),
    "ERF, Cisco HDLC": (197, erf(1, CISCO)),
    "ERF, PPP": (197, erf(1, PPP)),
    "ERF, IPv4": (197, erf(22, INNER)),
    "ERF, AAL5": (197, erf(4, bytes(4) + SNAP)),
    "802.11": (105, WLAN),
    "802.11, QoS": (105, QOS + SNAP),
    "802.11, four addresses": (105, FOUR_ADDRESSES + SNAP),
    "802.11, HT control": (105, b"\x88\x82" + bytes(28) + SNAP),
    "802.11, aggregated": (
        105,
        QOS[:24] + b"\x80\0" + bytes(12) + struct.pack(">H", len(SNAP)) + SNAP,
    ),
    "802.11, decrypted": (105, b"\x08\x42" + bytes(22) + SNAP),
    "radiotap": (127, radiotap(0) + WLAN),
    "radiotap, padded header": (127, radiotap(2, b"\x20") + QOS + bytes(2) + SNAP),
    "radiotap, time and padding": (
        127,
        radiotap(3, bytes(8) + b"\x20") + QOS + bytes(2) + SNAP,
    ),
    "radiotap, two words": (127, radiotap(0x8000_0002, bytes(4) + b"\0") + QOS + SNAP),
    "Prism": (119, PRISM + WLAN),
    "Prism, AVS": (119, AVS + WLAN),
    "AVS": (163, AVS + WLAN),
    "mPacket": (274, PREAMBLE + b"\xd5" + FRAME + FCS),
    "mPacket, short preamble": (274, PREAMBLE[:3] + b"\xd5" + FRAME + FCS),
    "mPacket, preemptable": (274, PREAMBLE + b"\xe6" + FRAME + FCS),
    "EPON": (259, bytes.fromhex("5555d5555500 01 00") + FRAME),
    "DOCSIS": (143, b"\0\0" + struct.pack(">H", len(FRAME)) + bytes(2) + FRAME),
    "DOCSIS, extended": (143, b"\1\4" + struct.pack(">H", len(FRAME)) + bytes(6) + FRAME),
    "InfiniBand": (242, bytes(40) + b"\x08\0\0\0" + INNER),
    "netANALYZER": (240, bytes(4) + FRAME + bytes(4)),
    "netANALYZER, transparent": (241, bytes(4) + PREAMBLE + b"\xd5" + FRAME + FCS),
    "Broadcom tag": (281, MACS + b"\x20\0\0\1\x08\0" + INNER),
    "Broadcom tag in front": (282, b"\x20\0\0\1" + FRAME),
    "DSA tag": (284, MACS + b"\xc0\0\0\1\x08\0" + INNER),
    "EDSA tag": (285, MACS + b"\xda\xda\0\0\xc0\0\0\1\x08\0" + INNER),
    "SLIP": (8, bytes(16) + INNER),
    "TZSP": (128, b"\1\0\0\1\x0a\1\x32\1" + FRAME),
    "Symantec": (99, bytes(6) + b"\x08\0" + bytes(36) + INNER),
    "Juniper Ethernet": (178, juniper(1, FRAME)),
    "Juniper Ethernet, extended": (178, juniper(0x81, FRAME, b"\1\4abcd")),
    "Juniper Ethernet, stripped": (178, juniper(2, struct.pack("<I", 2) + INNER)),
    "Juniper PPPoE": (167, juniper(1, FRAME)),
    "Juniper PPP": (179, juniper(1, PPP)),
    "Juniper Frame Relay": (180, juniper(1, b"\x18\x41\x03\xcc" + INNER)),
    "Juniper Cisco HDLC": (181, juniper(1, CISCO)),
    "Juniper GGSN": (133, juniper(1, b"\2\0\0\0" + INNER)),
    "Juniper ATM 1": (137, juniper(1, bytes(4) + SNAP)),
    "Juniper ATM 2": (135, juniper(1, bytes(8) + SNAP)),
    "Juniper ATM 2, IP alone": (135, juniper(1, bytes(8) + INNER)),
    "Juniper services": (136, juniper(1, bytes(16) + INNER)),
    "Juniper services, outgoing": (136, juniper(0, bytes(12) + INNER)),
    "Juniper voice": (183, juniper(1, bytes(18) + INNER)),
}
"""Link type and frame, by a name."""

NOT_READ_BY_TSHARK = {
    *("SLL, PPP without framing", "SLL, tun without a protocol", "SLL, modem", "SLL, 802.11"),
    *("SLL, PPP under 802.2", "SLL, PPP under PPP's own number", "SLL, PPP under its EtherType"),
    *("SLL, Prism", "SLL, Frame Relay", "SLL, Ethernet under 802.3", "SLL2, tun"),
    *("HDLC, PPP", "PPP of pppd", "PPP of pppd, whole framing"),
    *("Cisco HDLC with direction", "Frame Relay with direction"),
    *("ATM, IP alone", "ATM, PPP alone", "ATM, bridged alone", "LANE"),
    *("pflog, before 3.4", "NFLOG, big-endian", "802.11, decrypted"),
    *("DOCSIS", "DOCSIS, extended", "netANALYZER", "netANALYZER, transparent"),
    *("Broadcom tag", "Broadcom tag in front", "DSA tag", "EDSA tag", "SLIP"),
}
"""What tshark 4.0 refuses, leaves to a preference, or reads only with more fields than are here."""

REFUSED: dict[str, tuple[int, bytes]] = {
    "SLL, netlink": (113, cooked(4, 824, SNAP)),
    "SLL, CAN": (113, cooked(12, 280, bytes(16))),
    "SLL, IPX": (113, cooked(1, 1, b"\xff\xff" + bytes(40))),
    "SLL2, netlink": (276, cooked_v2(0, 824, INNER)),
    "PPP, LCP": (50, b"\xff\x03\xc0\x21" + bytes(20)),
    "Cisco HDLC, keep-alive": (104, b"\x8f\0\x80\x35" + bytes(14)),
    "Frame Relay, LMI": (107, b"\0\1\x03\x08" + bytes(10)),
    "Frame Relay, endless address": (107, bytes(40)),
    "ATM, OAM": (100, b"\x42\x42\x03" + bytes(40)),
    "LANE, control": (110, b"\xff\0" + FRAME),
    "SunATM, signalling": (123, b"\x06\0\0\5" + bytes(40)),
    "Token Ring, MAC": (6, b"\x10\0" + MACS + bytes(20)),
    "FDDI, SMT": (10, b"\x41" + MACS + SNAP),
    "ARCNET, a later fragment": (129, b"\1\2\0\0\xd4\2\0\1" + INNER),
    "enc of another family": (109, b"\7" + bytes(11) + INNER),
    "pflog of another family": (117, b"\x3d\7" + bytes(62) + INNER),
    "pflog too short": (117, b"\x10\2" + bytes(62) + INNER),
    "NFLOG without a packet": (239, b"\2\0\0\0" + struct.pack("<HH", 8, 1) + bytes(4)),
    "NFLOG with empty attributes": (239, b"\2\0\0\0" + bytes(40)),
    "PPI in PPI": (192, ppi(192, ppi(1, FRAME))),
    "pktap in PPI": (192, ppi(258, pktap(1, FRAME))),
    "SLL in pktap": (258, pktap(113, cooked(0x0800, 1, INNER))),
    "pktap of no packet": (258, struct.pack("<III", 108, 2, 1) + bytes(96) + FRAME),
    "ERF, metadata": (197, erf(27, bytes(60))),
    "ERF, endless extensions": (197, erf(0x82, FRAME, b"\x85" * 8 * 20)),
    "802.11, beacon": (105, b"\x80\0" + bytes(60)),
    "802.11, acknowledgement": (105, b"\xd4\0" + bytes(8)),
    "802.11, null": (105, b"\x48\1" + bytes(22)),
    "802.11, encrypted": (105, b"\x08\x42" + bytes(22) + b"\x01\x02\0\x20" + bytes(60)),
    "802.11, a later fragment": (105, b"\x08\x02" + bytes(20) + b"\1\0" + SNAP),
    "radiotap, endless presence": (127, struct.pack("<BBHI", 0, 0, 200, 2**31) + b"\xff" * 300),
    "mPacket, a later fragment": (274, PREAMBLE + b"\x61\xe6" + bytes(60)),
    "DOCSIS, MAC management": (143, b"\xc2\0" + struct.pack(">H", 40) + bytes(42)),
    "TZSP of something else": (128, b"\1\0\0\3\1" + bytes(60)),
    "Juniper without its mark": (178, b"MGD\1" + FRAME),
    "Juniper, ISO": (178, juniper(2, struct.pack("<I", 201) + bytes(40))),
}
"""What carries no IP, or hides it; each is refused as not IP."""
