"""A plain-Python flow meter to test the real one against.

It keeps every packet of a flow in a list and computes the record from the lists when the flow
ends. Nothing here is shared with the kernels but the names of the schema.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.traffic.flow import file_messages
from veilwatch.schema.flows import (
    FILE_MESSAGES,
    FLOW_RECORD_DTYPE,
    GAP_EDGES_NS,
    HEAD_BYTES,
    MAX_DATAGRAMS,
    MAX_HOLES,
    PREFIX_BYTES,
    SEQUENCE_DTYPE,
    SIZE_EDGES,
    EndReason,
    TcpState,
)
from veilwatch.traffic.flow import InterimPoints, MeterConfig

NS = 10**9
FIN, SYN, RST, ACK = 1, 2, 4, 16
ENDED = TcpState.FIN_FWD | TcpState.FIN_BWD | TcpState.RST
TCP, UDP = 6, 17
DTLS_OVER = (UDP, 33, 136)
OK, LATER_FRAGMENT = 0, 7
BARE = "outside tunnels"

TunnelEnd = tuple[tuple[int, int], int]
"""Address, as two words, and TEID: where a tunnel leads."""
WINDOW, INSTANT = NS // 20, NS // 1000
DAY, CONFIRM, MANY = 86_400 * NS, 4, 64
MOST_TWINS = 32
NEAR, NEARER = 2**20, 2**16
DNS_PORTS = {53, 5353, 5355}
START_WITHIN = 16
READY_AFTER, READY_AT_LAST = 32, 1024
UDP_START_WITHIN, UDP_READY_AFTER = 128, 64
GUESS_PACKETS = 4
NO, MAYBE, YES = 0, 1, 2
NEW, AHEAD, FILLS, OLD, ASIDE, PROBE = range(6)
UNKNOWN, SEEN, ANCHORED = range(3)
FAR_AHEAD, FAR_BEHIND = 2**26, 2**27
LATE_SYN, LATE_SYN_NS = 65_535, NS
EARLIER_PACKETS = 64
PROXY_TEXT, PROXY_BINARY = b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n"


@dataclass(frozen=True)
class Packet:
    """A row of PACKET_DTYPE with its payload."""

    row: dict[str, int]
    payload: bytes

    def __getattr__(self, name: str) -> int:
        return self.row[name]

    @property
    def sender(self) -> tuple[int, int, int]:
        return self.src_hi, self.src_lo, self.src_port

    @property
    def receiver(self) -> tuple[int, int, int]:
        return self.dst_hi, self.dst_lo, self.dst_port

    @property
    def outer(self) -> list[tuple[int, int]]:
        return [(self.outer_src_hi, self.outer_src_lo), (self.outer_dst_hi, self.outer_dst_lo)]

    @property
    def tunnel(self) -> TunnelEnd | str:
        return (self.outer[1], self.gtp_teid) if self.gtp_depth else BARE

    @property
    def pair(self) -> Hashable:
        return frozenset(self.outer) if self.gtp_depth else BARE

    @property
    def key(self) -> Hashable:
        return self.ip_version, self.protocol, frozenset([self.sender, self.receiver])

    @property
    def content(self) -> Hashable:
        """What copies of the packet have in common."""
        names = ("tcp_seq", "tcp_ack", "ip_id", "ip_length", "checksum", "tcp_window", "tcp_flags")
        shown = None if self.protocol == TCP else (self.payload[:16], self.payload_length)
        return self.key, self.sender, shown, *(self.row[name] for name in names)

    @property
    def place(self) -> Hashable:
        """Where the packet was captured."""
        return self.tunnel, self.pair, self.vlan, self.ttl, self.source, self.interface

    def stamped(self, ts_ns: int) -> Packet:
        """The same packet at another time."""
        return Packet(self.row | {"ts_ns": ts_ns}, self.payload)

    @property
    def is_syn(self) -> bool:
        return self.protocol == TCP and self.tcp_flags & (SYN | ACK) == SYN

    @property
    def is_syn_ack(self) -> bool:
        return self.protocol == TCP and self.tcp_flags & (SYN | ACK) == SYN | ACK


@dataclass
class Head:
    """Stream bytes by position, the first copy of each."""

    base: int
    floating: bool = False
    sure: bool = False
    content: dict[int, int] = field(default_factory=dict)

    @property
    def reach(self) -> int:
        return max(self.content, default=-1) + 1

    def move(self, distance: int) -> None:
        """Count positions from `distance` bytes earlier on."""
        self.base = (self.base - distance) % 2**32
        moved = {position + distance: byte for position, byte in self.content.items()}
        self.content = {p: byte for p, byte in moved.items() if 0 <= p < HEAD_BYTES}

    def put(self, sequence: int, payload: bytes) -> None:
        start = signed(sequence - self.base)
        for position, byte in enumerate(payload, start):
            if 0 <= position < HEAD_BYTES:
                self.content.setdefault(position, byte)

    def stream(self) -> bytes:
        whole = itertools.takewhile(self.content.__contains__, itertools.count())
        return bytes(map(self.content.__getitem__, whole))


@dataclass
class Datagrams:
    """Datagrams in the order in which they came, as far as there is room."""

    begun: int  # after how many payload packets of the flow
    kept: list[bytes] = field(default_factory=list)
    sure = True

    @property
    def full(self) -> bool:
        return len(self.stream()) + 2 >= HEAD_BYTES or len(self.kept) >= MAX_DATAGRAMS

    def put(self, payload: bytes) -> None:
        wanted = payload[: HEAD_BYTES - len(self.stream()) - 2]
        if not self.full and wanted and wanted not in self.kept:
            self.kept.append(wanted)

    def extend(self, position: int, payload: bytes) -> None:
        if self.kept and position == len(self.kept[-1]):
            self.kept[-1] += payload[: HEAD_BYTES - len(self.stream())]

    def stream(self) -> bytes:
        return b"".join(len(payload).to_bytes(2, "big") + payload for payload in self.kept)


@dataclass
class Stream:
    """What is known of the bytes of one direction; sequence numbers all are modulo 2^32."""

    known: int = UNKNOWN
    base: int = 0
    next: int = 0
    fin: int = 0
    far: tuple[int, int] = (0, 0)
    holes: list[tuple[int, int]] = field(default_factory=list)
    first: dict[int, int] = field(default_factory=dict)  # bytes by position from `base` + `skip` on
    skip: int = 0

    def begin(self, start: int, known: int) -> None:
        self.base, self.known, self.first, self.skip = start, known, {}, 0

    def begin_earlier(self, start: int, there_until: int) -> None:
        distance = signed(self.base - start)
        if signed(self.base - there_until) > 0:
            self.miss(there_until, self.base, at=0)
        if distance >= PREFIX_BYTES or (distance and self.skip):
            self.begin(start, self.known)
        self.base = start
        self.first = {p + distance: b for p, b in self.first.items() if p + distance < PREFIX_BYTES}

    def miss(self, start: int, end: int, at: int | None = None) -> None:
        """Remember a hole; beyond the bound the lowest is forgotten."""
        self.holes.insert(len(self.holes) if at is None else at, (start, end))
        del self.holes[: max(0, len(self.holes) - MAX_HOLES)]

    def fill(self, start: int, length: int) -> int:
        """Cut bytes out of the holes; return how many lay in one."""
        left, filled = [], 0
        for low, high in self.holes:
            size, offset = signed(high - low), signed(start - low)
            inside = range(max(offset, 0), min(offset + length, size))
            filled += len(inside)
            parts = [(0, inside.start), (inside.stop, size)] if inside else [(0, size)]
            left += [((low + a) % 2**32, (low + b) % 2**32) for a, b in parts if a < b]
        self.holes = left[max(0, len(left) - MAX_HOLES) :]
        return filled

    def keep(self, sequence: int, payload: bytes) -> None:
        """Keep the first bytes."""
        start = signed(sequence - self.base) - self.skip
        for position, byte in enumerate(payload, start):
            if 0 <= position < PREFIX_BYTES:
                self.first.setdefault(position, byte)

    def append(self, payload: bytes) -> None:
        """Keep the first bytes of what has no sequence numbers."""
        for byte in payload[: PREFIX_BYTES - len(self.first)]:
            self.first[len(self.first)] = byte

    @property
    def prefix_used(self) -> int:
        return next(i for i in range(PREFIX_BYTES + 1) if i not in self.first)


@dataclass
class Connection:
    """What outlives the record when the active timeout cuts a flow."""

    initiator: tuple[int, int, int]
    responder: tuple[int, int, int]
    outer: list[tuple[int, int]]
    gtp_depth: int
    opening: Packet
    parent_id: int
    pair: Hashable
    tunnels: list[Hashable]  # of each direction, None before it was seen
    alternate: Hashable = None
    moved: list[bool] = field(default_factory=lambda: [False, False])
    shown: list[tuple[int, int, int]] = field(default_factory=lambda: [(0, 255, 255)] * 2)
    session: int = 0
    syn_seq: int = 0
    state: int = 0
    sent: list[list[Packet]] = field(default_factory=lambda: [[], []])
    # Of each direction, the first packet of the latest record that has one.
    marks: list[Packet | None] = field(default_factory=lambda: [None, None])
    streams: list[Stream] = field(default_factory=lambda: [Stream(), Stream()])
    turned: bool = False
    heads: list[Head | Datagrams | None] = field(default_factory=lambda: [None, None])
    head_done: bool = False
    # Of each direction, the 16-bit identifications of what was no copy, and whether one that is
    # equal to the one before tells something.
    identified: list[list[tuple[int, bool]]] = field(default_factory=lambda: [[], []])

    def varies(self, direction: int) -> bool:
        """Whether the sender changes the identification more often than not."""
        pairs = list(itertools.pairwise(self.identified[direction]))
        changes = sum(before != now for (before, _), (now, _) in pairs)
        repeats = sum(before == now and tells for (before, _), (now, tells) in pairs)
        return min(changes, 255) > min(repeats, 255)

    def turn(self) -> None:
        """Let initiator and responder change places."""
        self.initiator, self.responder = self.responder, self.initiator
        for pair in (
            *(self.outer, self.tunnels, self.moved, self.shown, self.sent, self.marks),
            *(self.streams, self.heads, self.identified),
        ):
            assert isinstance(pair, list)
            pair.reverse()
        ends = self.state & (TcpState.FIN_FWD | TcpState.FIN_BWD)
        self.state &= ~ends
        if ends in (TcpState.FIN_FWD, TcpState.FIN_BWD):
            ends ^= TcpState.FIN_FWD | TcpState.FIN_BWD
        self.state |= ends
        self.turned = not self.turned

    def show(self, direction: int, packet: Packet) -> None:
        self.shown[direction] = packet.gtp_teid, packet.gtp_qfi, packet.gtp_pdu_type


@dataclass(eq=False)
class Flow:
    """One record in the making: packets with their direction in the order they came."""

    flow_id: int
    connection: Connection
    first: Packet
    packets: list[tuple[Packet, int]] = field(default_factory=list)
    retransmissions: list[int] = field(default_factory=lambda: [0, 0])
    out_of_order: list[int] = field(default_factory=lambda: [0, 0])
    keep_alives: list[int] = field(default_factory=lambda: [0, 0])
    stream_bytes: list[int] = field(default_factory=lambda: [0, 0])
    duplicates: list[int] = field(default_factory=lambda: [0, 0])
    fragments: list[int] = field(default_factory=lambda: [0, 0])
    file_messages: Counter[str | None] = field(default_factory=Counter)
    handovers: int = 0
    alive: bool = True

    def turn(self) -> None:
        self.connection.turn()
        self.packets = [(packet, 1 - direction) for packet, direction in self.packets]
        for pair in (
            *(self.retransmissions, self.out_of_order, self.keep_alives, self.stream_bytes),
            *(self.duplicates, self.fragments),
        ):
            pair.reverse()

    @property
    def last_ns(self) -> int:
        return max(p.ts_ns for p, _ in self.packets)

    @property
    def age_ns(self) -> int:
        """From the first packet to the latest."""
        return self.last_ns - self.first.ts_ns if self.packets else 0

    @property
    def closed(self) -> bool:
        both = TcpState.FIN_FWD | TcpState.FIN_BWD
        state = self.connection.state
        return state & both == both or bool(state & TcpState.RST)

    def move(self, shift: int) -> None:
        """Move all packets in time, but not before the epoch."""
        if not self.alive:
            return
        own = max(shift, -self.first.ts_ns)
        self.first = self.first.stamped(self.first.ts_ns + own)
        self.packets = [(p.stamped(p.ts_ns + own), d) for p, d in self.packets]

    def direction(self, packet: Packet) -> int:
        return 0 if packet.sender == self.connection.initiator else 1

    def sent(self, direction: int) -> list[Packet]:
        return [p for p, d in self.packets if d == direction]


@dataclass
class Memory:
    """A packet that a copy will be known by."""

    packet: Packet
    flow: Flow

    def is_copy(self, packet: Packet) -> bool:
        apart = abs(packet.ts_ns // 1000 - self.packet.ts_ns // 1000) * 1000
        if packet.content != self.packet.content or apart > WINDOW:
            return False
        one, other = self.packet, packet
        relayed = one.outer[1] == other.outer[0] or other.outer[1] == one.outer[0]
        same = (one.tunnel, one.outer) == (other.tunnel, other.outer)
        if BARE not in (one.tunnel, other.tunnel) and not (same or relayed):
            return False
        if packet.place != self.packet.place:
            return True
        if packet.ip_id and self.flow.connection.varies(self.flow.direction(packet)):
            return True
        numbered = packet.payload_length > 0 or (packet.ip_id and packet.tcp_flags & (SYN | FIN))
        return packet.protocol == TCP and bool(numbered) and apart < INSTANT


@dataclass
class Clock:
    """The time that packets agree on; what is far from it is doubted until others confirm it."""

    near: int
    seen: list[int] = field(default_factory=list)  # what confirmed the clock, of late
    doubted: list[int] = field(default_factory=list)  # in a row, all of them
    run: list[int] = field(default_factory=list)  # the last of these that follow one another
    fresh: list[Flow] = field(default_factory=list)  # opened before the clock was confirmed
    opened: list[Flow] = field(default_factory=list)  # by the run

    @property
    def now(self) -> int | None:
        return self.seen[-1] if self.seen else None

    @property
    def sure(self) -> bool:
        return len(self.seen) >= CONFIRM

    @property
    def shift(self) -> int:
        """From the clock to the run, where that is too far to believe packets' stamps."""
        away = self.run[0] - self.seen[-1] if self.run else 0
        return away if abs(away) > max(DAY, self.near) else 0

    def take(self, time: int) -> str:
        """Take in a stamp; say what is to be thought of it."""
        if self.now is None or abs(time - self.now) <= self.near:
            self.seen.append(time)
            self.fresh = [] if self.sure else self.fresh + self.opened
            self.doubted, self.run, self.opened = [], [], []
            return "steady"
        if not (self.run and -self.near <= time - max(self.run) <= DAY):
            self.fresh = [] if self.sure else self.fresh + self.opened
            self.run, self.opened = [], []
        self.run.append(time)
        self.doubted.append(time)
        growing = sum(latest > max(self.run[:k]) for k, latest in enumerate(self.run) if k > 0)
        agree = 1 + growing
        if agree < CONFIRM and agree <= len(self.seen[-CONFIRM:]) and len(self.doubted) < MANY:
            return "doubted"
        self.turn(time, agree)
        return "turned"

    def turn(self, time: int, agree: int) -> None:
        """Follow the run."""
        shift = self.shift
        for flow in self.opened if self.sure else self.fresh + self.opened:
            flow.move(shift)
        keep = shift != 0 and agree < CONFIRM
        self.fresh = self.fresh + self.opened if keep else []
        self.seen = [time] * min(agree, CONFIRM)
        self.doubted, self.run, self.opened = [], [], []


@dataclass
class Expected:
    """A first fragment and whose it is."""

    packet: Packet
    flow: Flow
    direction: int
    turned: bool


@dataclass(frozen=True)
class EmittedHead:
    flow_id: int
    first_ns: int
    ports: tuple[int, int]
    protocol: int
    streams: tuple[bytes, bytes]


@dataclass(frozen=True)
class Report:
    """A live flow as it was after packet number `packet` of the input."""

    packet: int
    record: np.ndarray
    sequence: Any
    streams: tuple[bytes, bytes] | None  # None where the heads had been handed on


class Oracle:
    """The same rules as `FlowMeter`, slowly and obviously."""

    def __init__(
        self,
        config: MeterConfig,
        place: Callable[[Packet], Hashable] = lambda packet: packet.content,
        sessions: Mapping[TunnelEnd, int] | None = None,
        early: InterimPoints | None = None,
    ) -> None:
        """`place` says where a packet is remembered until another takes its place."""
        self.config = config
        self.place = place
        self.sessions = sessions or {}
        self.live: dict[Hashable, list[Flow]] = {}  # newest first
        self.memory: dict[Hashable, Memory] = {}
        self.expected: dict[int, Expected] = {}
        self.partners: dict[Hashable, Hashable] = {}
        self.seen_twice = self.ambiguous = self.followed = 0
        # Oldest touch first. A flow is in one of the two.
        self.open: OrderedDict[Flow, None] = OrderedDict()
        self.closing: OrderedDict[Flow, None] = OrderedDict()
        self.collecting: list[tuple[Flow, int]] = []  # oldest first
        self.ids = itertools.count(1)
        self.records: list[np.ndarray] = []
        self.sequences: list[Any] = []
        self.heads: list[EmittedHead] = []
        self.heads_cut = self.evicted = 0
        self.points = early
        self.reports: list[Report] = []
        self.taken = -1
        self.clock = Clock(int(config.idle_timeout_s * NS))

    def add(self, packets: Iterable[Packet]) -> None:
        for packet in packets:
            self.taken += 1
            if packet.status not in (OK, LATER_FRAGMENT):
                continue
            kind = self.clock.take(packet.ts_ns)
            if kind == "doubted":
                packet = packet.stamped(max(packet.ts_ns - self.clock.shift, 0))
            if packet.status == OK:
                self._one(packet, kind)
            else:
                self._fragment(packet)

    def finish(self) -> None:
        clock = self.clock
        agree = 1 + sum(b > max(clock.run[: k + 1]) for k, b in enumerate(clock.run[1:]))
        if clock.run and (clock.shift == 0 or agree > 1):
            for flow in clock.opened:
                flow.move(clock.shift)
            clock.seen = [max(clock.run)]
        if clock.now is not None:
            self._expire(clock.now)
        while self.open or self.closing:
            oldest = [next(iter(ages)) for ages in (self.closing, self.open) if ages]
            flow = min(oldest, key=lambda f: f.last_ns)
            self._end(flow, EndReason.CLOSED if flow in self.closing else EndReason.END)

    def _expire(self, now: int) -> None:
        for ages in (self.closing, self.open):
            while ages and self._is_over(flow := next(iter(ages)), now):
                self._end(flow, self._silence(flow))

    def _one(self, packet: Packet, kind: str) -> None:
        if kind != "doubted":
            self._expire(packet.ts_ns)
        memory = self.memory.get(self.place(packet))
        if memory and memory.is_copy(packet):
            self._copy(memory, packet)
            return
        repeated = memory is not None and memory.packet.content == packet.content
        flow = self._find(packet)
        if flow is not None:
            if self._is_over(flow, packet.ts_ns):
                self._end(flow, self._silence(flow))
                flow = None
            elif is_reuse(flow, packet):
                self._end(flow, EndReason.REUSED)
                flow = None
            elif packet.ts_ns - flow.first.ts_ns > self.config.active_timeout_s * NS:
                self._emit(flow, EndReason.ACTIVE)
                flow = self._continue(flow, packet)
            if flow is not None and is_turned(flow, packet):
                flow.turn()
                self.collecting = [(f, d ^ (f is flow)) for f, d in self.collecting]
        elif len(self.live.get(packet.key, [])) >= MOST_TWINS:
            self._end(self.live[packet.key][-1], EndReason.EVICTED)
            self.evicted += 1
        if flow is None:
            flow = self._open(packet)
            if kind == "doubted":
                self.clock.opened += [flow] if self.clock.shift else []
            elif not self.clock.sure:
                self.clock.fresh.append(flow)
        direction = flow.direction(packet)
        age_before = flow.age_ns
        flow.connection.session = self._session(packet) or flow.connection.session
        self._adopt(flow, direction, packet)
        if packet.ip_id % 2**16:
            told = packet.ip_id % 2**16, not repeated
            flow.connection.identified[direction].append(told)
        self.memory[self.place(packet)] = Memory(packet, flow)
        if packet.fragment_key:
            self.expected[packet.fragment_key] = Expected(
                *(packet, flow, direction, flow.connection.turned)
            )
        self._update(flow, packet)
        self.open.pop(flow, None)
        self.closing.pop(flow, None)
        (self.closing if flow.closed else self.open)[flow] = None
        self._report(flow, age_before)

    def _report(self, flow: Flow, age_before: int) -> None:
        """Copy a flow where its latest packet reached a point."""
        if self.points is None:
            return
        limit = self.points.age_s
        aged = limit is not None and age_before < limit * NS <= flow.age_ns
        if not aged and len(flow.packets) not in self.points.packets:
            return
        connection = flow.connection
        first, second = (sure_stream(head) for head in connection.heads)
        record = make_record(flow, EndReason.EARLY)
        record["sequence_used"] = min(len(flow.packets), self.config.sequence_length)
        self.reports.append(
            Report(
                self.taken,
                record,
                make_sequence(flow, self.config.sequence_length),
                None if connection.head_done else (first, second),
            )
        )

    def _session(self, packet: Packet) -> int:
        tunnel = packet.tunnel
        return 0 if isinstance(tunnel, str) else self.sessions.get(tunnel, 0)

    def _find(self, packet: Packet) -> Flow | None:
        """The flow whose tunnel makes it the likeliest, of equally likely ones the latest."""
        degrees = [(self._kinship(flow, packet), flow) for flow in self.live.get(packet.key, [])]
        best = max((degree for degree, _ in degrees), default=0)
        if best == 0:
            return None
        likely = [flow for degree, flow in degrees if degree == best]
        if best < 5:
            self.ambiguous += len(likely) > 1
            return max(likely, key=lambda flow: flow.last_ns)
        return likely[0]

    def _kinship(self, flow: Flow, packet: Packet) -> int:
        connection, direction = flow.connection, flow.direction(packet)
        session = self._session(packet)
        known, back = connection.tunnels[direction], connection.tunnels[1 - direction]
        if session and connection.session and session != connection.session:
            return 0
        if known == packet.tunnel:
            return 5
        if session and connection.session:
            return 4
        if self._continues(flow, direction, packet):
            return 3
        if packet.pair == connection.alternate:
            return 2
        if packet.pair != connection.pair or (known and not connection.moved[direction]):
            return 0
        partner = self.partners.get(packet.tunnel)
        if partner is None or back is None:
            return 2
        if partner == back:
            return 4
        return 0 if back in self.partners and known is None else 1

    def _continues(self, flow: Flow, direction: int, packet: Packet) -> bool:
        if packet.protocol != TCP or packet.tcp_flags & SYN:
            return False
        if not (packet.tcp_seq and packet.tcp_ack):
            return False
        expected, confirmed = (
            stream.next if stream.known else None
            for stream in (flow.connection.streams[d] for d in (direction, 1 - direction))
        )
        apart = []
        if expected is not None:
            apart.append(abs(signed(packet.tcp_seq - expected)))
        if confirmed is not None and packet.tcp_flags & ACK:
            apart.append(abs(signed(packet.tcp_ack - confirmed)))
        return bool(apart) and max(apart) < (NEAR if len(apart) == 2 else NEARER)

    def _adopt(self, flow: Flow, direction: int, packet: Packet) -> None:
        connection, other = flow.connection, 1 - direction
        known = connection.tunnels[direction]
        if known == packet.tunnel and connection.pair == packet.pair:
            return
        if packet.pair == connection.alternate:
            return
        if known is None and packet.pair != connection.pair:
            connection.tunnels[direction] = packet.tunnel
            connection.alternate = packet.pair
            return
        if known == packet.tunnel and connection.moved[direction]:
            return
        if packet.pair != connection.pair:
            flow.handovers += 1
            connection.pair = packet.pair
            connection.moved[other] = True
        if known != packet.tunnel:
            connection.tunnels[direction] = packet.tunnel
            connection.moved[direction] = False
            back = connection.tunnels[other]
            if back is not None:
                self.partners |= {packet.tunnel: back, back: packet.tunnel}

    def _copy(self, memory: Memory, packet: Packet) -> None:
        self.seen_twice += 1
        flow = memory.flow
        direction = flow.direction(packet)
        flow.duplicates[direction] += 1
        connection = flow.connection
        if packet.pair != connection.pair and connection.alternate is None:
            connection.alternate = packet.pair
        if packet.gtp_depth:
            if connection.shown[direction][0] == 0:
                connection.show(direction, packet)
            if connection.gtp_depth == 0:
                connection.gtp_depth = packet.gtp_depth
                connection.outer = packet.outer[::-1] if direction else packet.outer

    def _fragment(self, packet: Packet) -> None:
        expected = self.expected.get(packet.fragment_key)
        if not (expected and expected.flow.alive):
            return
        if abs(packet.ts_ns - expected.packet.ts_ns) > 30 * NS:
            return
        self.followed += 1
        flow, connection = expected.flow, expected.flow.connection
        direction = expected.direction ^ (connection.turned != expected.turned)
        age_before = flow.age_ns
        flow.fragments[direction] += 1
        before = expected.packet.payload_offset - expected.packet.fragment_start
        position = packet.fragment_offset - before
        sequence = expected.packet.tcp_seq + bool(expected.packet.tcp_flags & SYN) + position
        sequence %= 2**32
        if expected.packet.fragment == 1:
            stream = connection.streams[direction]
            if expected.packet.protocol == TCP and stream.known and packet.payload_length:
                kind = receive(flow, direction, sequence, packet.payload_length)
                pass_fin(connection, direction)
                if kind <= FILLS:
                    stream.keep(sequence, packet.payload)
            else:
                flow.stream_bytes[direction] += packet.payload_length
            flow.packets.append((packet, direction))
            connection.sent[direction].append(packet)
            ages = self.closing if flow in self.closing else self.open
            ages.move_to_end(flow)
        head = connection.heads[direction]
        if position > 0 and isinstance(head, Head):
            head.put(sequence, packet.payload)
            self._settle(flow, direction, sequence + len(packet.payload))
        elif position > 0 and isinstance(head, Datagrams):
            head.extend(position, packet.payload)
        if expected.packet.fragment == 1:
            self._report(flow, age_before)

    def _is_over(self, flow: Flow, now: int) -> bool:
        limit = self.config.linger_s if flow in self.closing else self.config.idle_timeout_s
        return abs(now - flow.last_ns) > limit * NS

    def _silence(self, flow: Flow) -> EndReason:
        return EndReason.CLOSED if flow in self.closing else EndReason.IDLE

    def _open(self, packet: Packet) -> Flow:
        if sum(map(len, self.live.values())) == self.config.max_flows:
            self._end(next(iter(self.closing or self.open)), EndReason.EVICTED)
            self.evicted += 1
        flow_id = next(self.ids)
        ends, outer = [packet.sender, packet.receiver], packet.outer
        if packet.is_syn_ack:
            ends.reverse()
            outer.reverse()
        direction = int(packet.is_syn_ack)
        tunnels: list[Hashable] = [None if packet.gtp_depth else BARE] * 2
        tunnels[direction] = packet.tunnel
        back = Stream(base=packet.tcp_ack if packet.tcp_flags & ACK else 0)
        streams = [Stream(), back] if direction == 0 else [back, Stream()]
        connection = Connection(
            *(ends[0], ends[1], outer, packet.gtp_depth, packet, flow_id, packet.pair, tunnels)
        )
        if packet.protocol == TCP:
            connection.streams = streams
        if packet.is_syn_ack:
            connection.syn_seq = (packet.tcp_ack - 1) % 2**32
        elif packet.is_syn:
            connection.syn_seq = packet.tcp_seq
        elif packet.protocol == TCP:
            connection.state = TcpState.MIDSTREAM
        flow = Flow(flow_id, connection, packet)
        self.live.setdefault(packet.key, []).insert(0, flow)
        return flow

    def _continue(self, old: Flow, packet: Packet) -> Flow:
        flow = Flow(next(self.ids), old.connection, packet)
        for stream in old.connection.streams:
            stream.known = ANCHORED if stream.known else UNKNOWN
            stream.far = 0, 0
        twins = self.live[packet.key]
        twins[twins.index(old)] = flow
        old.alive = False
        for memory in self.memory.values():
            if memory.flow is old:
                memory.flow = flow
        ages = self.closing if old in self.closing else self.open
        del ages[old]
        ages[flow] = None
        return flow

    def _update(self, flow: Flow, packet: Packet) -> None:
        connection = flow.connection
        direction = flow.direction(packet)
        kind = NEW
        if packet.protocol == TCP:
            kind = follow(flow, direction, packet)
            if kind == PROBE:
                packet = Packet(packet.row | {"payload_length": 0}, b"")
        else:
            flow.stream_bytes[direction] += packet.payload_length
        if not flow.sent(direction):
            connection.marks[direction] = packet
            if packet.gtp_depth:
                connection.show(direction, packet)
        flow.packets.append((packet, direction))
        connection.sent[direction].append(packet)
        if packet.payload_length and kind <= FILLS:
            stream = connection.streams[direction]
            if packet.protocol == TCP:
                stream.keep(first_number(packet), packet.payload)
                flow.file_messages[file_messages.kind(packet.payload)] += 1
            else:
                stream.append(packet.payload)
        if kind < ASIDE:
            self._collect(flow, direction, packet, kind)

    def _collect(self, flow: Flow, direction: int, packet: Packet, kind: int) -> None:
        connection = flow.connection
        if connection.head_done or packet.payload_length == 0:
            return
        payloads = [sum(p.payload_length > 0 for p in flow.sent(d)) for d in (0, 1)]
        young = payloads[direction] <= START_WITHIN
        if packet.protocol in DTLS_OVER:
            self._collect_datagram(flow, direction, packet, sum(payloads))
            return
        if packet.protocol == TCP and packet.payload:
            head = connection.heads[direction]
            if head is None and young:
                self._guess(flow, direction, packet, kind, payloads[direction])
            elif isinstance(head, Head) and not head.sure:
                self._guess_again(flow, direction, packet, head)
            head = connection.heads[direction]
            if isinstance(head, Head):
                head.put(first_number(packet), packet.payload)
                self._settle(flow, direction, first_number(packet) + len(packet.payload))
        growing = sum(payloads) < READY_AT_LAST and any(
            is_growing(head, stream)
            for head, stream in zip(connection.heads, connection.streams, strict=True)
        )
        ready = sum(payloads) >= READY_AFTER and not growing
        if ready:
            self._flush_head(flow)

    def _collect_datagram(self, flow: Flow, direction: int, packet: Packet, count: int) -> None:
        connection = flow.connection
        head = connection.heads[direction]
        taken = not is_dns(packet) and continues(packet)
        if head is None and begins(packet, connection):
            taken = self._begin(flow, direction, Datagrams(count), guess=False)
            if not taken and connection.head_done:
                return
            head = connection.heads[direction]
        if isinstance(head, Datagrams) and taken:
            head.put(part_kept(packet, fresh=not head.kept))
        if is_answered(packet, direction, connection) or is_late(packet, connection, count):
            self._flush_head(flow)

    def _begin(self, flow: Flow, direction: int, head: Head | Datagrams, *, guess: bool) -> bool:
        """Give a direction a head, if there is a buffer for it."""
        most = self.config.max_heads
        if guess and 4 * (most - len(self.collecting)) <= 3 * most:
            return False
        if len(self.collecting) == most:
            owner = self.collecting[0][0]
            if any(head and head.sure for head in owner.connection.heads):
                self._flush_head(owner)
                self.heads_cut += 1
                if owner is flow:
                    return False
            else:
                owner.connection.heads = [None, None]
                self.collecting = [(f, d) for f, d in self.collecting if f is not owner]
        flow.connection.heads[direction] = head
        self.collecting.append((flow, direction))
        return True

    def _guess(self, flow: Flow, direction: int, packet: Packet, kind: int, payloads: int) -> None:
        """Begin a head with what is a handshake's, or may become one."""
        stream, number = flow.connection.streams[direction], first_number(packet)
        at_start = number == stream.base
        verdict = opening(packet.payload, at_start)
        if at_start and proxy_header(packet.payload):
            verdict = max(verdict, MAYBE)
        if verdict == YES or (verdict == MAYBE and kind != AHEAD):
            floating = verdict == MAYBE and stream.known == SEEN and payloads == 1
            self._begin(flow, direction, Head(number, floating), guess=verdict == MAYBE)
        elif kind == AHEAD:
            missing = [signed(b - a) for a, b in stream.holes if b == number]
            if missing and missing[0] < HEAD_BYTES:
                start = (number - missing[0]) % 2**32
                self._begin(flow, direction, Head(start), guess=True)
        elif stream.known == SEEN and payloads == 1 and not is_other_record(packet.payload):
            self._begin(flow, direction, Head(number, floating=True), guess=True)

    def _guess_again(self, flow: Flow, direction: int, packet: Packet, head: Head) -> None:
        """Let a guess begin elsewhere."""
        stream, number = flow.connection.streams[direction], first_number(packet)
        behind = signed(number - head.base)
        if behind > 0 and opening(packet.payload, number == stream.base) == YES:
            seen = head.stream()
            if behind == len(seen) and opening(seen, head.base == stream.base) == MAYBE:
                return
            head.base, head.content, head.floating = number, {}, False
        elif behind < 0 and head.floating:
            head.move(-behind)

    def _settle(self, flow: Flow, direction: int, after: int) -> None:
        """Judge a guess by its first bytes; `after` is the number after the latest segment."""
        connection = flow.connection
        head, stream = connection.heads[direction], connection.streams[direction]
        if not isinstance(head, Head) or head.sure or not head.stream():
            return
        content, at_start = head.stream(), head.base == stream.base
        skip = proxy_header(content)
        if at_start and stream.skip < skip <= len(content):
            stream.first = dict(enumerate(content[skip : skip + PREFIX_BYTES]))
            stream.skip = skip
        verdict = opening(content, at_start)
        payloads = sum(p.payload_length > 0 for p in flow.sent(direction))
        settled = at_start and stream.known == ANCHORED
        head.sure = verdict == YES
        if verdict != NO or (head.floating and not settled and payloads <= GUESS_PACKETS):
            return
        end = signed(after - head.base)
        rest = opening(content[end:], False) if 0 < end < len(content) else NO
        if rest != NO or head.reach > len(content):
            head.move(-end if rest != NO else -len(content))
            head.floating, head.sure = False, rest == YES
        else:
            connection.heads[direction] = None
            self.collecting.remove((flow, direction))

    def _flush_head(self, flow: Flow) -> None:
        connection = flow.connection
        connection.head_done = True
        self.collecting = [(f, d) for f, d in self.collecting if f is not flow]
        heads, connection.heads = connection.heads, [None, None]
        if not any(head and head.sure for head in heads):
            return
        first, second = (sure_stream(head) for head in heads)
        self.heads.append(
            EmittedHead(
                connection.parent_id,
                flow.first.ts_ns,
                (connection.initiator[2], connection.responder[2]),
                connection.opening.protocol,
                (first, second),
            )
        )

    def _end(self, flow: Flow, reason: EndReason) -> None:
        self._emit(flow, reason)
        self.open.pop(flow, None)
        self.closing.pop(flow, None)
        flow.alive = False
        self.memory = {k: m for k, m in self.memory.items() if m.flow is not flow}
        for key, twins in list(self.live.items()):
            self.live[key] = [other for other in twins if other is not flow]

    def _emit(self, flow: Flow, reason: EndReason) -> None:
        self._flush_head(flow)
        self.records.append(make_record(flow, reason))
        self.sequences.append(make_sequence(flow, self.config.sequence_length))
        self.records[-1]["sequence_used"] = min(len(flow.packets), self.config.sequence_length)


def signed(distance: int) -> int:
    """A distance of sequence numbers, modulo 2^32 around 0 (RFC 1982)."""
    return (distance + 2**31) % 2**32 - 2**31


def first_number(packet: Packet) -> int:
    """The sequence number of the first payload byte: a SYN takes the one before."""
    return (packet.tcp_seq + bool(packet.tcp_flags & SYN)) % 2**32


def opens(flow: Flow, direction: int, packet: Packet) -> bool:
    """Whether a SYN or SYN-ACK is the one that a flow was seen without."""
    stream = flow.connection.streams[direction]
    if stream.known == UNKNOWN and stream.base == 0:
        return False
    missing = signed(stream.base - packet.tcp_seq - 1)
    young = abs(packet.ts_ns - flow.first.ts_ns) <= LATE_SYN_NS
    return missing == 0 or (0 < missing <= LATE_SYN and young)


def is_reuse(flow: Flow, packet: Packet) -> bool:
    if not packet.is_syn:
        return False
    direction, state = flow.direction(packet), flow.connection.state
    unopened = not state & TcpState.SYN
    if unopened and (state & TcpState.MIDSTREAM or direction == 0):
        return not opens(flow, direction, packet)
    if direction == 0:
        return packet.tcp_seq != flow.connection.syn_seq
    return bool(state & (ENDED | TcpState.SYN_ACK))


def is_turned(flow: Flow, packet: Packet) -> bool:
    """Whether a flow that was seen from the middle shows the other side to be its initiator."""
    connection, direction = flow.connection, flow.direction(packet)
    if not (packet.is_syn or packet.is_syn_ack) or flow.flow_id != connection.parent_id:
        return False
    if not connection.state & TcpState.MIDSTREAM or direction != packet.is_syn:
        return False
    return opens(flow, direction, packet)


def follow(flow: Flow, direction: int, packet: Packet) -> int:
    """Take a packet into the state of its connection; say what its payload is to the stream."""
    connection, flags = flow.connection, packet.tcp_flags
    late = connection.state & TcpState.MIDSTREAM and opens(flow, direction, packet)
    if flags & SYN and late:
        connection.state &= ~TcpState.MIDSTREAM
    if flags & SYN and flags & ACK:
        connection.state |= TcpState.SYN_ACK
        if late:
            connection.syn_seq = (packet.tcp_ack - 1) % 2**32
    elif flags & SYN:
        if connection.state & TcpState.SYN:
            connection.state &= ~ENDED
        connection.state |= TcpState.SYN
        if direction == 0:
            connection.syn_seq = packet.tcp_seq
    elif flags & ACK and not flags & RST and connection.state & TcpState.SYN_ACK:
        connection.state |= TcpState.ESTABLISHED
    if flags & FIN:
        connection.state |= [TcpState.FIN_FWD, TcpState.FIN_BWD][direction]
    if flags & RST:
        connection.state |= TcpState.RST
        return ASIDE
    stream, start = connection.streams[direction], first_number(packet)
    if stream.known == UNKNOWN:
        stream.known = ANCHORED if flags & SYN else SEEN
        stream.base = stream.next = start
    elif flags & SYN and stream.known == SEEN and opens(flow, direction, packet):
        stream.known = ANCHORED
        stream.begin_earlier(start, start)
    elif flags & SYN and start != stream.base:
        if stream.next == stream.base:
            stream.far = start, start
        return ASIDE
    elif is_probe(stream, packet):
        flow.keep_alives[direction] += 1
        return PROBE
    length, kind = packet.payload_length, NEW
    if length:
        kind = receive(flow, direction, start, length)
    if flags & FIN and packet.fragment == 0:
        stream.fin = (start + length) % 2**32
    pass_fin(connection, direction)
    return kind


def is_probe(stream: Stream, packet: Packet) -> bool:
    """Whether a packet repeats the last byte, or none before it: a keep-alive."""
    bare = not packet.tcp_flags & (SYN | FIN) and packet.payload_length < 2
    return bare and (packet.tcp_seq + 1) % 2**32 == stream.next


def pass_fin(connection: Connection, direction: int) -> None:
    """A FIN has a number of its own."""
    stream = connection.streams[direction]
    if connection.state & [TcpState.FIN_FWD, TcpState.FIN_BWD][direction]:
        stream.next = (stream.next + (stream.next == stream.fin)) % 2**32


def receive(flow: Flow, direction: int, start: int, length: int) -> int:
    """Take payload into a stream; say what it is to it."""
    connection = flow.connection
    stream, end = connection.streams[direction], (start + length) % 2**32
    ahead, beyond = signed(start - stream.next), max(signed(end - stream.next), 0)
    finished = connection.state & [TcpState.FIN_FWD, TcpState.FIN_BWD][direction]
    if ahead == 0 or (ahead == -1 and finished and start == stream.fin):
        stream.next = end
        flow.stream_bytes[direction] += length
        return NEW
    other_syn = stream.far == (start, start) and start and stream.next == stream.base
    if not -FAR_BEHIND <= ahead <= FAR_AHEAD or (ahead < 0 and other_syn):
        if stream.far == (0, 0) or start != stream.far[1]:
            stream.far = start, end
            (flow.out_of_order if ahead > 0 else flow.retransmissions)[direction] += 1
            return ASIDE
        before = signed(stream.far[1] - stream.far[0])
        flow.stream_bytes[direction] += before + length
        if stream.next == stream.base or signed(start - stream.base) < 0:
            stream.begin(start, SEEN if before else ANCHORED)
        stream.far, stream.holes, stream.next = (0, 0), [], end
        return NEW
    if ahead > 0:
        stream.miss(stream.next, start)
        stream.next = end
        flow.stream_bytes[direction] += length
        flow.out_of_order[direction] += 1
        return AHEAD
    known_length = signed(stream.next - stream.base)
    if beyond:
        stream.next = end
        known_length += beyond
    filled = stream.fill(start, length)
    below = signed(stream.base - start)
    payloads = sum(p.payload_length > 0 for p in flow.sent(direction))
    early = stream.known == SEEN and payloads < EARLIER_PACKETS and 0 <= known_length <= FAR_AHEAD
    if below > 0 and early:
        filled += min(below, length)
        stream.begin_earlier(start, end)
    flow.stream_bytes[direction] += filled + beyond
    flow.out_of_order[direction] += filled > 0
    flow.retransmissions[direction] += not filled and not beyond
    return FILLS if filled else NEW if beyond else OLD


def sure_stream(head: Head | Datagrams | None) -> bytes:
    return head.stream() if head and head.sure else b""


def is_growing(head: Head | Datagrams | None, stream: Stream) -> bool:
    """Whether the first record of a hello comes byte by byte."""
    if not (isinstance(head, Head) and head.sure):
        return False
    content, skip = head.stream(), stream.skip if head.base == stream.base else 0
    whole = skip + 5 + int.from_bytes(content[skip + 3 : skip + 5], "big")
    come = signed(stream.next - head.base)
    return come == len(content) < min(whole, HEAD_BYTES)


def opening(seen: bytes, at_start: bool) -> int:
    """Whether bytes begin a handshake, as far as they go."""
    skip = proxy_header(seen) if at_start else 0
    if skip < 0 or skip > len(seen):
        return MAYBE
    seen = seen[skip : skip + 6]
    allowed = [{22}, {3}, set(range(5)), set(range(256)), set(range(256)), {1, 2}]
    if not all(byte in values for byte, values in zip(seen, allowed, strict=False)):
        return NO
    return YES if len(seen) == 6 else MAYBE


def proxy_header(seen: bytes) -> int:
    """Bytes of the PROXY headers that a stream begins with, -1 where the last one goes on."""
    skip = 0
    for _ in range(4):
        size = one_proxy_header(seen[skip:])
        if size <= 0:
            return size or skip
        skip += size
        if skip >= len(seen):
            break
    return skip


def one_proxy_header(seen: bytes) -> int:
    if seen.startswith(PROXY_TEXT) or PROXY_TEXT.startswith(seen):
        line = seen[:107].find(b"\n") + 1
        return line or (-1 if len(seen) < 107 else 0)
    if seen.startswith(PROXY_BINARY) or PROXY_BINARY.startswith(seen):
        if len(seen) < 16:
            return -1
        length = int.from_bytes(seen[14:16], "big")
        return 16 + length if seen[12] >> 4 == 2 and length <= 2048 else 0
    return 0


def is_other_record(seen: bytes) -> bool:
    """Whether a payload begins with a TLS record that is not of the handshake."""
    return len(seen) > 2 and seen[0] in (20, 21, 23) and seen[1] == 3 and seen[2] <= 4


def begins(packet: Packet, connection: Connection) -> bool:
    """Whether a datagram begins a head."""
    seen = packet.payload
    if is_dns(packet):
        return len(seen) >= 12
    if connection.heads != [None, None]:
        return continues(packet, fresh=True)
    if is_dtls(packet):
        return seen[13] in (1, 2, 3)
    if packet.protocol != UDP or len(seen) < 20 or packet.payload_length < 200:
        return False
    if seen[0] < 0xC0:
        return seen[0] & 0xC8 == 8 and seen[9:10] == b"Q"
    return any(kind in ("initial", "opaque") for kind, _ in long_packets(seen))


def is_dns(packet: Packet) -> bool:
    return packet.protocol == UDP and bool({packet.src_port, packet.dst_port} & DNS_PORTS)


def is_dtls(packet: Packet) -> bool:
    """Whether a datagram begins with a part of a handshake message of DTLS in clear."""
    seen = packet.payload
    if len(seen) < 25 or seen[0] != 22 or seen[3:5] != bytes(2):
        return False
    if seen[1:3] not in (b"\xfe\xfc", b"\xfe\xfd", b"\xfe\xfe", b"\xfe\xff", b"\x01\x00"):
        return seen[1] == 0xFF
    record, whole = int.from_bytes(seen[11:13]), int.from_bytes(seen[14:17])
    place, size = int.from_bytes(seen[19:22]), int.from_bytes(seen[22:25])
    return place + size <= whole and size + 12 <= record


def long_packets(seen: bytes) -> list[tuple[str, bytes]]:
    """The packets with a long header that a datagram begins with, by kind, at most 16."""
    found: list[tuple[str, bytes]] = []
    while len(found) < 16:
        kind, content = long_packet(seen)
        if not kind:
            break
        found.append((kind, content))
        seen = seen[len(content) :]
    return found


def long_packet(seen: bytes) -> tuple[str, bytes]:
    """The kind of a packet, '' if it is none, and its bytes as far as they are there."""
    if len(seen) < 7 or seen[0] < 0x80:
        return "", b""
    version = seen[1:5]
    if version == bytes(4):
        return "negotiation", seen
    kinds = ["initial", "0rtt", "handshake", "retry"]
    if version.hex() in ("6b3343cf", "709a50c4"):
        kinds = ["retry", "initial", "0rtt", "handshake"]
    kind = kinds[seen[0] >> 4 & 3]
    google = version[:2] in (b"Q0", b"T0") and version not in (b"Q050", b"T050", b"T051")
    if google or "ff000000" < version.hex() < "ff000016":
        return ("opaque", seen) if kind == "initial" else ("", b"")
    rest = seen[5:]
    for _ in range(2):
        if not rest:
            return kind, seen
        if rest[0] > 20:
            return "", b""
        rest = rest[1 + rest[0] :]
    if kind == "retry":
        return kind, seen
    if kind == "initial":
        token, rest = variable(rest)
        if token > 65_535:
            return "", b""
        rest = rest[token:]
    if not rest:
        return kind, seen
    size, rest = variable(rest)
    if size < 0:
        return kind, seen
    if not 20 <= size <= 65_535:
        return "", b""
    return kind, seen[: len(seen) - len(rest) + size]


def variable(data: bytes) -> tuple[int, bytes]:
    """A variable-length integer and what follows; -1 and nothing where it is cut."""
    width = 1 << (data[0] >> 6) if data else 1
    if len(data) < width:
        return -1, b""
    return int.from_bytes(data[:width]) % (1 << 8 * width - 2), data[width:]


def part_kept(packet: Packet, *, fresh: bool) -> bytes:
    """What a head keeps of a datagram; `fresh` if it holds none before."""
    seen = packet.payload
    if seen[0] < 0x80 or is_dns(packet):
        return seen
    kept = b""
    packets = long_packets(seen)
    for kind, content in packets:
        alone = fresh and not kept
        if kind in ("initial", "retry", "negotiation") or (kind == "opaque" and alone):
            kept += content
    if not kept and fresh:
        place = 0
        for kind, content in packets:
            if kind == "handshake":
                return seen[place:][:64]
            place += len(content)
    return kept


def continues(packet: Packet, *, fresh: bool = False) -> bool:
    """Whether a later datagram of a handshake is kept; `fresh` if it is its direction's first."""
    if is_dtls(packet):
        return True
    if packet.protocol != UDP or len(packet.payload) < 7 or packet.payload[0] < 0x80:
        return False
    kinds = [kind for kind, _ in long_packets(packet.payload)]
    wanted = ["initial", "retry", "negotiation", *(["opaque"] if fresh else [])]
    first = next((kind for kind in kinds if kind in wanted), "")
    if not first:
        return fresh and "handshake" in kinds
    return first != "initial" or fresh or packet.payload_length >= 90


def is_answered(packet: Packet, direction: int, connection: Connection) -> bool:
    """Whether both sides of a UDP exchange have said all that a head is kept for."""
    if packet.protocol not in DTLS_OVER:
        return False
    first, second = connection.heads
    if is_dns(packet):
        return first is not None and second is not None
    head = connection.heads[direction]
    if not isinstance(head, Datagrams):
        return False
    seen = packet.payload
    if seen and head.kept[0][0] == 22:
        if seen[0] in (21, 22):
            over = len(seen) >= 5 and seen[3:5] != bytes(2)
        else:
            over = seen[0] == 20 or 23 <= seen[0] < 64 or seen[0] >= 128
        if over:
            return True
    elif seen and (head.kept[0][0] < 0x80 or seen[0] & 0xC0 == 0x40):
        return True
    return all(isinstance(head, Datagrams) and head.full for head in (first, second))


def is_late(packet: Packet, connection: Connection, payloads: int) -> bool:
    """Whether no more of a handshake is waited for after so many payload packets of the flow."""
    if packet.protocol not in DTLS_OVER:
        return payloads >= READY_AFTER
    begun = [head.begun for head in connection.heads if isinstance(head, Datagrams)]
    if not begun:
        return payloads >= UDP_START_WITHIN
    return payloads - min(begun) >= UDP_READY_AFTER


def bin_counts(values: Iterable[int], edges: tuple[int, ...]) -> list[int]:
    bins = Counter(bisect_right(edges, value) - 1 for value in values)
    return [bins[k] for k in range(len(edges))]


def sum_of_squares(values: Iterable[float]) -> float:
    return float(sum(value * value for value in values))


def make_record(flow: Flow, reason: EndReason) -> np.ndarray:
    """Compute every field but those of `streams.UNTOLD`."""
    connection = flow.connection
    record = np.zeros((), FLOW_RECORD_DTYPE)
    opening = connection.opening
    (record["src_hi"], record["src_lo"], record["src_port"]) = connection.initiator
    (record["dst_hi"], record["dst_lo"], record["dst_port"]) = connection.responder
    (record["outer_src_hi"], record["outer_src_lo"]) = connection.outer[0]
    (record["outer_dst_hi"], record["outer_dst_lo"]) = connection.outer[1]
    for name in ("protocol", "ip_version", "icmp_type", "icmp_code"):
        record[name] = opening.row[name]
    record["gtp_depth"], record["handovers"] = connection.gtp_depth, flow.handovers
    record["session"] = connection.session
    record["flow_id"], record["parent_id"] = flow.flow_id, connection.parent_id
    record["syn_seq"], record["tcp_state"] = connection.syn_seq, connection.state
    record["first_ns"], record["last_ns"] = flow.first.ts_ns, flow.last_ns
    record["first_number"], record["source"] = flow.first.number, flow.first.source
    record["end_reason"], record["turned"] = reason, connection.turned
    pauses = [gap for gap in running_gaps([p.ts_ns for p, _ in flow.packets]) if gap > NS]
    record["pauses"] = len(pauses)
    record["pause_sum"] = sum(gap / NS for gap in pauses)
    record["pause_sumsq"] = sum_of_squares(gap / NS for gap in pauses)
    bursts, turns = find_bursts(flow)
    record["turns"] = turns
    record["file_messages"] = [flow.file_messages[kind] for kind in FILE_MESSAGES]
    record["burst_direction"], record["burst_bytes"] = running_burst(flow, bursts)
    for d in (0, 1):
        own = [sum(sizes) for direction, sizes in bursts if direction == d]
        record["way"]["bursts"][d] = len(own)
        record["way"]["burst_max_bytes"][d] = max(own, default=0)
        describe_direction(record, flow, d)
    return record


def running_gaps(times: list[int]) -> list[int]:
    """Gaps of each but the first packet to the latest before it; an older one has none."""
    latest = np.maximum.accumulate(times)
    return [max(0, now - int(before)) for now, before in zip(times[1:], latest[:-1], strict=True)]


def find_bursts(flow: Flow) -> tuple[list[tuple[int, list[int]]], int]:
    """Runs of payload packets without a turn or a pause, and the number of turns."""
    bursts: list[tuple[int, list[int]]] = []
    turns, broken = 0, True
    gaps = [0, *running_gaps([p.ts_ns for p, _ in flow.packets])]
    for (packet, direction), gap in zip(flow.packets, gaps, strict=True):
        broken = broken or gap > NS
        if packet.payload_length == 0:
            continue
        if bursts and bursts[-1][0] != direction:
            turns, broken = turns + 1, True
        if broken:
            bursts.append((direction, []))
        bursts[-1][1].append(packet.payload_length)
        broken = False
    return bursts, turns


def running_burst(flow: Flow, bursts: list[tuple[int, list[int]]]) -> tuple[int, int]:
    """Direction of the last payload, and the bytes of its burst, 0 if a pause came after it."""
    if not bursts:
        return 2, 0
    gaps = [0, *running_gaps([p.ts_ns for p, _ in flow.packets])]
    last = max(i for i, (p, _) in enumerate(flow.packets) if p.payload_length)
    paused = any(gap > NS for gap in gaps[last + 1 :])
    return bursts[-1][0], 0 if paused else sum(bursts[-1][1])


def describe_direction(record: Any, flow: Flow, d: int) -> None:
    connection, packets = flow.connection, flow.sent(d)
    payloads = [p.payload_length for p in packets if p.payload_length]
    ever, mark = connection.sent[d], connection.marks[d]
    record["start"]["vlan"][d] = mark.vlan if mark else 0
    for name, value in zip(("teid", "qfi", "gtp_pdu_type"), connection.shown[d], strict=True):
        record["start"][name][d] = value
    record["way"]["moved"][d] = connection.moved[d]
    stream = connection.streams[d]
    for k, (start, end) in enumerate(stream.holes):
        record["missing"]["hole_start"][d, k], record["missing"]["hole_end"][d, k] = start, end
    record["start"]["base_seq"][d], record["start"]["fin_seq"][d] = stream.base, stream.fin
    record["missing"]["far_start"][d], record["missing"]["far_end"][d] = stream.far
    for name in ("keep_alives", "duplicates", "fragments"):
        record["way"][name][d] = getattr(flow, name)[d]
    record["way"]["old_bytes"][d] = sum(payloads) - flow.stream_bytes[d]
    opened = [p for p in ever if p.protocol == TCP and p.tcp_flags & SYN]
    record["start"]["wscale"][d] = opened[-1].tcp_wscale if opened else 255
    record["start"]["mss"][d] = opened[-1].tcp_mss if opened else 0
    record["way"]["first_payload"][d] = next(
        (p.payload_length for p in ever if p.payload_length), 0
    )
    record["way"]["prefix_used"][d], record["start"]["prefix_skip"][d] = (
        stream.prefix_used,
        stream.skip,
    )
    record["missing"]["prefix_known"][d] = sum(1 << position for position in stream.first)
    for position, byte in stream.first.items():
        record["start"]["prefix"][d, position] = byte
    record["way"]["seq_known"][d], record["way"]["next_seq"][d] = stream.known, stream.next
    if not packets:
        return
    times = [max(p.ts_ns, flow.first.ts_ns) for p in packets]
    sizes = [p.ip_length for p in packets]
    gaps = running_gaps(times)
    record["start"]["dir_first_ns"][d], record["way"]["dir_last_ns"][d] = times[0], max(times)
    record["way"]["gap_min_ns"][d], record["way"]["gap_max_ns"][d] = (
        min(gaps, default=0),
        max(gaps, default=0),
    )
    record["way"]["gap_sumsq"][d] = sum_of_squares(gap / NS for gap in gaps)
    record["way"]["gap_counts"][d] = bin_counts(gaps, GAP_EDGES_NS)
    record["way"]["packets"][d], record["way"]["bytes"][d] = len(packets), sum(sizes)
    record["way"]["size_min"][d], record["way"]["size_max"][d] = min(sizes), max(sizes)
    record["way"]["size_sumsq"][d] = sum_of_squares(sizes)
    record["way"]["size_counts"][d] = bin_counts((p.payload_length for p in packets), SIZE_EDGES)
    record["way"]["payload_packets"][d], record["way"]["payload_bytes"][d] = (
        len(payloads),
        sum(payloads),
    )
    record["way"]["payload_max"][d] = max(payloads, default=0)
    record["way"]["payload_sumsq"][d] = sum_of_squares(payloads)
    record["start"]["ttl"][d] = packets[0].ttl
    record["way"]["retransmissions"][d] = flow.retransmissions[d]
    record["way"]["out_of_order"][d] = flow.out_of_order[d]
    if packets[0].protocol == TCP:
        packets = [p for p in packets if p.status == OK]
        windows = [p.tcp_window for p in packets]
        record["start"]["window_first"][d], record["way"]["window_sum"][d] = (
            windows[0],
            sum(windows),
        )
        record["way"]["window_min"][d], record["way"]["window_max"][d] = min(windows), max(windows)
        silent = [p for p in packets if p.tcp_window == 0 and not p.tcp_flags & RST]
        record["way"]["zero_windows"][d] = len(silent)
        flags = [sum(p.tcp_flags >> bit & 1 for p in packets) for bit in range(8)]
        record["way"]["flag_counts"][d] = flags


def make_sequence(flow: Flow, length: int) -> Any:
    rows = np.zeros(length, SEQUENCE_DTYPE)
    gaps = [0, *running_gaps([p.ts_ns for p, _ in flow.packets])]
    for row, (packet, direction), gap in zip(rows, flow.packets, gaps, strict=False):
        size = min(packet.ip_length, 32767)
        row["size"] = -size if direction else size
        row["payload"] = min(packet.payload_length, 65535)
        row["gap_us"] = min(gap // 1000, 2**32 - 1)
        row["flags"] = packet.tcp_flags & 0xFF
    return rows
