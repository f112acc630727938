"""The one form in which tables write addresses, so that columns of addresses can be compared."""

from __future__ import annotations

import socket
from typing import Final

_MAPPED: Final = bytes(10) + b"\xff\xff"
"""Beginning of an IPv4-mapped address ::ffff:0:0/96 (RFC 4291 cl. 2.5.5.2)."""


def address_text(packed: bytes) -> str:
    r"""Return an address of 4 or 16 bytes as people write it, an IPv4-mapped one as dotted quad.

    Examples
    --------
    >>> address_text(b"\xc0\0\2\1"), address_text(b" \1\r\xb8" + bytes(11) + b"\1")
    ('192.0.2.1', '2001:db8::1')
    """
    if len(packed) == 4:
        return socket.inet_ntop(socket.AF_INET, packed)
    if packed[:12] == _MAPPED:
        return socket.inet_ntop(socket.AF_INET, packed[12:])
    return socket.inet_ntop(socket.AF_INET6, packed)
