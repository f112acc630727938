"""What the decoder counts beside the statuses. One int64 slot for each name."""

from __future__ import annotations

from typing import Final

from veilwatch.schema.packets import Status

STATUS_SLOTS: Final = len(Status)
"""Slots 0 … STATUS_SLOTS - 1 count packets by `Status`."""

VLAN_TAGGED: Final = STATUS_SLOTS
FIRST_FRAGMENT: Final = STATUS_SLOTS + 1
GTP_G_PDU: Final = STATUS_SLOTS + 2
GTP_ECHO_REQUEST: Final = STATUS_SLOTS + 3
GTP_ECHO_RESPONSE: Final = STATUS_SLOTS + 4
GTP_ERROR_INDICATION: Final = STATUS_SLOTS + 5
GTP_END_MARKER: Final = STATUS_SLOTS + 6
GTP_OTHER: Final = STATUS_SLOTS + 7
GTP_NOT_IP: Final = STATUS_SLOTS + 8
GTP_FALSE: Final = STATUS_SLOTS + 9
GTP_V0: Final = STATUS_SLOTS + 10
GTP_PRIME: Final = STATUS_SLOTS + 11
MPLS: Final = STATUS_SLOTS + 12
PPPOE: Final = STATUS_SLOTS + 13
GRE: Final = STATUS_SLOTS + 14
ERSPAN: Final = STATUS_SLOTS + 15
IP_IN_IP: Final = STATUS_SLOTS + 16
VXLAN: Final = STATUS_SLOTS + 17
GENEVE: Final = STATUS_SLOTS + 18
TEREDO: Final = STATUS_SLOTS + 19
TUNNEL_FALSE: Final = STATUS_SLOTS + 20
TUNNEL_CONTROL: Final = STATUS_SLOTS + 21
TUNNEL_NOT_IP: Final = STATUS_SLOTS + 22
GTP_ETHERNET: Final = STATUS_SLOTS + 23
GTP_PPP: Final = STATUS_SLOTS + 24
L2TP: Final = STATUS_SLOTS + 25
TZSP: Final = STATUS_SLOTS + 26
CAPWAP: Final = STATUS_SLOTS + 27
CAPWAP_FRAGMENT: Final = STATUS_SLOTS + 28
ETHERIP: Final = STATUS_SLOTS + 29
EOIP: Final = STATUS_SLOTS + 30
GUE: Final = STATUS_SLOTS + 31
LISP: Final = STATUS_SLOTS + 32
AYIYA: Final = STATUS_SLOTS + 33
NSH: Final = STATUS_SLOTS + 34
FABRIC: Final = STATUS_SLOTS + 35
MACSEC: Final = STATUS_SLOTS + 36
NETLINK: Final = STATUS_SLOTS + 37

INFORMATIVE: Final = (
    "vlan_tagged",  # packets with a VLAN identifier (`vlan` not 0)
    "first_fragments",  # packets whose innermost IP packet is a first fragment
    "gtp_g_pdu",  # GTP-U messages by type; GTP-U inside GTP-U counts each
    "gtp_echo_request",
    "gtp_echo_response",
    "gtp_error_indication",
    "gtp_end_marker",
    "gtp_other",
    "gtp_not_ip",  # G-PDUs that carry no IP packet: left as ordinary UDP
    "gtp_false",  # other datagrams on GTP-U's port that are not GTP-U: left as ordinary UDP
    "gtp_v0",  # messages of GTP version 0: left as ordinary UDP
    "gtp_prime",  # messages of GTP', which carries charging records: left as ordinary UDP
    "mpls",  # label stacks, PPPoE, GRE … headers that were unwrapped; nested ones count each
    "pppoe",
    "gre",
    "erspan",  # mirror sessions, each within a GRE header
    "ip_in_ip",  # IPv4 or IPv6 right inside IPv4 or IPv6
    "vxlan",
    "geneve",
    "teredo",
    "tunnel_false",  # datagrams on the port of such a tunnel that are none: left as ordinary UDP
    "tunnel_control",  # control messages and keep-alives of L2TP, TZSP, CAPWAP and GUE: left as UDP
    "tunnel_not_ip",  # messages of L2TP that carry no IP that can be read: left to their end points
    "gtp_ethernet",  # of `gtp_g_pdu`: those that carry an Ethernet frame
    "gtp_ppp",  # of `gtp_g_pdu`: those that carry a PPP frame
    "l2tp",
    "tzsp",
    "capwap",
    "capwap_fragment",  # fragments of CAPWAP after the first, which carry no header
    "etherip",
    "eoip",  # MikroTik's Ethernet over IP, each within a GRE header
    "gue",
    "lisp",
    "ayiya",
    "nsh",
    "fabric",  # 802.1ah, FabricPath, TRILL
    "macsec",  # encrypted frames of MACsec: refused as not IP
    "netlink",  # messages of Linux' netlink in cooked captures: refused as not IP
)
"""Names of the slots after the statuses, in order."""

SLOTS: Final = STATUS_SLOTS + len(INFORMATIVE)
