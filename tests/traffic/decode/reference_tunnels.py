"""Tunnels and layers that few networks have, in plain Python: see `reference`."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from tests.traffic.decode.reference_layer import (
    Layer,
    Refused,
    fits,
    inner_version,
    looks_like_frame,
    looks_like_labels,
    packet_in_ppp,
    pseudowire,
)
from tests.traffic.decode.reference_links import TZSP_FRAMES, swapped_wlan, tzsp_content
from veilwatch.schema.packets import Status

if TYPE_CHECKING:
    from tests.traffic.decode.reference import PlainWalk

CUT = Status.TRUNCATED_TUNNEL


def _false(walk: PlainWalk) -> None:
    walk.result.notes["tunnel_false"] += 1


def _enter(walk: PlainWalk, name: str, found: tuple[int, Layer]) -> None:
    """Go on inside a datagram: a frame where the version is 0."""
    walk.result.notes[name] += 1
    walk.leave_udp()
    _inside(walk, found)


def _inside(walk: PlainWalk, found: tuple[int, Layer]) -> None:
    version, content = found
    if version:
        walk.ip(content, version)
    else:
        walk.ethernet(content)


# between link and network


def framed(walk: PlainWalk, rest: Layer, size: int) -> None:
    rest.need(size, Status.TRUNCATED_LINK)
    walk.result.notes["fabric"] += 1
    walk.ethernet(rest.after(size))


def trill(walk: PlainWalk, rest: Layer) -> None:
    (word,) = struct.unpack(">H4x", rest.need(6, Status.TRUNCATED_LINK))
    if word >> 14:
        raise Refused(Status.NOT_IP)
    framed(walk, rest, 6 + 4 * (word >> 6 & 31))


def macsec(walk: PlainWalk, rest: Layer) -> None:
    control = rest.need(6, Status.TRUNCATED_LINK)[0]
    if control & 0x0C:
        walk.result.notes["macsec"] += 1
        raise Refused(Status.NOT_IP)
    size = 16 if control & 0x20 else 8
    head = rest.need(size, Status.TRUNCATED_LINK)
    walk.ethertype(int.from_bytes(head[-2:]), rest.after(size), tagged=True)


def is_nsh(rest: Layer) -> bool:
    if rest.length < 8:
        return False
    if len(rest.data) < 2:
        return True
    return rest.data[0] < 64 and 8 <= rest.data[1] % 64 * 4 <= rest.length


def nsh(walk: PlainWalk, rest: Layer) -> None:
    head = rest.need(8, Status.TRUNCATED_LINK)
    if not is_nsh(rest):
        raise Refused(Status.NOT_IP)
    size = head[1] % 64 * 4
    rest.need(size, Status.TRUNCATED_LINK)
    if head[3] not in (1, 2, 3, 5):
        raise Refused(Status.NOT_IP)
    walk.result.notes["nsh"] += 1
    content = rest.after(size)
    if head[3] == 5:
        walk.mpls(content)
    else:
        _inside(walk, ({1: 4, 2: 6, 3: 0}[head[3]], content))


# above IP


def etherip(walk: PlainWalk, packet: Layer) -> None:
    if packet.length <= 2:
        walk.payload(packet)
        return
    head, frame = packet.need(3, CUT), packet.after(2)
    if head[:2] == b"\x30\0" or (head[0] % 16 == 3 and looks_like_frame(frame)):
        walk.result.notes["etherip"] += 1
        walk.ethernet(frame)
    else:
        walk.payload(packet)


def eoip(walk: PlainWalk, packet: Layer, within: str | None) -> None:
    if packet.length < 8:
        walk.not_gre(packet, within)
        return
    size = int.from_bytes(packet.need(8, CUT)[4:6])
    if not 14 <= size <= packet.length - 8:
        walk.not_gre(packet, within)
        return
    walk.enter_gre(within)
    walk.result.notes["eoip"] += 1
    walk.ethernet(packet.after(8).limited(size))


def l2tp_in_ip(walk: PlainWalk, packet: Layer) -> None:
    if packet.length < 4:
        walk.payload(packet)
        return
    message = packet.after(4)
    if packet.need(4, CUT) == bytes(4):
        if len(message.data) >= 4 and _is_l2tp_control(message):
            walk.result.notes["tunnel_control"] += 1
        walk.payload(packet)
        return
    found = _session(walk, message)
    if found is None:
        walk.payload(packet)
    else:
        _inside(walk, found)


def ethernet_in_ip(walk: PlainWalk, packet: Layer) -> None:
    (walk.ethernet if looks_like_frame(packet) else walk.payload)(packet)


def mpls_in_ip(walk: PlainWalk, packet: Layer) -> None:
    (walk.mpls if looks_like_labels(packet) else walk.payload)(packet)


def udp_lite(walk: PlainWalk, segment: Layer) -> None:
    head = segment.need(8, Status.TRUNCATED_TRANSPORT, bad=Status.BAD_TRANSPORT)
    walk.ports(head)
    walk.result.fields["checksum"] = int.from_bytes(head[6:])
    walk.payload(segment.after(8))


def dccp(walk: PlainWalk, segment: Layer) -> None:
    head = segment.need(12, Status.TRUNCATED_TRANSPORT, bad=Status.BAD_TRANSPORT)
    size = 4 * head[4]
    if not (16 if head[8] % 2 else 12) <= size <= segment.length:
        raise Refused(Status.BAD_TRANSPORT)
    walk.ports(head)
    walk.result.fields["checksum"] = int.from_bytes(head[6:8])
    walk.payload(segment.after(size))


# above UDP


def _is_l2tp_control(message: Layer) -> bool:
    flags, size = struct.unpack(">HH", message.data[:4])
    return flags in (0xC802, 0xC803) and 12 <= size == message.length


def _session(walk: PlainWalk, message: Layer) -> tuple[int, Layer] | None:
    found = pseudowire(message)
    if found is None and not message.data and message.length > 0:
        raise Refused(CUT)
    walk.result.notes["tunnel_not_ip" if found is None else "l2tp"] += 1
    return found


def l2tp(walk: PlainWalk, datagram: Layer) -> None:
    if datagram.length < 8:
        _false(walk)
        return
    flags, second, third = struct.unpack(">HHI", datagram.need(8, CUT))
    if flags & 0x8000:
        if _is_l2tp_control(datagram):
            walk.result.notes["tunnel_control"] += 1
        else:
            _false(walk)
    elif flags % 16 == 2:
        _l2tp_data(walk, datagram, flags)
    elif flags == 3 and second == 0 and third:
        found = _session(walk, datagram.after(8))
        if found:
            walk.leave_udp()
            _inside(walk, found)
    else:
        _false(walk)


def _l2tp_data(walk: PlainWalk, datagram: Layer, flags: int) -> None:
    has_length, has_sequence, has_offset = (bool(flags & bit) for bit in (0x4000, 0x0800, 0x0200))
    size = 6 + 2 * has_length + 4 * has_sequence + 2 * has_offset
    if size >= datagram.length or flags & 0x34F0:
        _false(walk)
        return
    head = datagram.need(size, CUT)
    stated = int.from_bytes(head[2:4]) if has_length else datagram.length
    if has_offset:
        size += int.from_bytes(head[-2:])
    identifiers = head[4:8] if has_length else head[2:6]
    if bytes(2) in (identifiers[:2], identifiers[2:]) or not size < stated <= datagram.length:
        _false(walk)
        return
    content = datagram.limited(stated).after(size)
    try:
        found = packet_in_ppp(content)
    except Refused:
        if len(datagram.data) < stated:
            raise Refused(CUT) from None
        found = None
    if found is None:
        walk.result.notes["tunnel_not_ip"] += 1
    else:
        _enter(walk, "l2tp", found)


def tzsp(walk: PlainWalk, datagram: Layer) -> None:
    if datagram.length < 4:
        _false(walk)
        return
    version, kind = datagram.need(4, CUT)[:2]
    if version != 1 or kind > 5:
        _false(walk)
        return
    if kind > 1:
        walk.result.notes["tunnel_control"] += 1
        return
    found = tzsp_content(datagram)
    if found is None:
        _false(walk)
        return
    walk.result.notes["tzsp"] += 1
    walk.leave_udp()
    TZSP_FRAMES[found[0]](walk, found[1])


def capwap(walk: PlainWalk, datagram: Layer) -> None:
    if datagram.length < 8:
        _false(walk)
        return
    preamble, word, identification, position = struct.unpack(">BxHHH", datagram.need(8, CUT))
    if preamble == 1 and datagram.data[4] in (20, 21, 22, 23, 25):
        walk.result.notes["tunnel_control"] += 1
        return
    size = datagram.data[1] // 8 * 4
    native, fragment, keep_alive = (bool(word & bit) for bit in (0x100, 0x80, 0x08))
    contradicts = (
        preamble != 0
        or not 8 <= size <= datagram.length
        or word & 7
        or position & 7
        or (native and word >> 9 & 31 > 1)
        or (position and not fragment)
        or (fragment and walk.result.fields.get("fragment"))
    )
    if contradicts:
        _false(walk)
        return
    if keep_alive:
        walk.result.notes["tunnel_control"] += 1
        return
    content = datagram.after(size)
    if content.length == 0:
        _false(walk)
        return
    datagram.need(size + 1, CUT)
    if fragment:
        walk.result.fields.update(
            fragment_key=walk.fragment_key(identification + 2**32), fragment_start=content.at
        )
        if position:
            walk.result.notes["capwap_fragment"] += 1
            walk.payload(content)
            walk.result.fields.update(fragment=2, fragment_offset=position)
            raise Refused(Status.LATER_FRAGMENT)
    walk.result.notes["capwap"] += 1
    walk.leave_udp()
    if not native:
        walk.ethernet(content)
        return
    swapped_wlan(walk, content)


def gue(walk: PlainWalk, datagram: Layer) -> None:
    if datagram.length < 4:
        _false(walk)
        return
    first, protocol = datagram.need(4, CUT)[:2]
    found = None
    if first >> 6 == 1:
        version = inner_version(datagram)
        found = (version, datagram) if version else None
    elif first >> 6 == 0:
        size = 4 + 4 * (first % 32)
        if size > datagram.length:
            _false(walk)
            return
        if first & 0x20:
            walk.result.notes["tunnel_control"] += 1
            return
        content = datagram.after(size)
        if not content.data and content.length > 0:
            raise Refused(CUT)
        if protocol == 47:
            walk.gre(content, within="gue")
            return
        if protocol == 137 and looks_like_labels(content):
            walk.result.notes["gue"] += 1
            walk.leave_udp()
            walk.mpls(content)
            return
        if protocol in (4, 41):
            version = 4 if protocol == 4 else 6
            found = (version, content) if inner_version(content) == version else None
        if protocol == 97 and content.data[:2] == b"\x30\0":
            protocol, content = 143, content.after(2)
        if protocol == 143 and looks_like_frame(content):
            found = 0, content
    if found is None:
        _false(walk)
    else:
        _enter(walk, "gue", found)


def mpls_in_udp(walk: PlainWalk, datagram: Layer) -> None:
    if datagram.length < 4:
        _false(walk)
        return
    datagram.need(4, CUT)
    if not looks_like_labels(datagram):
        _false(walk)
        return
    walk.leave_udp()
    walk.mpls(datagram)


def gre_in_udp(walk: PlainWalk, datagram: Layer) -> None:
    if datagram.length < 4 or int.from_bytes(datagram.need(4, CUT)[:2]) & 0x4FFF:
        _false(walk)
    else:
        walk.gre(datagram, within="")


def lisp(walk: PlainWalk, datagram: Layer) -> None:
    if datagram.length <= 8:
        _false(walk)
        return
    flags = datagram.need(9, CUT)[0]
    version = inner_version(datagram.after(8))
    if version is None or flags & 3:
        _false(walk)
    else:
        _enter(walk, "lisp", (version, datagram.after(8)))


def ayiya(walk: PlainWalk, datagram: Layer) -> None:
    if datagram.length < 8:
        _false(walk)
        return
    identity, signature, operation, following = datagram.need(8, CUT)[:4]
    content = datagram.after(8 + 2 ** (identity // 16) + 4 * (signature // 16))
    if operation % 16 != 1 or following != 41 or content.length <= 0:
        _false(walk)
        return
    content.need(1, CUT)
    if fits(6, content):
        _enter(walk, "ayiya", (6, content))
    else:
        _false(walk)


PORTS = {
    1701: l2tp,
    4341: lisp,
    4754: gre_in_udp,
    5072: ayiya,
    5247: capwap,
    6080: gue,
    6635: mpls_in_udp,
    37008: tzsp,
}
ANSWERING_PORTS = {1701, 5072, 5247}
"""Ports whose tunnels are looked for in both directions."""

PROTOCOLS = {
    33: dccp,
    97: etherip,
    115: l2tp_in_ip,
    136: udp_lite,
    137: mpls_in_ip,
    143: ethernet_in_ip,
}
