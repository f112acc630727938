"""Another address in IP packets, with every checksum as right or as wrong as it was."""

from __future__ import annotations

from typing import Final

from veilwatch.corpus.tunnel import word_sum

MAX_EXTENSIONS: Final = 16
"""Extension headers that are stepped over: RFC 8200 knows each kind once, one of them twice."""

_TCP: Final = 6
_UDP: Final = 17
_ICMP: Final = 1
_ICMP_V6: Final = 58
_FRAGMENT: Final = 44
_AUTHENTICATION: Final = 51
_EXTENSIONS: Final = frozenset({0, 43, _FRAGMENT, _AUTHENTICATION, 60, 135, 139, 140})

_CHECKSUMS: Final = {_TCP: 16, _UDP: 6, 33: 6, 136: 6, _ICMP_V6: 2}
"""Where transport headers hold a checksum that covers the addresses of the IP header (RFC 9293,
768, 4340, 3828, 4443), by protocol."""

_ERRORS: Final = {_ICMP: frozenset({3, 4, 5, 11, 12}), _ICMP_V6: frozenset({1, 2, 3, 4})}
"""Types of messages that show the beginning of another packet (RFC 792, 4443)."""


def readdress(packet: bytearray, old: bytes, new: bytes) -> None:
    """Give one end of an IP packet another address, in place.

    Checksums of IP header, TCP, UDP, DCCP and ICMPv6 are adjusted by the difference (RFC 1624), so
    that one over bytes that were not captured stays right. An ICMP error shows a packet of its
    receiver: the address is changed in there too. Nothing else of a payload is.

    Parameters
    ----------
    packet
        IPv4 or IPv6, as far as it was captured; shorter than its fixed header it stays as it is.
    old, new
        Addresses in 16 bytes, IPv4 as ::ffff:a.b.c.d.
    """
    _readdress(packet, old, new, shown=False)


def _readdress(packet: bytearray, old: bytes, new: bytes, *, shown: bool) -> None:
    version = packet[0] >> 4 if packet else 0
    if version not in (4, 6) or len(packet) < (20 if version == 4 else 40):
        return
    if version == 4:
        old, new = old[-4:], new[-4:]
    size, source = (4, 12) if version == 4 else (16, 8)
    ends = [at for at in (source, source + size) if packet[at : at + size] == old]
    upper = _upper(packet, version)
    for at in ends:
        packet[at : at + size] = new
        if version == 4:
            _adjust(packet, 10, old, new)
        if upper is not None and upper[0] in _CHECKSUMS:
            _adjust_upper(packet, *upper, old, new)
    if upper is not None and not shown:
        _readdress_shown(packet, *upper, old, new)


def _readdress_shown(packet: bytearray, protocol: int, at: int, old: bytes, new: bytes) -> None:
    """Change the address in the packet that an ICMP error shows."""
    if protocol not in _ERRORS or at >= len(packet) or packet[at] not in _ERRORS[protocol]:
        return
    shown = packet[at + 8 :]
    before = bytes(shown)
    _readdress(shown, old, new, shown=True)
    packet[at + 8 :] = shown
    _adjust(packet, at + 2, before, bytes(shown))


def _adjust_upper(packet: bytearray, protocol: int, at: int, old: bytes, new: bytes) -> None:
    place = at + _CHECKSUMS[protocol]
    if protocol != _UDP:
        _adjust(packet, place, old, new)
    elif any(packet[place : place + 2]):  # 0 says that there is none
        _adjust(packet, place, old, new)
        if packet[place : place + 2] == b"\0\0":
            packet[place : place + 2] = b"\xff\xff"


def _adjust(packet: bytearray, at: int, old: bytes, new: bytes) -> None:
    """Adjust the checksum at `at`, if it was captured, for bytes that were replaced."""
    if at + 2 > len(packet):
        return
    stood = int.from_bytes(packet[at : at + 2], "big")
    total = (0xFFFF - stood) + (0xFFFF - word_sum(old)) + word_sum(new)
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    packet[at : at + 2] = (0xFFFF - total).to_bytes(2, "big")


def _upper(packet: bytearray, version: int) -> tuple[int, int] | None:
    """Return protocol and place of the transport header; None where the packet holds none."""
    if version == 4:
        later = bool(packet[6] & 0x1F or packet[7])
        kind, at = packet[9], (packet[0] & 15) * 4
    else:
        later, kind, at = False, packet[6], 40
    for _ in range(MAX_EXTENSIONS):
        if later:
            return None
        if kind not in _EXTENSIONS:
            return kind, at
        if at + 8 > len(packet):
            return None
        if kind == _FRAGMENT:
            later = bool(packet[at + 2] or packet[at + 3] & 0xF8)
            size = 8
        elif kind == _AUTHENTICATION:
            size = (packet[at + 1] + 2) * 4
        else:
            size = (packet[at + 1] + 1) * 8
        kind, at = packet[at], at + size
    return None
