"""Which link type an interface has: hardware types (linux/if_arp.h) as LINKTYPE_ values."""

from __future__ import annotations

from typing import Any, Final

from veilwatch.jit import inline_kernel

ETHERNET: Final = 1
RAW_IP: Final = 101
UNKNOWN: Final = 0xFFFF
"""Stands for hardware whose frames nobody taught us; no link type has this value."""

TOKEN_RING: Final = 6
FDDI: Final = 10
CISCO_HDLC: Final = 104
WLAN: Final = 105
FRAME_RELAY: Final = 107
PRISM: Final = 119
RADIOTAP: Final = 127

_ETHER: Final = 1
_IEEE802: Final = 6
_PPP: Final = 512  # the driver has taken PPP's header off
_HDLC: Final = 513
_RAWIP: Final = 519  # raw IP of modems
_TUNNEL: Final = 768  # IP in IPv4
_TUNNEL6: Final = 769
_FRAD: Final = 770
_LOOPBACK: Final = 772  # frames with an Ethernet header of zeros
_FDDI: Final = 774
_SIT: Final = 776  # IPv6 in IPv4
_IEEE802_TR: Final = 800
_IEEE80211: Final = 801
_IEEE80211_PRISM: Final = 802
_IEEE80211_RADIOTAP: Final = 803
_NONE: Final = 0xFFFE  # tun, WireGuard, gtp


@inline_kernel
def link_type(hardware: Any) -> Any:
    """Return the LINKTYPE_ value of a hardware type."""
    if hardware in (_ETHER, _LOOPBACK):
        return ETHERNET
    if hardware in (_NONE, _PPP, _RAWIP, _TUNNEL, _TUNNEL6, _SIT):
        return RAW_IP
    if hardware == _HDLC:
        return CISCO_HDLC
    if hardware == _FRAD:
        return FRAME_RELAY
    if hardware == _FDDI:
        return FDDI
    if hardware in (_IEEE802, _IEEE802_TR):
        return TOKEN_RING
    if hardware == _IEEE80211:
        return WLAN
    if hardware == _IEEE80211_PRISM:
        return PRISM
    if hardware == _IEEE80211_RADIOTAP:
        return RADIOTAP
    return UNKNOWN
