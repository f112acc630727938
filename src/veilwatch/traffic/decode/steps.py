"""What comes next in a packet: the one word that the layers pass to the driver.

Every layer answers with a tuple `(step, offset, end, wire)`:

- `step` names what lies at `offset`; a value below `FIRST_STEP` is a `Status` and ends the walk,
- `end` is where the captured bytes of that layer end: nothing at or beyond it is ever read,
- `wire` is where the layer ends by the lengths its outer headers state; beyond `end` if the
  capture was cut, or if an outer datagram was fragmented.

To add a tunnel: write its file with one function of the layers' signature, give it a step here,
say below which link type, EtherType, IP protocol or UDP port leads to it, and add its branch to
`dispatch`, or to the driver if most packets of some network meet it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from veilwatch.jit import inner_kernel
from veilwatch.schema.packets import Status
from veilwatch.traffic.decode.byteorder import Buffer, i64

Walk = tuple[int, int, int, int]
"""(step, offset, end, wire)."""

# Numba freezes module integers into the kernels, but not members of an IntEnum mixed with them.
OK: Final = int(Status.OK)
EMPTY: Final = int(Status.EMPTY)
UNSUPPORTED_LINK: Final = int(Status.UNSUPPORTED_LINK)
TRUNCATED_LINK: Final = int(Status.TRUNCATED_LINK)
NOT_IP: Final = int(Status.NOT_IP)
TRUNCATED_NETWORK: Final = int(Status.TRUNCATED_NETWORK)
BAD_NETWORK: Final = int(Status.BAD_NETWORK)
LATER_FRAGMENT: Final = int(Status.LATER_FRAGMENT)
TRUNCATED_TRANSPORT: Final = int(Status.TRUNCATED_TRANSPORT)
BAD_TRANSPORT: Final = int(Status.BAD_TRANSPORT)
TRUNCATED_TUNNEL: Final = int(Status.TRUNCATED_TUNNEL)
BAD_TUNNEL: Final = int(Status.BAD_TUNNEL)
TOO_DEEP: Final = int(Status.TOO_DEEP)
TUNNEL_PAYLOAD: Final = int(Status.TUNNEL_PAYLOAD)

FIRST_STEP: Final = 100
ETHERNET: Final = 100
COOKED: Final = 101  # Linux cooked capture
COOKED_V2: Final = 102
LOOPBACK: Final = 103  # BSD loopback's address family
RAW_IP: Final = 104  # IP of the version that its first byte says
IPV4: Final = 105
IPV6: Final = 106
TCP: Final = 107
UDP: Final = 108
ICMP: Final = 109  # ICMP and ICMPv6
SCTP: Final = 110
OTHER_TRANSPORT: Final = 111  # an IP protocol whose header nobody reads
GTP_U: Final = 112
MPLS: Final = 113
PPPOE: Final = 114
PPP: Final = 115
GRE: Final = 116
IPV4_IN_IP: Final = 117
IPV6_IN_IP: Final = 118
VXLAN: Final = 119
GENEVE: Final = 120

# From here on the driver asks `dispatch`, so that what is rare costs the common layers nothing.
FIRST_LINK: Final = 130  # link types that few captures have
HDLC: Final = 130  # PPP or Cisco's framing, as its first byte says
CISCO_HDLC: Final = 131
PPP_WITH_DIRECTION: Final = 132
PPP_PPPD: Final = 133
CISCO_HDLC_WITH_DIRECTION: Final = 134
FRAME_RELAY: Final = 135
FRAME_RELAY_WITH_DIRECTION: Final = 136
ATM: Final = 137  # RFC 1483, the content of AAL5
SUN_ATM: Final = 138
LANE: Final = 139  # Ethernet by ATM LAN emulation
TOKEN_RING: Final = 140
FDDI: Final = 141
FIBRE_CHANNEL: Final = 142
FIREWIRE: Final = 143
ARCNET: Final = 144
ARCNET_BSD: Final = 169
ENC: Final = 145
PFLOG: Final = 146
PFLOG_OLD: Final = 147
IPNET: Final = 148
NFLOG: Final = 149
PPI: Final = 150
PKTAP: Final = 151
ERF: Final = 152
WLAN: Final = 153  # IEEE 802.11
RADIOTAP: Final = 154
PRISM: Final = 155
AVS: Final = 156
MPACKET: Final = 157
DOCSIS: Final = 158
IPOIB: Final = 159
NETANALYZER: Final = 160
NETANALYZER_TRANSPARENT: Final = 161
EPON: Final = 162
SWITCH_TAG: Final = 163  # four bytes of a switch behind the MAC addresses
SWITCH_TAG_EDSA: Final = 164  # eight
SWITCH_TAG_IN_FRONT: Final = 165
SLIP: Final = 166
TZSP_FRAME: Final = 167
SYMANTEC: Final = 168
JUNIPER_ETHERNET: Final = 170
JUNIPER_PPP: Final = 171
JUNIPER_FRAME_RELAY: Final = 172
JUNIPER_CISCO_HDLC: Final = 173
JUNIPER_GGSN: Final = 174
JUNIPER_ATM_1: Final = 175
JUNIPER_ATM_2: Final = 176
JUNIPER_SERVICES: Final = 177
JUNIPER_VOICE: Final = 178

FIRST_LAYER: Final = 180  # layers that few networks have
PBB: Final = 180  # IEEE 802.1ah
FABRICPATH: Final = 181
TRILL: Final = 182
MACSEC: Final = 183
NSH: Final = 184
ETHERIP: Final = 185
L2TP_IN_IP: Final = 186
MPLS_IN_IP: Final = 187
ETHERNET_IN_IP: Final = 188
UDP_LITE: Final = 189
DCCP: Final = 190
TZSP: Final = 191
MPLS_IN_UDP: Final = 192
GRE_IN_UDP: Final = 193
GUE: Final = 194
LISP: Final = 195

FIRST_ANSWERED: Final = 200  # tunnels whose answers come from their port
TEREDO: Final = 200
GTP_CHARGING: Final = 201  # GTP version 0 and GTP'
L2TP: Final = 202
CAPWAP: Final = 203
AYIYA: Final = 204

BRIDGED_ETHERNET: Final = 0x6558
"""Number by which tunnels announce a whole Ethernet frame (RFC 1701, RFC 7637)."""

PORT_GTP_U: Final = 2152
"""3GPP TS 29.281, 4.4.2."""

TUNNEL_PORTS: Final = {
    PORT_GTP_U: GTP_U,
    3386: GTP_CHARGING,  # TS 32.295, 6.1.1
    3544: TEREDO,  # RFC 4380, 2.7
    4789: VXLAN,  # RFC 7348, 8
    4790: VXLAN,  # its generic protocol extension
    8472: VXLAN,  # what Linux used before a port was assigned, and still does by default
    6081: GENEVE,  # RFC 8926, 3.3
    1701: L2TP,  # RFC 2661, 8.1; RFC 3931, 4.1.2
    4341: LISP,  # RFC 9300, 5.2
    4754: GRE_IN_UDP,  # RFC 8086, 8
    5072: AYIYA,  # draft-massar-v6ops-ayiya
    5247: CAPWAP,  # RFC 5415, 3.1
    6080: GUE,  # draft-ietf-intarea-gue, 3.1
    6635: MPLS_IN_UDP,  # RFC 7510, 3
    37008: TZSP,
}
"""UDP ports at which a tunnel may be found, and what it is."""


LINK_STEPS: Final = {
    0: LOOPBACK,  # in the byte order of its host
    1: ETHERNET,
    6: TOKEN_RING,
    7: ARCNET_BSD,
    8: SLIP,
    9: HDLC,
    10: FDDI,
    12: RAW_IP,  # in files of BSD systems, as 14
    14: RAW_IP,
    17: PFLOG_OLD,
    50: HDLC,
    51: PPPOE,
    99: SYMANTEC,
    100: ATM,
    101: RAW_IP,
    102: SLIP,
    104: CISCO_HDLC,
    105: WLAN,
    106: ATM,
    107: FRAME_RELAY,
    108: LOOPBACK,  # in network order
    109: ENC,
    110: LANE,
    112: HDLC,
    113: COOKED,
    117: PFLOG,
    119: PRISM,
    122: FIBRE_CHANNEL,
    123: SUN_ATM,
    127: RADIOTAP,
    128: TZSP_FRAME,
    129: ARCNET,
    133: JUNIPER_GGSN,
    135: JUNIPER_ATM_2,
    136: JUNIPER_SERVICES,
    137: JUNIPER_ATM_1,
    138: FIREWIRE,
    143: DOCSIS,
    163: AVS,
    166: PPP_PPPD,
    167: JUNIPER_ETHERNET,  # that of PPPoE
    178: JUNIPER_ETHERNET,
    179: JUNIPER_PPP,
    180: JUNIPER_FRAME_RELAY,
    181: JUNIPER_CISCO_HDLC,
    183: JUNIPER_VOICE,
    192: PPI,
    197: ERF,
    204: PPP_WITH_DIRECTION,
    205: CISCO_HDLC_WITH_DIRECTION,
    206: FRAME_RELAY_WITH_DIRECTION,
    226: IPNET,
    228: IPV4,
    229: IPV6,
    239: NFLOG,
    240: NETANALYZER,
    241: NETANALYZER_TRANSPARENT,
    242: IPOIB,
    258: PKTAP,
    259: EPON,
    274: MPACKET,
    276: COOKED_V2,
    281: SWITCH_TAG,
    282: SWITCH_TAG_IN_FRONT,
    284: SWITCH_TAG,
    285: SWITCH_TAG_EDSA,
}
"""What a frame begins with, by the LINKTYPE_ value of its interface
(https://www.tcpdump.org/linktypes.html)."""

_LINK_TABLE: Final = np.full(max(LINK_STEPS) + 1, UNSUPPORTED_LINK, np.uint8)
_LINK_TABLE[list(LINK_STEPS)] = list(LINK_STEPS.values())


@inner_kernel
def step_of_link(link: int) -> int:
    """Return what a frame of an interface begins with, by its LINKTYPE_ value."""
    if link >= len(_LINK_TABLE):
        return UNSUPPORTED_LINK
    return i64(_LINK_TABLE[link])


@inner_kernel
def step_of_ethertype(ethertype: int) -> int:
    """Return what an EtherType leads to."""
    if ethertype == 0x0800:
        return IPV4
    if ethertype == 0x86DD:
        return IPV6
    if ethertype == 0x8847 or ethertype == 0x8848:
        return MPLS
    if ethertype == 0x8864:
        return PPPOE
    if ethertype == 0x880B:
        return PPP
    if ethertype == BRIDGED_ETHERNET:
        return ETHERNET
    if ethertype == 0x88E7:
        return PBB
    if ethertype == 0x894F:
        return NSH
    if ethertype == 0x88E5:
        return MACSEC
    if ethertype == 0x8903:
        return FABRICPATH
    if ethertype == 0x22F3:
        return TRILL
    return NOT_IP


@inner_kernel
def is_vlan(ethertype: int) -> bool:
    """Whether a VLAN tag follows: 802.1Q, 802.1ad or the older 0x9100."""
    return ethertype == 0x8100 or ethertype == 0x88A8 or ethertype == 0x9100


@inner_kernel
def leads_on(ethertype: int) -> bool:
    """Whether an EtherType makes a frame likely: what follows can be read, or is ARP."""
    return step_of_ethertype(ethertype) != NOT_IP or is_vlan(ethertype) or ethertype == 0x0806


@inner_kernel
def step_of_protocol(protocol: int) -> int:
    """Return what an IP protocol number leads to."""
    if protocol == 6:
        return TCP
    if protocol == 17:
        return UDP
    if protocol == 1 or protocol == 58:
        return ICMP
    if protocol == 132:
        return SCTP
    if protocol == 47:
        return GRE
    if protocol == 4:
        return IPV4_IN_IP
    if protocol == 41:
        return IPV6_IN_IP
    if protocol == 33:
        return DCCP
    if protocol == 136:
        return UDP_LITE
    if protocol == 97:
        return ETHERIP
    if protocol == 115:
        return L2TP_IN_IP
    if protocol == 137:
        return MPLS_IN_IP
    if protocol == 143:
        return ETHERNET_IN_IP
    return OTHER_TRANSPORT


@inner_kernel
def step_of_ports(tunnels: Buffer, src_port: int, dst_port: int) -> int:
    """Return what may lie in a UDP datagram between two ports; OK: nothing that we unwrap.

    `tunnels` holds a step for each port, 0 for most (shape (65536,)). Answers of GTP, L2TP and
    their like come from their port; VXLAN and GENEVE only go to theirs, from one that spreads their
    flows.
    """
    step = i64(tunnels[dst_port])
    if step == 0:
        step = i64(tunnels[src_port])
        if step != GTP_U and step < FIRST_ANSWERED:
            return OK
    return step


def port_table(gtp_ports: Sequence[int] = ()) -> Buffer:
    """Return the steps of all UDP ports, uint8 of shape (65536,), 0 where there is none.

    Parameters
    ----------
    gtp_ports
        Further ports at which GTP-U is looked for.
    """
    table = np.zeros(65536, np.uint8)
    for port, step in TUNNEL_PORTS.items():
        table[port] = step
    for port in gtp_ports:
        table[port] = GTP_U
    return table
