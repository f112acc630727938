"""QUIC by its long header: which version a client's first datagram speaks.

RFC 8999 (what all versions share), RFC 9000 (v1), RFC 9369 (v2), the IETF drafts, and Google's
versions Q0xx and T0xx. Nothing is decrypted here.
"""

from __future__ import annotations

from typing import Any, Final

V1: Final = 0x00000001
V2: Final = 0x6B3343CF
_V2_DRAFT: Final = 0x709A50C4
_MAX_DRAFT: Final = 0xFF000022  # draft 34, the last before RFC 9000
_MAX_CONNECTION_ID: Final = 20  # RFC 9000, section 17.2
_NIBBLE_LENGTHS: Final = (0x51303436, *range(0xFF00000B, 0xFF000016))
"""Versions whose connection id lengths share one byte: Q046 and drafts 11 to 21."""


def is_known(version: Any) -> Any:
    """Tell whether `version` is one of QUIC's (an int, or an unsigned integer array)."""
    return (
        (version == V1)
        | (version == V2)
        | (version == _V2_DRAFT)
        | ((version > 0xFF000000) & (version <= _MAX_DRAFT))
        | is_google(version)
        | ((version & 0xFFFFFFF0) == 0xFACEB000)  # mvfst
        | ((version & 0x0F0F0F0F) == 0x0A0A0A0A)  # reserved to force negotiation
    )


def is_google(version: Any) -> Any:
    """Tell whether `version` spells Q0dd or T0dd in ASCII digits."""
    tens, ones = (version >> 8) & 0xFF, version & 0xFF
    return (
        (((version >> 16) == 0x5130) | ((version >> 16) == 0x5430))
        & (tens >= 0x30)
        & (tens <= 0x39)
        & (ones >= 0x30)
        & (ones <= 0x39)
    )


def initial_version(datagram: bytes) -> int:
    """Return the version of the QUIC Initial that `datagram` begins with, 0 if it does not."""
    if len(datagram) < 7:
        return 0
    first = datagram[0]
    if first & 0xC0 == 0xC0:
        return _long_header_version(datagram)
    if first & 0xC9 == 0x09 and len(datagram) >= 13:  # up to Q043: version and connection id
        version = int.from_bytes(datagram[9:13], "big")
        return version if is_google(version) else 0
    return 0


def _long_header_version(datagram: bytes) -> int:
    version = int.from_bytes(datagram[1:5], "big")
    initial = 1 if version in (V2, _V2_DRAFT) else 0
    if not is_known(version) or (datagram[0] >> 4) & 3 != initial:
        return 0
    if version in _NIBBLE_LENGTHS:
        return version
    source_at = 6 + datagram[5]
    if datagram[5] > _MAX_CONNECTION_ID or source_at >= len(datagram):
        return 0
    return version if datagram[source_at] <= _MAX_CONNECTION_ID else 0
