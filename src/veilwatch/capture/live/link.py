"""Which link type an interface has: hardware types (linux/if_arp.h) as LINKTYPE_ values."""

from __future__ import annotations

from typing import Any, Final

from veilwatch.jit import inline_kernel

ETHERNET: Final = 1
RAW_IP: Final = 101
UNKNOWN: Final = 0xFFFF
"""Stands for hardware whose frames nobody taught us; no link type has this value."""

_ETHER: Final = 1
_RAWIP: Final = 519  # raw IP of modems
_TUNNEL: Final = 768  # IP in IPv4
_TUNNEL6: Final = 769
_LOOPBACK: Final = 772  # frames with an Ethernet header of zeros
_SIT: Final = 776  # IPv6 in IPv4
_NONE: Final = 0xFFFE  # tun, WireGuard, gtp


@inline_kernel
def link_type(hardware: Any) -> Any:
    """Return the LINKTYPE_ value of a hardware type."""
    if hardware in (_ETHER, _LOOPBACK):
        return ETHERNET
    if hardware in (_NONE, _RAWIP, _TUNNEL, _TUNNEL6, _SIT):
        return RAW_IP
    return UNKNOWN
