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

from typing import Final

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

PORT_GTP_U: Final = 2152  # 3GPP TS 29.281, 4.4.2


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
    return NOT_IP


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
    return OTHER_TRANSPORT


@inline_kernel
def step_of_ports(src_port: int, dst_port: int) -> int:
    """Return what may lie in a UDP datagram between two ports; OK: nothing that we unwrap.

    Requests and G-PDUs go to port 2152, answers come from it.
    """
    if dst_port == PORT_GTP_U or src_port == PORT_GTP_U:
        return GTP_U
    return OK
