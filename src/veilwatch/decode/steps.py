"""What comes next in a packet: the one word that the layers pass to the driver.

Every layer answers with a tuple `(step, offset, end, wire)`:

- `step` names what lies at `offset`; a value below `FIRST_STEP` is a `Status` and ends the walk,
- `end` is where the captured bytes of that layer end: nothing at or beyond it is ever read,
- `wire` is where the layer ends by the lengths its outer headers state; beyond `end` if the
  capture was cut, or if an outer datagram was fragmented.

To add a tunnel: write its file with one function of the layers' signature, give it a step here,
say below which EtherType, IP protocol or UDP port leads to it, and add its branch to the driver.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from veilwatch.decode.byteorder import Buffer, i64
from veilwatch.jit import inline_kernel
from veilwatch.schema.packets import Status

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
TEREDO: Final = 121
GTP_CHARGING: Final = 122  # GTP version 0 and GTP'

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
}
"""UDP ports at which a tunnel may be found, and what it is."""


@inline_kernel
def step_of_link(link: int) -> int:
    """Return what a frame of an interface begins with, by its LINKTYPE_ value.

    The values are registered at https://www.tcpdump.org/linktypes.html; 12 and 14 are raw IP in
    files of BSD systems.
    """
    if link == 1:
        return ETHERNET
    if link == 101 or link == 12 or link == 14:
        return RAW_IP
    if link == 113:
        return COOKED
    if link == 276:
        return COOKED_V2
    if link == 0 or link == 108:  # NULL in the byte order of its host, LOOP in network order
        return LOOPBACK
    if link == 9 or link == 50:
        return PPP
    if link == 51:
        return PPPOE
    if link == 228:
        return IPV4
    if link == 229:
        return IPV6
    return UNSUPPORTED_LINK


@inline_kernel
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
    return NOT_IP


@inline_kernel
def is_vlan(ethertype: int) -> bool:
    """Whether a VLAN tag follows: 802.1Q, 802.1ad or the older 0x9100."""
    return ethertype == 0x8100 or ethertype == 0x88A8 or ethertype == 0x9100


@inline_kernel
def leads_on(ethertype: int) -> bool:
    """Whether an EtherType makes a frame likely: what follows can be read, or is ARP."""
    return step_of_ethertype(ethertype) != NOT_IP or is_vlan(ethertype) or ethertype == 0x0806


@inline_kernel
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
    return OTHER_TRANSPORT


@inline_kernel
def step_of_ports(tunnels: Buffer, src_port: int, dst_port: int) -> int:
    """Return what may lie in a UDP datagram between two ports; OK: nothing that we unwrap.

    `tunnels` holds a step for each port, 0 for most (shape (65536,)). Answers of GTP and Teredo
    come from their port; VXLAN and GENEVE only go to theirs, from one that spreads their flows.
    """
    step = i64(tunnels[dst_port])
    if step == 0:
        step = i64(tunnels[src_port])
        if step != GTP_U and step != TEREDO and step != GTP_CHARGING:
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
