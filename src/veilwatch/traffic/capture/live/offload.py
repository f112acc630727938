"""Whether an interface joins packets before we see them (linux/ethtool.h).

Receive offloads make one long packet of several: packet counts, sizes and gaps are then those of
the offload and not those of the wire.
"""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct
from typing import Final

from veilwatch.traffic.capture.live.interface import IFNAMSIZ

JOINING: Final = {
    "rx-gro": "gro",
    "rx-gro-hw": "rx-gro-hw",
    "rx-lro": "lro",
    "rx-gro-list": "rx-gro-list",
    "rx-udp-gro-forwarding": "rx-udp-gro-forwarding",
}
"""Features that join packets: name in the kernel, name for `ethtool -K`."""

MAX_FEATURES: Final = 1024
"""Most features of an interface that are read: kernels of today have about 60."""

_SIOCETHTOOL: Final = 0x8946
_GET_STRINGS: Final = 0x1B
_GET_COUNTS: Final = 0x37
_GET_FEATURES: Final = 0x3A
_FEATURES: Final = 4  # string set
_NAME_BYTES: Final = 32
_BLOCK: Final = struct.Struct("@IIII")  # available, requested, active, never changed


def joining_offloads(name: str) -> list[str]:
    """Return the receive offloads of an interface that are on, by their name in ethtool.

    Empty where the interface cannot be asked.
    """
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
            active = _active_features(asker, name)
    except OSError:
        return []
    return [short for feature, short in JOINING.items() if feature in active]


def advice(name: str, offloads: list[str]) -> str:
    """Return the command that switches these offloads off."""
    return " ".join(["ethtool -K", name, *(f"{offload} off" for offload in offloads)])


def _active_features(asker: socket.socket, name: str) -> set[str]:
    head = struct.pack("@IIQ", _GET_COUNTS, 0, 1 << _FEATURES)
    answer = _ask(asker, name, head, 4)
    if not struct.unpack_from("@Q", answer, 8)[0]:
        return set()
    count = min(struct.unpack_from("@I", answer, len(head))[0], MAX_FEATURES)
    head = struct.pack("@III", _GET_STRINGS, _FEATURES, count)
    answer = _ask(asker, name, head, count * _NAME_BYTES)
    names = [
        answer[at : at + _NAME_BYTES].partition(b"\0")[0].decode(errors="replace")
        for at in range(len(head), len(answer), _NAME_BYTES)
    ]
    blocks = -(-count // 32)
    head = struct.pack("@II", _GET_FEATURES, blocks)
    answer = _ask(asker, name, head, blocks * _BLOCK.size)
    active = [_BLOCK.unpack_from(answer, len(head) + k * _BLOCK.size)[2] for k in range(blocks)]
    return {feature for bit, feature in enumerate(names) if active[bit // 32] >> bit % 32 & 1}


def _ask(asker: socket.socket, name: str, head: bytes, room: int) -> bytes:
    """Give ethtool a command with room for its answer; return both."""
    buffer = ctypes.create_string_buffer(head, len(head) + room)
    request = struct.pack(f"@{IFNAMSIZ}sP16x", name.encode(), ctypes.addressof(buffer))
    fcntl.ioctl(asker, _SIOCETHTOOL, request)
    return buffer.raw
