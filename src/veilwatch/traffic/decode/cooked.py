"""Linux cooked frames (LINKTYPE_LINUX_SLL, _SLL2): what an interface gave, without its header.

Mostly the protocol field is an EtherType. Where it is one of Linux' own numbers, the hardware type
(linux/if_arp.h) says what the payload is.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from veilwatch.jit import inner_kernel
from veilwatch.traffic.decode.byteorder import Buffer, u16
from veilwatch.traffic.decode.counters import NETLINK as NETLINK_COUNT
from veilwatch.traffic.decode.link import MIN_ETHERTYPE, announced, llc
from veilwatch.traffic.decode.steps import (
    ETHERNET,
    FIRST_STEP,
    FRAME_RELAY,
    HDLC,
    NOT_IP,
    OK,
    PRISM,
    RADIOTAP,
    TRUNCATED_LINK,
    WLAN,
    Walk,
)
from veilwatch.traffic.decode.tunnel import inner_frame, inner_ip, inner_ppp

# linux/if_ether.h: numbers below the EtherTypes
ETH_P_802_3: Final = 0x0001
ETH_P_ALL: Final = 0x0003
ETH_P_802_2: Final = 0x0004
ETH_P_WAN_PPP: Final = 0x0007
ETH_P_PPP_MP: Final = 0x0008

# linux/if_arp.h
ARPHRD_PPP: Final = 512
ARPHRD_RAWIP: Final = 519  # modems
ARPHRD_TUNNEL: Final = 768  # IP in IPv4
ARPHRD_TUNNEL6: Final = 769
ARPHRD_FRAD: Final = 770
ARPHRD_SIT: Final = 776
ARPHRD_IPGRE: Final = 778
ARPHRD_IEEE80211: Final = 801
ARPHRD_IEEE80211_PRISM: Final = 802
ARPHRD_IEEE80211_RADIOTAP: Final = 803
ARPHRD_IP6GRE: Final = 823
ARPHRD_NETLINK: Final = 824
ARPHRD_NONE: Final = 0xFFFE  # tun, WireGuard, gtp
ARPHRD_VOID: Final = 0xFFFF

PACKET_HARDWARE: Final = (
    *(ARPHRD_PPP, ARPHRD_RAWIP, ARPHRD_TUNNEL, ARPHRD_TUNNEL6, ARPHRD_SIT),
    *(ARPHRD_IPGRE, ARPHRD_IP6GRE, ARPHRD_NONE, ARPHRD_VOID),
)
"""Hardware types whose frames are IP packets as they are, or PPP."""


@inner_kernel
def cooked(
    buffer: Buffer,
    protocol_at: int,
    hardware_at: int,
    payload: int,
    end: int,
    wire: int,
    p: Any,
    counters: npt.NDArray[np.int64],
) -> Walk:
    """Read a cooked header by the places of its protocol and its hardware type."""
    if payload > end:
        return TRUNCATED_LINK, payload, end, wire
    protocol = u16(buffer, protocol_at)
    hardware = u16(buffer, hardware_at)
    step = NOT_IP
    if hardware == ARPHRD_NETLINK:  # the protocol is then a netlink family
        counters[NETLINK_COUNT] += 1
    elif hardware == ARPHRD_IEEE80211_RADIOTAP:
        step = RADIOTAP
    elif hardware == ARPHRD_IEEE80211:
        step = WLAN
    elif hardware == ARPHRD_IEEE80211_PRISM:
        step = PRISM
    elif hardware == ARPHRD_FRAD:
        step = FRAME_RELAY
    elif protocol >= MIN_ETHERTYPE:
        return announced(buffer, protocol, payload, end, wire, p)
    elif protocol == ETH_P_WAN_PPP:
        step = HDLC
    elif protocol in (ETH_P_ALL, ETH_P_802_3, ETH_P_PPP_MP) or hardware in PACKET_HARDWARE:
        step = ETHERNET if protocol == ETH_P_ALL else NOT_IP
        return frame_or_packet(buffer, step, payload, end, wire)
    elif protocol == ETH_P_802_2:
        return llc(buffer, payload, end, wire)
    return step, payload, end, wire


@inner_kernel
def frame_or_packet(buffer: Buffer, otherwise: int, offset: int, end: int, wire: int) -> Walk:
    """Tell by the look what a payload is: an IP packet, a frame, PPP, or else `otherwise`."""
    if inner_frame(buffer, offset, end, wire):
        return ETHERNET, offset, end, wire
    if offset < end:
        step = inner_ip(buffer, offset, end, wire)
        if step != OK:
            return step, offset, end, wire
        step, at, _, _ = inner_ppp(buffer, offset, end, wire)
        if step >= FIRST_STEP:
            return step, at, end, wire
    return otherwise, offset, end, wire
