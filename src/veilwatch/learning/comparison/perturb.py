"""What an attacker or a network may do to packets, done to the packets of captures.

Features come from the meter, so the traffic itself is changed and read again. Each capture is
taken out of its tunnels first (these change no feature), as raw IP packets, and written again;
`unchanged` goes the same way, so that a difference is the disturbance's own.
"""

from __future__ import annotations

import random
from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from veilwatch.schema.packets import Status
from veilwatch.traffic.capture import PcapngWriter, open_captures
from veilwatch.traffic.decode import Decoder

RAW_IP: Final = 101
"""LINKTYPE_RAW: a packet begins with its IP header."""

MAX_PACKETS: Final = 2_000
"""Packets taken of one capture, its first ones: a long capture must not cost more than all others
together, and the first packets of a flow are what detectors look at most closely."""

PAD_TO: Final = 256
"""Payloads are filled up to a multiple of so many bytes."""

DUMMY_SHARE: Final = 0.3
"""Packets with payload that a dummy follows."""

MAX_DUMMY_WAIT_NS: Final = 20_000_000
"""Longest time between a packet and its dummy; the flow's next packet is never overtaken."""

LOST_SHARE: Final = 0.03
"""Packets that do not reach the mirror."""

JITTER_NS: Final = 50_000_000
"""Longest wait of a packet, order within a flow kept."""

STRETCH: Final = 2
"""Factor on every pause of a flow."""

SNAP: Final = 96
"""Bytes kept of each packet: addresses, ports and flags, no handshake."""

HEAD_PACKETS: Final = 10
"""Packets of each flow before the verdict is asked for."""

MTU: Final = 1_280
"""Longest IP packet of the narrower link: what IPv6 guarantees (RFC 8200, 5)."""

WHOLE_MTU: Final = 1_500
"""Longest IP packet that padding and dummies make: no sender exceeds its own link."""

_TCP: Final = 6
_UDP: Final = 17
_AUTHENTICATION: Final = 51
_NAME_PORTS: Final = frozenset({53, 137, 5353})
_U32: Final = 2**32


@dataclass(frozen=True, slots=True)
class Packet:
    """One innermost IP packet.

    Attributes
    ----------
    ts_ns
        Packet time.
    data
        As captured, from the IP header on.
    length
        Of the IP packet on the wire, bytes.
    flow, forward
        The flow it belongs to, and which of its two directions.
    protocol
        Of the upper layer; 0 for a fragment, of which nothing is changed.
    transport, payload
        Where the upper layer's header and its payload begin in `data`.
    seq, ack
        TCP's numbers.
    """

    ts_ns: int
    data: bytes
    length: int
    flow: tuple[int, ...]
    forward: bool
    protocol: int
    transport: int
    payload: int
    seq: int
    ack: int

    @property
    def room(self) -> int:
        """Payload on the wire, bytes."""
        return self.length - self.payload

    @property
    def content(self) -> bytes:
        """Payload as far as it was captured."""
        return self.data[self.payload :]


Packets = list[Packet]


def read_packets(path: Path, most: int = MAX_PACKETS) -> Packets:
    """Return the innermost IP packets of a capture, in its order.

    Raises
    ------
    CaptureError
        If the capture cannot be read.
    """
    out: Packets = []
    decoder = Decoder()
    with open_captures([path]) as stream:
        for block in stream:
            packets = decoder.decode(block).packets
            ends = block.records["offset"] + block.records["captured"]
            for p, end in zip(packets, ends.tolist(), strict=True):
                if p["status"] in (Status.OK, Status.LATER_FRAGMENT):
                    out.append(_packet(block.buffer, p, end))
                if len(out) == most:
                    return out
    return out


def _packet(buffer: Any, p: Any, end: int) -> Packet:
    names = ("src_hi", "src_lo", "src_port", "dst_hi", "dst_lo", "dst_port")
    ends = tuple(int(p[name]) for name in names)
    source, target = ends[:3], ends[3:]
    start, length, protocol = int(p["ip_offset"]), int(p["ip_length"]), int(p["protocol"])
    data = bytes(buffer[start : min(end, start + length)])
    transport = payload = 0
    whole = not p["fragment"] and protocol in (_TCP, _UDP)
    if whole:
        transport = _upper(data)
        payload = transport + (8 if protocol == _UDP else (data[transport + 12] >> 4) * 4)
        whole = payload <= len(data)
    if whole and protocol == _UDP:
        # What follows a datagram that is shorter than its IP packet is no payload.
        length = payload + int(p["payload_length"])
        data = data[:length]
    return Packet(
        int(p["ts_ns"]),
        data,
        length,
        (protocol, *min(source, target), *max(source, target)),
        source <= target,
        protocol if whole else 0,
        transport,
        payload,
        int(p["tcp_seq"]),
        int(p["tcp_ack"]),
    )


def _upper(data: bytes) -> int:
    """Return where TCP or UDP begins; the decoder has followed the same headers to their end."""
    kind, at = (data[9], (data[0] & 15) * 4) if data[0] >> 4 == 4 else (data[6], 40)
    while kind not in (_TCP, _UDP):
        size = (data[at + 1] + 2) * 4 if kind == _AUTHENTICATION else (data[at + 1] + 1) * 8
        kind, at = data[at], at + size
    return at


def write_packets(path: Path, packets: Sequence[Packet]) -> None:
    """Write packets as a raw IP capture, in the order of their times."""
    with PcapngWriter(path, link=RAW_IP) as writer:
        for packet in sorted(packets, key=lambda p: p.ts_ns):
            writer.write(packet.ts_ns, packet.data, packet.length)


@dataclass(slots=True)
class _Stream:
    """What was put into one direction of a TCP connection, and where."""

    base: int
    ends: list[int] = field(default_factory=list)
    added: dict[int, int] = field(default_factory=dict)
    seen: int = 0

    def place(self, number: int) -> int:
        """Return a sequence number as an offset in the original stream, also a negative one."""
        return (number - self.base + _U32 // 2) % _U32 - _U32 // 2

    def insert(self, end: int, count: int) -> None:
        """Put bytes behind those that end at `end`."""
        if count and end not in self.added:
            insort(self.ends, end)
            self.added[end] = count

    def moved(self, number: int) -> int:
        """Return what a sequence number of the original stream has become."""
        before = self.ends[: bisect_right(self.ends, self.place(number))]
        return (number + sum(self.added[end] for end in before)) % _U32


class _Sender:
    """Adds payload where an application could have, and keeps TCP's numbers right.

    Bytes are added where a peer that understands the protocol would not mind: never to names
    (DNS), handshakes of TLS and QUIC, nor to the first payload of a direction.
    """

    def __init__(self) -> None:
        self._streams: dict[tuple[tuple[int, ...], bool], _Stream] = {}
        self._begun: dict[tuple[tuple[int, ...], bool], bool] = {}

    def may_add(self, packet: Packet) -> bool:
        """Whether the sender could have sent more with this packet; ask once for each."""
        if packet.protocol == 0 or packet.room <= 0:
            return False
        content = packet.content
        if packet.protocol == _UDP:
            ports = {packet.flow[3], packet.flow[6]}
            quic = 443 in ports and content[:1] >= b"\x80"
            return not (ports & _NAME_PORTS or quic)
        way = packet.flow, packet.forward
        if way not in self._begun:
            self._begun[way] = content[:2] != b"\x16\x03"
            return False
        if not self._begun[way]:
            self._begun[way] = content[:2] == b"\x17\x03"
        return self._begun[way]

    def is_new(self, packet: Packet) -> bool:
        """Whether nothing of what a packet carries, or of what follows, was seen; ask in order."""
        if packet.protocol != _TCP:
            return True
        stream = self._stream(packet.flow, packet.forward, packet.seq)
        place = stream.place(packet.seq)
        new, stream.seen = place >= stream.seen, max(stream.seen, place + packet.room)
        return new

    def insert(self, packet: Packet, count: int) -> None:
        """Have `count` bytes follow the payload of a packet."""
        if packet.protocol == _TCP:
            stream = self._stream(packet.flow, packet.forward, packet.seq)
            stream.insert(stream.place(packet.seq) + packet.room, count)

    def renumbered(self, packet: Packet) -> Packet:
        """Return a packet with the TCP numbers that it has after all that was inserted."""
        if packet.protocol != _TCP:
            return packet
        own = self._stream(packet.flow, packet.forward, packet.seq)
        seq, ack = own.moved(packet.seq), packet.ack
        other = self._streams.get((packet.flow, not packet.forward))
        if other is not None:
            ack = other.moved(ack)
        return replace(packet, data=_numbered(packet, seq, ack), seq=seq, ack=ack)

    def _stream(self, flow: tuple[int, ...], forward: bool, seq: int) -> _Stream:
        return self._streams.setdefault((flow, forward), _Stream(seq))


def _numbered(packet: Packet, seq: int, ack: int) -> bytes:
    at = packet.transport
    numbers = seq.to_bytes(4, "big") + ack.to_bytes(4, "big")
    return packet.data[: at + 4] + numbers + packet.data[at + 12 :]


def _resized(packet: Packet, content: bytes, room: int, chance: random.Random) -> Packet:
    """Return a packet with another payload of `room` bytes, of which `content` was captured."""
    header = bytearray(packet.data[: packet.payload])
    length = packet.payload + room
    if header[0] >> 4 == 4:
        header[2:4] = length.to_bytes(2, "big")
        header[4:6] = chance.randbytes(2)  # another packet has another identification
    else:
        header[4:6] = (length - 40).to_bytes(2, "big")
    if packet.protocol == _UDP:
        header[packet.transport + 4 : packet.transport + 6] = (room + 8).to_bytes(2, "big")
    check = packet.transport + (16 if packet.protocol == _TCP else 6)
    header[check : check + 2] = chance.randbytes(2)
    return replace(packet, data=bytes(header) + content, length=length)


def _unchanged(packets: Packets, _chance: random.Random) -> Iterator[Packet]:
    yield from packets


def _padded(packets: Packets, chance: random.Random) -> Iterator[Packet]:
    sender = _Sender()
    fills = []
    for packet in packets:
        fill = 0
        if sender.may_add(packet):
            fill = min(-packet.room % PAD_TO, max(WHOLE_MTU - packet.length, 0))
        sender.insert(packet, fill)
        fills.append(fill)
    # Numbers only now: what was lost and sent again moves what was seen before it, too.
    for packet, fill in zip(packets, fills, strict=True):
        out = sender.renumbered(packet)
        if fill:
            whole = len(packet.content) == packet.room
            content = packet.content + (chance.randbytes(fill) if whole else b"")
            out = _resized(out, content, packet.room + fill, chance)
        yield out


def _with_dummies(packets: Packets, chance: random.Random) -> Iterator[Packet]:
    sender = _Sender()
    rooms = []
    for packet in packets:
        # Nothing follows what is sent a second time that did not follow it the first time.
        adds = sender.may_add(packet) and sender.is_new(packet) and chance.random() < DUMMY_SHARE
        room = chance.randrange(64, 1_200) if adds else 0
        sender.insert(packet, room)
        rooms.append(room)
    for packet, following, room in zip(packets, _following(packets), rooms, strict=True):
        out = sender.renumbered(packet)
        yield out
        if room:
            wait = chance.randrange(1 + min(following - out.ts_ns, MAX_DUMMY_WAIT_NS))
            later = replace(out, ts_ns=out.ts_ns + wait)
            if packet.protocol == _TCP:
                seq = (out.seq + out.room) % _U32
                later = replace(later, seq=seq, data=_numbered(later, seq, out.ack))
            yield _resized(later, chance.randbytes(min(room, 64)), room, chance)


def _following(packets: Packets) -> list[int]:
    """Return when the next packet of each packet's flow comes, at least the packet's own time."""
    ahead: dict[tuple[int, ...], int] = {}
    out = []
    for packet in reversed(packets):
        following = ahead.get(packet.flow, packet.ts_ns + MAX_DUMMY_WAIT_NS)
        out.append(max(following, packet.ts_ns))
        ahead[packet.flow] = packet.ts_ns
    return out[::-1]


def _late(packets: Packets, chance: random.Random) -> Iterator[Packet]:
    latest: dict[tuple[int, ...], int] = defaultdict(int)
    for packet in packets:
        ts_ns = max(packet.ts_ns + chance.randrange(JITTER_NS), latest[packet.flow])
        latest[packet.flow] = ts_ns
        yield replace(packet, ts_ns=ts_ns)


def _slowed(packets: Packets, _chance: random.Random) -> Iterator[Packet]:
    first: dict[tuple[int, ...], int] = {}
    for packet in packets:
        began = first.setdefault(packet.flow, packet.ts_ns)
        yield replace(packet, ts_ns=began + (packet.ts_ns - began) * STRETCH)


def _lossy(packets: Packets, chance: random.Random) -> Iterator[Packet]:
    return (packet for packet in packets if chance.random() >= LOST_SHARE)


def _cut(packets: Packets, _chance: random.Random) -> Iterator[Packet]:
    return (replace(packet, data=packet.data[:SNAP]) for packet in packets)


def _heads(packets: Packets, _chance: random.Random) -> Iterator[Packet]:
    seen: dict[tuple[int, ...], int] = defaultdict(int)
    for packet in packets:
        seen[packet.flow] += 1
        if seen[packet.flow] <= HEAD_PACKETS:
            yield packet


def _narrowed(packets: Packets, chance: random.Random) -> Iterator[Packet]:
    for packet in packets:
        if packet.length <= MTU or packet.protocol == 0:
            yield packet
        elif packet.protocol == _TCP:
            yield from _segments(packet, chance)
        elif packet.data[0] >> 4 == 4:
            yield from _fragments(packet)
        else:
            yield packet  # a sender over IPv6 would have sent smaller ones; nobody fragments them


def _segments(packet: Packet, chance: random.Random) -> Iterator[Packet]:
    """Cut a TCP segment; what ends the data (FIN, PSH) stays with the last piece.

    The pieces bear one time, as those that a network card cuts and hands over together do.
    """
    step = MTU - packet.payload
    flags = packet.transport + 13
    for start in range(0, packet.room, step):
        room = min(step, packet.room - start)
        seq = (packet.seq + start) % _U32
        piece = replace(packet, data=_numbered(packet, seq, packet.ack), seq=seq)
        piece = _resized(piece, packet.content[start : start + room], room, chance)
        data = bytearray(piece.data)
        if start + room < packet.room:
            data[flags] &= 0xF6
        yield replace(piece, data=bytes(data))


def _fragments(packet: Packet) -> Iterator[Packet]:
    """Fragment a UDP datagram over IPv4 (RFC 791, 3.2)."""
    header, step = packet.transport, (MTU - packet.transport) // 8 * 8
    whole = packet.length - header
    for start in range(0, whole, step):
        room = min(step, whole - start)
        more = 0x2000 if start + room < whole else 0
        data = bytearray(packet.data[:header] + packet.data[header + start : header + start + room])
        data[2:4] = (header + room).to_bytes(2, "big")
        data[6:8] = (more | start // 8).to_bytes(2, "big")
        yield replace(packet, data=bytes(data), length=header + room)


@dataclass(frozen=True, slots=True)
class Perturbation:
    """Something that happens to traffic.

    Attributes
    ----------
    doc
        What happens, in words.
    change
        Does it to packets in the order of their times, with all chance from the generator.
    """

    doc: str
    change: Callable[[Packets, random.Random], Iterator[Packet]]


UNCHANGED: Final = "unchanged"

PERTURBATIONS: Final[dict[str, Perturbation]] = {
    UNCHANGED: Perturbation("taken out of tunnels and written again", _unchanged),
    "padding": Perturbation(f"payloads filled up to a multiple of {PAD_TO} bytes", _padded),
    "dummies": Perturbation(f"a dummy after {100 * DUMMY_SHARE:.0f} % of packets", _with_dummies),
    "jitter": Perturbation(f"packets late by up to {JITTER_NS // 10**6} ms", _late),
    "delay": Perturbation(f"every pause {STRETCH} times as long", _slowed),
    "loss": Perturbation(f"{100 * LOST_SHARE:.0f} % of packets missing", _lossy),
    "cut": Perturbation(f"packets cut after {SNAP} bytes", _cut),
    "head": Perturbation(f"only the first {HEAD_PACKETS} packets of a flow", _heads),
    "mtu": Perturbation(f"a link of {MTU} bytes: segments cut, datagrams fragmented", _narrowed),
}
"""What is tried, by name."""


def perturb(packets: Packets, name: str, seed: int) -> Packets:
    """Return what a perturbation makes of packets; equal seeds give equal packets.

    Examples
    --------
    >>> perturb([], "loss", 1)
    []
    """
    chance = random.Random(f"{seed}/{name}")  # noqa: S311 - no secret hangs on it
    return list(PERTURBATIONS[name].change(packets, chance))
