"""What a network interface says of itself, asked without any privilege."""

from __future__ import annotations

import fcntl
import socket
import struct
from typing import Final

IFNAMSIZ: Final = 16
IFF_UP: Final = 0x1

_SIOCGIFFLAGS: Final = 0x8913
_SIOCGIFMTU: Final = 0x8921
_SIOCGIFHWADDR: Final = 0x8927
_IFREQ_BYTES: Final = 40


def interface_index(name: str) -> int | None:
    """Return the index of an interface, None if there is none of that name."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return None


def is_up(name: str) -> bool:
    """Whether an interface is there and switched on."""
    try:
        return bool(_ask(_SIOCGIFFLAGS, name, "@H") & IFF_UP)
    except OSError:
        return False


def mtu(name: str) -> int:
    """Return the largest payload of a frame, bytes."""
    return _ask(_SIOCGIFMTU, name, "@i")


def hardware_type(name: str) -> int:
    """Return the hardware type (linux/if_arp.h)."""
    return _ask(_SIOCGIFHWADDR, name, "@H")


def _ask(request: int, name: str, form: str) -> int:
    """Read one number of struct ifreq; OSError if the interface is gone."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        answer = fcntl.ioctl(asker, request, name.encode().ljust(_IFREQ_BYTES, b"\0"))
    return int(struct.unpack_from(form, answer, IFNAMSIZ)[0])
