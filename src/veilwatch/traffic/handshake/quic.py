"""QUIC packets by their long header: version, connection ids, token, and where each one ends.

RFC 8999 (what all versions share), RFC 9000 (v1), RFC 9369 (v2), the IETF drafts, and Google's
versions Q0xx and T0xx. Nothing is decrypted here.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

V1: Final = 0x00000001
V2: Final = 0x6B3343CF
V2_DRAFT: Final = 0x709A50C4
T050: Final = 0x54303530
T051: Final = 0x54303531
_Q050: Final = 0x51303530
MVFST: Final = range(0xFACEB000, 0xFACEB100)
"""Versions that Facebook's mvfst gives itself: aliases of IETF versions, for experiments."""
_NEGOTIATION_VERSION: Final = 0
_FIRST_DRAFT_OF_THIS_LAYOUT: Final = 0xFF000016  # draft 22
_MAX_DRAFT: Final = 0xFF000022  # draft 34, the last before RFC 9000
_NIBBLE_LENGTHS: Final = (0x51303436, *range(0xFF00000B, 0xFF000016))
"""Versions whose connection id lengths share one byte: Q046 and drafts 11 to 21."""

INITIAL: Final = 0
ZERO_RTT: Final = 1
HANDSHAKE: Final = 2
RETRY: Final = 3
VERSION_NEGOTIATION: Final = 4

MAX_CONNECTION_ID: Final = 20
"""Longest connection id of the versions known here (RFC 9000, section 17.2)."""

MAX_COALESCED: Final = 16
"""Packets looked at in one datagram: one of each kind is the rule (RFC 9000, section 12.2), a
client that scatters its hello may write several Initial packets."""

MAX_OFFERED_VERSIONS: Final = 32
"""Versions kept of a Version Negotiation; servers offer fewer than ten."""

MIN_PROTECTED: Final = 20
"""Shortest part behind a header: header protection samples 16 bytes from the fifth on (RFC 9001,
section 5.4.2)."""

RETRY_TAG: Final = 16
"""Bytes of a Retry's integrity tag (RFC 9001, section 5.8)."""


class LongPacket(NamedTuple):
    """One packet with a long header.

    Attributes
    ----------
    kind
        `INITIAL`, `ZERO_RTT`, `HANDSHAKE`, `RETRY` or `VERSION_NEGOTIATION`.
    dcid, scid
        Connection ids of the receiver and of the sender.
    content
        Its bytes from the first one on, as many as the datagram holds.
    number_at
        Where in `content` the packet number begins, 0 for kinds without.
    token_bytes
        Length of the token of an Initial or a Retry.
    versions
        What a Version Negotiation offers.
    whole
        Whether all of its bytes are there.
    """

    kind: int
    version: int
    dcid: bytes
    scid: bytes
    content: bytes
    number_at: int = 0
    token_bytes: int = 0
    versions: tuple[int, ...] = ()
    whole: bool = True


def is_known(version: Any) -> Any:
    """Tell whether `version` is one of QUIC's (an int, or an unsigned integer array)."""
    return (
        (version == V1)
        | (version == V2)
        | (version == V2_DRAFT)
        | ((version > 0xFF000000) & (version <= _MAX_DRAFT))
        | is_google(version)
        | ((version & 0xFFFFFF00) == MVFST.start)
        | is_reserved(version)
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


def is_reserved(version: Any) -> Any:
    """Tell whether `version` is reserved to force negotiation (RFC 9000, section 15)."""
    return (version & 0x0F0F0F0F) == 0x0A0A0A0A


def initial_version(datagram: bytes) -> int:
    """Return the version of the QUIC Initial that `datagram` begins with, 0 if it does not."""
    if len(datagram) < 7:
        return 0
    first = datagram[0]
    if first & 0xC0 == 0xC0:
        version = int.from_bytes(datagram[1:5], "big")
        if not is_known(version) or _kind(first, version) != INITIAL:
            return 0
        if version in _NIBBLE_LENGTHS or _connection_ids(datagram, 5, MAX_CONNECTION_ID):
            return version
        return 0
    if first & 0xC9 == 0x09 and len(datagram) >= 13:  # up to Q043: version and connection id
        version = int.from_bytes(datagram[9:13], "big")
        return version if is_google(version) else 0
    return 0


def long_packets(datagram: bytes) -> list[LongPacket]:
    """Return the packets with a long header that a datagram begins with.

    Reading ends at a short header, at a packet that was cut or whose version does not say where
    it ends, and where the connection changes (RFC 9000, section 12.2). Of Google's versions only
    those are read that have the headers of the IETF's.
    """
    packets: list[LongPacket] = []
    offset = 0
    while offset < len(datagram) and len(packets) < MAX_COALESCED:
        packet = _long_packet(datagram[offset:] if offset else datagram)
        if packet is None or (packets and packet.dcid != packets[0].dcid):
            break
        packets.append(packet)
        if not packet.whole or not packet.number_at:
            break
        offset += len(packet.content)
    return packets


def varint(data: bytes, offset: int) -> tuple[int, int]:
    """Read a variable-length integer (RFC 9000, section 16).

    Returns
    -------
    tuple of int
        The number and the offset behind it, which is -1 if the data ends before that.
    """
    if offset >= len(data):
        return 0, -1
    first = data[offset]
    if first < 0x40:  # nearly all of them
        return first, offset + 1
    size = 1 << (first >> 6)
    after = offset + size
    if after > len(data):
        return 0, -1
    mask = (1 << (8 * size - 2)) - 1
    return int.from_bytes(data[offset:after], "big") & mask, after


def _kind(first: int, version: int) -> int:
    """Return the kind of packet; version 2 numbers them anew (RFC 9369, section 3.2)."""
    bits = (first >> 4) & 3
    return (bits - 1) & 3 if version in (V2, V2_DRAFT) else bits


def _says_where_it_ends(version: int) -> bool:
    """Whether packets of a known version carry token and length as in RFC 9000, section 17.2."""
    if is_google(version):
        return version in (_Q050, T050, T051)
    return not 0xFF000000 < version < _FIRST_DRAFT_OF_THIS_LAYOUT


def _connection_ids(data: bytes, offset: int, longest: int) -> tuple[bytes, bytes, int] | None:
    """Return destination id, source id and the offset behind them; None if cut or too long."""
    source_at = offset + 1 + data[offset]
    if data[offset] > longest or source_at >= len(data) or data[source_at] > longest:
        return None
    after = source_at + 1 + data[source_at]
    if after > len(data):
        return None
    return data[offset + 1 : source_at], data[source_at + 1 : after], after


def _long_packet(data: bytes) -> LongPacket | None:
    if len(data) < 7 or not data[0] & 0x80:
        return None
    version = int.from_bytes(data[1:5], "big")
    if version == _NEGOTIATION_VERSION:
        return _negotiation(data)
    if not is_known(version) or not _says_where_it_ends(version):
        return None
    ids = _connection_ids(data, 5, MAX_CONNECTION_ID)
    if ids is None:
        return None
    dcid, scid, offset = ids
    kind = _kind(data[0], version)
    if kind == RETRY:
        token = len(data) - offset - RETRY_TAG
        return LongPacket(kind, version, dcid, scid, data, 0, token) if token > 0 else None
    token = 0
    if kind == INITIAL:
        token, offset = varint(data, offset)
        offset += token
    if 0 < offset <= len(data):
        length, offset = varint(data, offset)
        if offset > 0 and length < MIN_PROTECTED:
            return None
    if not 0 < offset <= len(data):  # cut behind the ids
        return LongPacket(kind, version, dcid, scid, data, 0, token, (), False)
    content = data[: offset + length]
    whole = len(content) == offset + length
    return LongPacket(kind, version, dcid, scid, content, offset, token, (), whole)


def _negotiation(data: bytes) -> LongPacket | None:
    """Read a Version Negotiation, whose ids may have any length (RFC 8999, section 6)."""
    ids = _connection_ids(data, 5, 0xFF)
    if ids is None:
        return None
    dcid, scid, offset = ids
    end = min(len(data) - 3, offset + 4 * MAX_OFFERED_VERSIONS)
    versions = tuple(int.from_bytes(data[at : at + 4], "big") for at in range(offset, end, 4))
    return LongPacket(VERSION_NEGOTIATION, 0, dcid, scid, data, versions=versions)
