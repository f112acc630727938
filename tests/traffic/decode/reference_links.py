"""Link types that few captures have, in plain Python: see `reference`."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from tests.traffic.decode.reference_layer import (
    Layer,
    Refused,
    inner_version,
    looks_like_frame,
    packet_in_ppp,
)
from veilwatch.schema.packets import Status
from veilwatch.traffic.decode.lan import MAX_PREAMBLE
from veilwatch.traffic.decode.records import MAX_ATTRIBUTES, MAX_ERF_EXTENSIONS
from veilwatch.traffic.decode.tzsp import MAX_TAGS
from veilwatch.traffic.decode.wireless import MAX_PRESENT_WORDS

if TYPE_CHECKING:
    from tests.traffic.decode.reference import PlainWalk

INET6_FAMILIES = {10, 23, 24, 26, 28, 30}
CUT = Status.TRUNCATED_LINK
Reader = Callable[["PlainWalk", Layer], None]


def _family(walk: PlainWalk, family: int, packet: Layer) -> None:
    if family == 2:
        walk.ip(packet, 4)
    elif family in INET6_FAMILIES:
        walk.ip(packet, 6)
    else:
        raise Refused(Status.NOT_IP)


def cooked(walk: PlainWalk, frame: Layer, link: int) -> None:
    """Linux cooked frames of both versions."""
    size, protocol_at, hardware_at = (16, 14, 2) if link == 113 else (20, 0, 8)
    head = frame.need(size, CUT)
    protocol = int.from_bytes(head[protocol_at : protocol_at + 2])
    hardware = int.from_bytes(head[hardware_at : hardware_at + 2])
    rest = frame.after(size)
    if hardware == 824:
        walk.result.notes["netlink"] += 1
        raise Refused(Status.NOT_IP)
    radio: dict[int, Reader] = {801: wlan, 802: prism, 803: radiotap, 770: frame_relay}
    if hardware in radio:
        radio[hardware](walk, rest)
    elif protocol >= 0x600:
        walk.ethertype(protocol, rest, tagged=True)
    elif protocol == 7:
        hdlc(walk, rest)
    elif protocol in (1, 3, 8) or hardware in (512, 519, 768, 769, 776, 778, 823, 65534, 65535):
        _by_look(walk, rest, is_frame=protocol == 3)
    elif protocol == 4:
        walk.llc(rest)
    else:
        raise Refused(Status.NOT_IP)


def _by_look(walk: PlainWalk, rest: Layer, *, is_frame: bool) -> None:
    if looks_like_frame(rest):
        walk.ethernet(rest)
        return
    if rest.data:
        version, packet = inner_version(rest), rest
        if version is None:
            try:
                version, packet = packet_in_ppp(rest) or (None, rest)
            except Refused:
                version = None
        if version is not None:
            walk.ip(packet, version)
            return
    if not is_frame:
        raise Refused(Status.NOT_IP)
    walk.ethernet(rest)


# point to point


def cisco_hdlc(walk: PlainWalk, frame: Layer) -> None:
    head = frame.need(4, CUT)
    walk.ethertype(int.from_bytes(head[2:]), frame.after(4), tagged=False)


def hdlc(walk: PlainWalk, frame: Layer) -> None:
    if frame.data[:1] in (b"\x0f", b"\x8f"):
        cisco_hdlc(walk, frame)
    else:
        walk.ppp(frame)


def pppd(walk: PlainWalk, frame: Layer) -> None:
    head = frame.need(2, CUT)
    walk.ppp(frame.after(2 if head[1] == 3 else 1))


def nlpid(walk: PlainWalk, rest: Layer) -> None:
    kind = rest.need(1, CUT)[0]
    content = rest.after(1)
    if kind == 0xCF:
        walk.ppp(content)
    elif kind in (0xCC, 0x8E):
        walk.ip(content, 4 if kind == 0xCC else 6)
    else:
        raise Refused(Status.NOT_IP)


def frame_relay(walk: PlainWalk, frame: Layer) -> None:
    size = 1
    while not frame.need(size, CUT)[-1] & 1:
        if size == 4:
            frame.need(5, CUT)
            raise Refused(Status.NOT_IP)
        size += 1
    control = frame.after(size)
    head = control.need(2, CUT)
    if head[0] != 3:
        walk.ethertype(int.from_bytes(head), control.after(2), tagged=False)
        return
    rest = control.after(1 if head[1] else 2)
    if rest.data and rest.data[0] != 0x80:
        nlpid(walk, rest)
        return
    snap = rest.need(6, CUT)
    organisation, kind = snap[1:4], int.from_bytes(snap[4:])
    if organisation == b"\0\x80\xc2" and kind in (1, 7):
        walk.ethernet(rest.after(6))
    elif organisation == b"\0\0\0":
        walk.ethertype(kind, rest.after(6), tagged=False)
    else:
        raise Refused(Status.NOT_IP)


def atm(walk: PlainWalk, frame: Layer) -> None:
    head = frame.need(3, CUT)
    if head in (b"\xaa\xaa\x03", b"\xfe\xfe\x03", b"\x06\x06\x03"):
        if frame.data[:8] in (b"\xaa\xaa\x03\0\x80\xc2\0\1", b"\xaa\xaa\x03\0\x80\xc2\0\7"):
            frame.need(10, CUT)
            walk.ethernet(frame.after(10))
        else:
            walk.llc(frame)
        return
    version = inner_version(frame)
    if version is not None:
        walk.ip(frame, version)
    elif head[:2] == b"\0\0" and looks_like_frame(frame.after(2)):
        walk.ethernet(frame.after(2))
    else:
        found = packet_in_ppp(frame)
        if found is None:
            raise Refused(Status.NOT_IP)
        walk.ip(found[1], found[0])


def lane(walk: PlainWalk, frame: Layer) -> None:
    if frame.need(2, CUT) == b"\xff\0":
        raise Refused(Status.NOT_IP)
    walk.ethernet(frame.after(2))


def sun_atm(walk: PlainWalk, frame: Layer) -> None:
    kind = frame.need(4, CUT)[0] % 16
    if kind > 2:
        raise Refused(Status.NOT_IP)
    (lane if kind == 1 else atm)(walk, frame.after(4))


# local networks


def token_ring(walk: PlainWalk, frame: Layer) -> None:
    head = frame.need(15, CUT)
    if head[1] & 0xC0 != 0x40:
        raise Refused(Status.NOT_IP)
    walk.llc(frame.after(14 + (head[14] % 32 if head[8] & 0x80 else 0)))


def fddi(walk: PlainWalk, frame: Layer) -> None:
    if frame.need(13, CUT)[0] & 0xF0 != 0x50:
        raise Refused(Status.NOT_IP)
    walk.llc(frame.after(13))


def fibre_channel(walk: PlainWalk, frame: Layer) -> None:
    frame.need(16, CUT)
    walk.llc(frame.after(16))


def firewire(walk: PlainWalk, frame: Layer) -> None:
    head = frame.need(18, CUT)
    walk.ethertype(int.from_bytes(head[16:]), frame.after(18), tagged=True)


def arcnet(walk: PlainWalk, frame: Layer, addresses: int) -> None:
    head = frame.need(addresses + 2, CUT)
    kind, flag = head[-2:]
    version = {0xD4: 4, 0xC4: 6, 0xF0: 4}.get(kind)
    size = 1 if kind == 0xF0 else 8 if flag == 0xFF else 4
    frame.need(addresses + size, CUT)
    later = size == 4 and flag and not flag & 1
    if version is None or later:
        raise Refused(Status.NOT_IP)
    walk.ip(frame.after(addresses + size), version)


def mpacket(walk: PlainWalk, frame: Layer) -> None:
    preamble = len(frame.data) - len(frame.data.lstrip(b"\x55"))
    preamble = min(preamble, MAX_PREAMBLE)
    mark = frame.need(preamble + 1, CUT)[-1]
    if mark not in (0xD5, 0xE6, 0x4C, 0x7F, 0xB3):
        raise Refused(Status.NOT_IP)
    walk.ethernet(frame.after(preamble + 1))


def docsis(walk: PlainWalk, frame: Layer) -> None:
    head = frame.need(6, CUT)
    size = 6 + (head[1] if head[0] & 1 else 0)
    if head[0] >> 6:
        raise Refused(Status.NOT_IP)
    frame.need(size, CUT)
    walk.ethernet(frame.after(size))


def ipoib(walk: PlainWalk, frame: Layer) -> None:
    head = frame.need(44, CUT)
    walk.ethertype(int.from_bytes(head[40:42]), frame.after(44), tagged=False)


def netanalyzer_transparent(walk: PlainWalk, frame: Layer) -> None:
    frame.need(4, CUT)
    mpacket(walk, frame.after(4))


def switch_tag(walk: PlainWalk, frame: Layer, size: int) -> None:
    head = frame.need(14 + size, CUT)
    walk.ethertype(int.from_bytes(head[-2:]), frame.after(14 + size), tagged=True)


def ethernet_behind(walk: PlainWalk, frame: Layer, size: int) -> None:
    frame.need(size, CUT)
    walk.ethernet(frame.after(size))


# radio


def _data_frame(
    walk: PlainWalk, frame: Layer, unit: int = 1, *, perhaps_swapped: bool = False
) -> None:
    kind, flags = frame.need(2, CUT)
    if perhaps_swapped and kind & 0x4F != 0x08:
        kind, flags = flags, kind
    if kind & 0x4F != 0x08:
        raise Refused(Status.NOT_IP)
    size = 30 if flags & 3 == 3 else 24
    aggregated = False
    if kind & 0x80:
        aggregated = bool(frame.need(size + 2, CUT)[size] & 0x80)
        size += 6 if flags & 0x80 else 2
    size = -(-size // unit) * unit + (14 if aggregated else 0)
    head = frame.need(size + 3, CUT)
    if head[22] % 16 or (flags & 0x40 and head[size:] != b"\xaa\xaa\x03"):
        raise Refused(Status.NOT_IP)
    walk.llc(frame.after(size))


def wlan(walk: PlainWalk, frame: Layer) -> None:
    _data_frame(walk, frame)


def swapped_wlan(walk: PlainWalk, frame: Layer) -> None:
    _data_frame(walk, frame, perhaps_swapped=True)


def radiotap(walk: PlainWalk, frame: Layer) -> None:
    head = frame.need(8, CUT)
    version, size, first = struct.unpack("<BxHI", head)
    if version or size < 8:
        raise Refused(Status.NOT_IP)
    head = frame.need(size, CUT)
    at, word = 8, first
    for _ in range(MAX_PRESENT_WORDS):
        if not word >> 31:
            break
        if at + 4 > size:
            raise Refused(Status.NOT_IP)
        (word,) = struct.unpack_from("<I", head, at)
        at += 4
    padded = False
    if first & 2:
        if first & 1:
            at = -(-at // 8) * 8 + 8
        padded = at < size and bool(head[at] & 0x20)
    _data_frame(walk, frame.after(size), 4 if padded else 1)


def avs(walk: PlainWalk, frame: Layer) -> None:
    size = int.from_bytes(frame.need(8, CUT)[4:])
    if size < 8:
        raise Refused(Status.NOT_IP)
    frame.need(size, CUT)
    wlan(walk, frame.after(size))


def prism(walk: PlainWalk, frame: Layer) -> None:
    head = frame.need(4, CUT)
    if head[:2] == b"\x80\x21" and head[2] >> 4 == 1:
        avs(walk, frame)
        return
    frame.need(144, CUT)
    wlan(walk, frame.after(144))


# records


def enc(walk: PlainWalk, frame: Layer) -> None:
    head = frame.need(12, CUT)
    big = int.from_bytes(head[:4])
    _family(walk, head[0] if big % 2**24 == 0 else big, frame.after(12))


def pflog(walk: PlainWalk, frame: Layer) -> None:
    size, family = frame.need(2, CUT)
    if size < 45:
        raise Refused(Status.NOT_IP)
    size = -(-size // 4) * 4
    frame.need(size, CUT)
    _family(walk, family, frame.after(size))


def pflog_old(walk: PlainWalk, frame: Layer) -> None:
    _family(walk, int.from_bytes(frame.need(28, CUT)[:4]), frame.after(28))


def ipnet(walk: PlainWalk, frame: Layer) -> None:
    _family(walk, frame.need(24, CUT)[1], frame.after(24))


def nflog(walk: PlainWalk, frame: Layer) -> None:
    order = "<" if frame.need(8, CUT)[7] == 0 else ">"
    rest = frame.after(4)
    for _ in range(MAX_ATTRIBUTES):
        if len(rest.data) < 4:
            raise Refused(CUT if rest.length > 0 else Status.NOT_IP)
        size, kind = struct.unpack(f"{order}HH", rest.data[:4])
        if size < 4 or size > rest.length:
            break
        if kind == 9:
            rest.need(5, CUT)
            walk.raw_ip(rest.limited(size).after(4))
            return
        rest = rest.after(-(-size // 4) * 4)
    raise Refused(Status.NOT_IP)


def ppi(walk: PlainWalk, frame: Layer) -> None:
    version, size, link = struct.unpack("<BxHI", frame.need(8, CUT))
    if version or size < 8:
        raise Refused(Status.NOT_IP)
    _recorded(walk, frame, size, link)


def pktap(walk: PlainWalk, frame: Layer) -> None:
    size, kind, link = struct.unpack("<III", frame.need(12, CUT))
    if size < 12 or kind != 1:
        raise Refused(Status.NOT_IP)
    _recorded(walk, frame, size, link)


def _recorded(walk: PlainWalk, frame: Layer, size: int, link: int) -> None:
    frame.need(size + 1, CUT)
    if link in (113, 192, 258, 276):
        raise Refused(Status.NOT_IP)
    walk.link(frame.after(size), link)


def symantec(walk: PlainWalk, frame: Layer) -> None:
    head = frame.need(44, CUT)
    walk.ethertype(int.from_bytes(head[6:8]), frame.after(44), tagged=False)


def erf(walk: PlainWalk, frame: Layer) -> None:
    kind = frame.need(16, CUT)[8]
    kind, more = kind % 128, kind >> 7
    rest = frame.after(16)
    for _ in range(MAX_ERF_EXTENSIONS):
        if more:
            more = rest.need(1, CUT)[0] >> 7
            rest = rest.after(8)
    if more:
        raise Refused(Status.NOT_IP)
    match kind:
        case 2 | 11 | 16 | 20:
            ethernet_behind(walk, rest, 2)
        case 22 | 23:
            walk.ip(rest, 4 if kind == 22 else 6)
        case 4 | 9:
            atm(walk, rest.after(4 if kind == 4 else 8))
        case 1 | 5 | 10 | 15 | 17 | 19:
            hdlc(walk, rest.after(4) if kind in (5, 17) else rest)
        case _:
            raise Refused(Status.NOT_IP)


def tzsp_content(header: Layer) -> tuple[int, Layer] | None:
    """Return the protocol and the frame behind a TZSP header's tags, None if there is none."""
    protocol, rest = int.from_bytes(header.data[2:4]), header.after(4)
    if protocol not in TZSP_FRAMES:
        return None
    for _ in range(MAX_TAGS):
        if rest.length <= 0:
            return None
        tag, rest = rest.need(1, Status.TRUNCATED_TUNNEL)[0], rest.after(1)
        if tag > 1:
            if rest.length <= 0:
                return None
            rest = rest.after(1 + rest.need(1, Status.TRUNCATED_TUNNEL)[0])
        if tag == 1:
            if rest.length <= 0:
                return None
            rest.need(1, Status.TRUNCATED_TUNNEL)
            return protocol, rest
    return None


def tzsp_frame(walk: PlainWalk, frame: Layer) -> None:
    head = frame.need(4, Status.TRUNCATED_TUNNEL, bad=Status.NOT_IP)
    found = tzsp_content(frame) if head[0] == 1 else None
    if found is None:
        raise Refused(Status.NOT_IP)
    TZSP_FRAMES[found[0]](walk, found[1])


def juniper(walk: PlainWalk, frame: Layer, link: int) -> None:
    head = frame.need(6, CUT)
    if head[:3] != b"MGC":
        raise Refused(Status.NOT_IP)
    flags = head[3]
    rest = frame.after(6 + int.from_bytes(head[4:]) if flags & 0x80 else 4)
    head = rest.need(8, CUT)
    if link in (135, 137):
        atm(walk, rest.after(4 if link == 137 or flags & 2 else 8))
    elif flags & 2:
        _juniper_protocol(walk, int.from_bytes(head[:4], "little"), rest.after(4))
    elif link in (167, 178):
        walk.ethernet(rest)
    elif link == 179:
        walk.ppp(rest)
    elif link == 180:
        frame_relay(walk, rest)
    elif link == 181:
        cisco_hdlc(walk, rest)
    elif link == 133:
        _juniper_protocol(walk, int.from_bytes(head[:2], "little"), rest.after(4))
    else:
        size = 18 if link == 183 else 16 if flags & 1 else 12
        rest.need(size, CUT)
        walk.ip(rest.after(size), 4)


def _juniper_protocol(walk: PlainWalk, protocol: int, rest: Layer) -> None:
    match protocol:
        case 2 | 3 | 6 | 7:
            walk.ip(rest, 4 if protocol < 4 else 6)
        case 4 | 5 | 8:
            walk.mpls(rest)
        case 204:
            walk.ethernet(rest)
        case _:
            raise Refused(Status.NOT_IP)


def _slip(walk: PlainWalk, frame: Layer) -> None:
    frame.need(16, CUT)
    walk.raw_ip(frame.after(16))


def _after_direction(read: Reader) -> Reader:
    def reader(walk: PlainWalk, frame: Layer) -> None:
        frame.need(1, CUT)
        read(walk, frame.after(1))

    return reader


TZSP_FRAMES: dict[int, Reader] = {
    1: lambda walk, frame: walk.ethernet(frame),
    2: token_ring,
    4: lambda walk, frame: walk.ppp(frame),
    5: fddi,
    7: lambda walk, frame: walk.raw_ip(frame),
    18: wlan,
    119: prism,
    127: avs,
}

READERS: dict[int, Reader] = {
    6: token_ring,
    7: lambda walk, frame: arcnet(walk, frame, 2),
    8: _slip,
    9: hdlc,
    10: fddi,
    17: pflog_old,
    50: hdlc,
    99: symantec,
    100: atm,
    102: _slip,
    104: cisco_hdlc,
    105: wlan,
    106: atm,
    107: frame_relay,
    109: enc,
    110: lane,
    112: hdlc,
    113: lambda walk, frame: cooked(walk, frame, 113),
    117: pflog,
    119: prism,
    122: fibre_channel,
    123: sun_atm,
    127: radiotap,
    128: tzsp_frame,
    129: lambda walk, frame: arcnet(walk, frame, 4),
    **{
        link: partial(juniper, link=link)
        for link in (133, 135, 136, 137, 167, 178, 179, 180, 181, 183)
    },
    138: firewire,
    143: docsis,
    163: avs,
    166: pppd,
    192: ppi,
    197: erf,
    204: _after_direction(lambda walk, frame: walk.ppp(frame)),
    205: _after_direction(cisco_hdlc),
    206: _after_direction(frame_relay),
    226: ipnet,
    239: nflog,
    240: lambda walk, frame: ethernet_behind(walk, frame, 4),
    241: netanalyzer_transparent,
    242: ipoib,
    258: pktap,
    259: lambda walk, frame: ethernet_behind(walk, frame, 8),
    274: mpacket,
    276: lambda walk, frame: cooked(walk, frame, 276),
    281: lambda walk, frame: switch_tag(walk, frame, 4),
    282: lambda walk, frame: ethernet_behind(walk, frame, 4),
    284: lambda walk, frame: switch_tag(walk, frame, 4),
    285: lambda walk, frame: switch_tag(walk, frame, 8),
}
"""By LINKTYPE_ value."""
