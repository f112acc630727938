"""What the plain-Python decoding is made of: layers of bytes, refusals, and looks at them."""

from __future__ import annotations

from dataclasses import dataclass

from veilwatch.schema.packets import Status
from veilwatch.traffic.decode.shim import MAX_LABELS
from veilwatch.traffic.decode.tunnel import MAX_LOOKED_AT_TAGS

VLAN_ETHERTYPES = {0x8100, 0x88A8, 0x9100}


class Refused(Exception):
    """Ends the decoding of a packet with a status."""

    def __init__(self, status: Status) -> None:
        self.status = status


@dataclass(frozen=True)
class Layer:
    """The bytes of one layer as far as they were captured, and its whole length on the wire."""

    data: bytes
    length: int
    at: int  # where data begins in the frame

    def need(self, size: int, cut: Status, bad: Status | None = None) -> bytes:
        """Return the first `size` bytes, or refuse: `bad` if the layer is shorter, else `cut`."""
        if bad is not None and size > self.length:
            raise Refused(bad)
        if size > len(self.data):
            raise Refused(cut)
        return self.data[:size]

    def after(self, size: int) -> Layer:
        """Return what follows a header of `size` bytes."""
        return Layer(self.data[size:], self.length - size, self.at + min(size, len(self.data)))

    def limited(self, length: int) -> Layer:
        """Return the layer as a length field states it: padding goes, missing bytes are cut."""
        return Layer(self.data[:length], length, self.at)


def ppp(layer: Layer) -> tuple[int, Layer]:
    """Return PPP's protocol and content."""
    if layer.data[:2] == b"\xff\x03":
        layer = layer.after(2)
    head = layer.need(2, Status.TRUNCATED_LINK)
    if head[0] % 2:
        return head[0], layer.after(1)
    return int.from_bytes(head), layer.after(2)


def inner_version(tpdu: Layer) -> int | None:
    """Return the IP version a T-PDU plausibly begins with, None if it is not IP."""
    version = tpdu.data[0] >> 4 if tpdu.data else 4
    if version == 4 and tpdu.length >= 20:
        if len(tpdu.data) >= 4:
            size, total = tpdu.data[0] % 16 * 4, int.from_bytes(tpdu.data[2:4])
            return 4 if 20 <= size <= total <= tpdu.length else None
        return 4
    if version == 6 and tpdu.length >= 40:
        if len(tpdu.data) >= 6:
            return 6 if 40 + int.from_bytes(tpdu.data[4:6]) <= tpdu.length else None
        return 6
    return None


def fits(kind: int | None, rest: Layer) -> bool:
    """Whether an IP packet of a version begins here, as far as that can be seen."""
    if not rest.data:
        return rest.length >= (20 if kind == 4 else 40)
    return inner_version(rest) == kind


def looks_like_frame(frame: Layer) -> bool:
    """Whether a layer begins like an Ethernet frame that carries IP, ARP or PPPoE."""
    if len(frame.data) < 14 or frame.data[6] & 1:
        return False
    kind, rest = int.from_bytes(frame.data[12:14]), frame.after(14)
    for _ in range(MAX_LOOKED_AT_TAGS):
        if kind in VLAN_ETHERTYPES and len(rest.data) >= 4:
            kind, rest = int.from_bytes(rest.data[2:4]), rest.after(4)
    if kind == 0x0800:
        return fits(4, rest)
    if kind == 0x86DD:
        return fits(6, rest)
    head = rest.data[:6]
    if kind == 0x0806:
        return head == b"\0\1\x08\0\x06\x04"
    if kind in (0x8863, 0x8864) and len(head) == 6:
        return head[0] == 0x11 and 6 + int.from_bytes(head[4:]) <= rest.length
    return False


def filling_version(rest: Layer) -> int | None:
    """Return the version of an IP packet that is exactly as long as its layer."""
    if len(rest.data) < 6:
        return None
    version = inner_version(rest)
    stated = {4: int.from_bytes(rest.data[2:4]), 6: 40 + int.from_bytes(rest.data[4:6])}
    return version if version is not None and stated[version] == rest.length else None


def packet_in_ppp(rest: Layer) -> tuple[int, Layer] | None:
    """Return version and packet of PPP that carries IP.

    Raises
    ------
    Refused
        If the capture ends before the packet.
    """
    protocol, content = ppp(rest)
    if not content.data and content.length > 0:
        raise Refused(Status.TRUNCATED_LINK)
    version = {0x21: 4, 0x57: 6}.get(protocol)
    if version is None or inner_version(content) != version:
        return None
    return version, content


def pseudowire(rest: Layer) -> tuple[int, Layer] | None:
    """Return what follows a cookie and a sublayer of unknown length: (0, frame), (version, IP)."""
    places = [rest.after(skip) for skip in (0, 4, 8, 12)]
    for place in places:
        if looks_like_frame(place):
            return 0, place
    for place in places:
        version = filling_version(place)
        if version:
            return version, place
        if len(place.data) < 4:
            break
        content = None
        if place.data[:2] == b"\xff\x03":
            try:
                protocol, content = ppp(place)
            except Refused:
                continue
            announced = {0x21: 4, 0x57: 6}.get(protocol)
        elif place.data[:2] in (b"\x0f\0", b"\x8f\0"):
            content = place.after(4)
            announced = {0x0800: 4, 0x86DD: 6}.get(int.from_bytes(place.data[2:4]))
        if content and announced and filling_version(content) == announced:
            return announced, content
    return None


def looks_like_labels(rest: Layer) -> bool:
    """Whether a stack of MPLS labels begins here, with a packet or a frame behind it."""
    for _ in range(MAX_LABELS):
        if len(rest.data) < 4:
            return rest.length >= 4
        last, rest = rest.data[2] & 1, rest.after(4)
        if last:
            return (
                inner_version(rest) is not None
                or looks_like_frame(rest)
                or looks_like_frame(rest.after(4))
            )
    return False
