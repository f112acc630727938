"""Sessions as control traffic tells of them: contexts, F-TEIDs, addresses, their validity.

One session of a subscriber is seen as several *contexts*: one between MME and SGW, one between
SGW and PGW, one for each user plane function that PFCP controls. Contexts that announce the same
F-TEID are one session. A node never gives one F-TEID to two of its sessions, so the same
announcement in the same place means a new session and the end of the old one.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from veilwatch.traffic.subscriber.bindings import Bindings
from veilwatch.traffic.subscriber.messages import (
    ACCESS,
    CORE,
    End,
    Leg,
    Message,
    Protocol,
    Rank,
    Tunnel,
    ue_key,
)

MAX_SESSIONS: Final = 131_072
"""Most sessions kept, ended ones included, at about 3 kB each. Of the ended ones the one that
ended first goes, then of the others the one that control traffic has not touched for longest."""

MAX_SPANS: Final = 64
"""Most F-TEIDs of one session, former ones included: eleven bearers have up to four each at a
time. Of the former ones the oldest goes; beyond that many at once, new ones are refused."""

MAX_CONTEXTS: Final = 16
"""Most contexts of one session, and of one TEID or SEID: MME–SGW, SGW–PGW and four user plane
functions at most; up to eleven PDN connections share the TEID of an MME."""

MAX_KEYS: Final = 8
"""Most names (address and TEID or SEID) of one context: two nodes with two addresses each, which
are also known as the packets show them."""

MAX_ROLES: Final = 512
"""Legs whose role a context remembers beyond their F-TEIDs: a PDR, a FAR and a traffic endpoint
for each direction of eleven bearers are 66."""

MAX_ADDRESSES: Final = 8
"""Most addresses of one session: one IPv4 and one IPv6 prefix, more after an anchor's change."""

MAX_SAME_ADDRESS: Final = 64
"""Most sessions kept by one UE address, the newest: one for each network whose address pools
overlap, and former users of the address."""

MAX_SAME_END: Final = 64
"""Most spans looked at for one F-TEID, newest first: former users whose flows may still end."""

MAX_LOCATIONS: Final = 32
"""Most places of one session, the newest: enough for the half hour that a flow record lasts."""

OPEN: Final = 2**63 - 1
"""`last_ns` of what is still valid."""


@dataclass(slots=True, eq=False)
class Span:
    """An F-TEID of a session and its validity."""

    end: End
    role: str
    record: Record
    first_ns: int
    last_ns: int = OPEN
    holders: set[tuple[Context, Leg]] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class Context:
    """A session as one pair of nodes knows it."""

    protocol: Protocol
    requester: int
    responder: int
    record: Record
    created_ns: int
    linked: int = 0
    token: bytes = b""
    keys: list[End] = field(default_factory=list)
    legs: dict[Leg, tuple[str, tuple[End, ...]]] = field(default_factory=dict)
    roles: dict[Leg, str] = field(default_factory=dict)
    bearers: set[int] = field(default_factory=set)

    @property
    def nodes(self) -> tuple[Protocol, int, int]:
        """The pair of nodes, in either order."""
        low, high = sorted((self.requester, self.responder))
        return self.protocol, low, high


@dataclass(slots=True, eq=False)
class Record:
    """A session."""

    number: int
    created_ns: int
    token: bytes = b""
    rank: Rank = Rank.NONE
    apn: str = ""
    rat: str = ""
    locations: deque[tuple[int, str]] = field(default_factory=lambda: deque(maxlen=MAX_LOCATIONS))
    addresses: dict[int, None] = field(default_factory=dict)
    spans: list[Span] = field(default_factory=list)
    contexts: set[Context] = field(default_factory=set)
    protocols: set[Protocol] = field(default_factory=set)
    ended_ns: int = OPEN
    reason: str = ""
    handovers: int = 0
    flows: int = 0
    merged: list[int] = field(default_factory=list)

    def location(self, ts_ns: int) -> str:
        """Return where the subscriber was last known to be at a time, '' unknown."""
        for since, place in reversed(self.locations):
            if since <= ts_ns:
                return place
        return ""


class SessionStore:
    """All sessions, with what finds them.

    Parameters
    ----------
    limit
        Most sessions; see `MAX_SESSIONS`.

    Attributes
    ----------
    bindings
        The F-TEIDs that are valid now.
    evicted
        Sessions given up for lack of room.
    ends_refused
        F-TEIDs beyond `MAX_SPANS`.
    ends_reused
        F-TEIDs that a new session took over from one that had not been released.
    """

    def __init__(self, limit: int = MAX_SESSIONS) -> None:
        self._limit = limit
        self._next = 1
        self.bindings = Bindings()
        self._running: OrderedDict[int, Record] = OrderedDict()  # longest untouched first
        self._ended: OrderedDict[int, Record] = OrderedDict()  # in the order they ended
        self._merged: dict[int, Record] = {}
        self._live: dict[End, Span] = {}
        self._spans: dict[End, list[Span]] = {}
        self._by_address: dict[int, deque[Record]] = {}
        self._by_key: dict[tuple[Protocol, End], list[Context]] = {}
        self._by_node: dict[tuple[Protocol, int], set[Context]] = {}
        self._by_subscriber: dict[tuple[tuple[Protocol, int, int], bytes, int], Context] = {}
        self.evicted = 0
        self.ends_refused = 0
        self.ends_reused = 0

    # ---- looking up

    def __len__(self) -> int:
        return len(self._running) + len(self._ended)

    def records(self) -> Iterator[Record]:
        """Yield all sessions by their number."""
        both = self._running | self._ended
        return (both[number] for number in sorted(both))

    def by_number(self, number: int) -> Record | None:
        """Return a session by its number, or by that of a session merged into it."""
        found = self._running.get(number) or self._ended.get(number)
        return found or self._merged.get(number)

    def by_end(self, end: End, first_ns: int, last_ns: int) -> Span | None:
        """Return the span of an F-TEID that held when a flow began, else the newest within it."""
        found = None
        for span in reversed(self._spans.get(end, [])[-MAX_SAME_END:]):
            if span.first_ns <= first_ns <= span.last_ns:
                return span
            if found is None and first_ns <= span.first_ns <= last_ns:
                found = span
        return found

    def by_address(self, address: int, first_ns: int, last_ns: int) -> list[Record]:
        """Return the sessions that hold a UE address at a time."""
        return [
            record
            for record in self._by_address.get(ue_key(address), ())
            if record.created_ns <= last_ns and first_ns <= record.ended_ns
        ]

    def holds_address(self, address: int) -> bool:
        """Whether any session holds or held a UE address."""
        return ue_key(address) in self._by_address

    def contexts(self, protocol: Protocol, receiver: int, name: int) -> list[Context]:
        """Return what a receiver knows by a TEID or SEID."""
        return list(self._by_key.get((protocol, End(receiver, name)), ()))

    def contexts_of_node(self, protocol: Protocol, node: int) -> list[Context]:
        """Return all contexts of a node."""
        return list(self._by_node.get((protocol, node), ()))

    # ---- changing

    def create(self, protocol: Protocol, requester: int, responder: int, ts_ns: int) -> Context:
        """Begin a session with one context."""
        self._make_room(ts_ns)
        record = Record(self._next, ts_ns)
        self._next += 1
        self._running[record.number] = record
        record.protocols.add(protocol)
        context = Context(protocol, requester, responder, record, ts_ns)
        record.contexts.add(context)
        for node in {requester, responder}:
            self._by_node.setdefault((protocol, node), set()).add(context)
        return context

    def name(self, context: Context, key: End, ts_ns: int) -> None:
        """Add a name by which messages speak of a context."""
        if key in context.keys or len(context.keys) >= MAX_KEYS:
            return
        if len(sharing := self._by_key.get((context.protocol, key), [])) >= MAX_CONTEXTS:
            self.end(sharing[0], ts_ns, "replaced")
        context.keys.append(key)
        self._by_key.setdefault((context.protocol, key), []).append(context)

    def identify(self, context: Context, token: bytes, linked: int, ts_ns: int) -> None:
        """Enter a context by its subscriber; an older one of the same nodes and bearer ends.

        A node that asks anew for a bearer that it has was restarted or attached anew (TS 29.274
        cl. 7.2.1).
        """
        context.token, context.linked = token, linked
        if not token or not linked:
            return
        key = (context.nodes, token, linked)
        older = self._by_subscriber.get(key)
        if older is not None and older is not context:
            self.end(older, ts_ns, "replaced")
        self._by_subscriber[key] = context

    def learn(self, context: Context, message: Message, ts_ns: int) -> None:
        """Take over what a message says of the subscriber and of the place."""
        record = context.record
        if record.number in self._running:
            self._running.move_to_end(record.number)
        if message.rank.value > record.rank.value:
            record.token, record.rank = message.token, message.rank
        record.apn = record.apn or message.apn
        record.rat = message.rat or record.rat
        if message.location and message.location != record.location(OPEN):
            record.locations.append((ts_ns, message.location))
        for address in message.addresses:
            self._add_address(record, ue_key(address))

    def set_tunnels(self, context: Context, tunnels: Iterable[Tunnel], ts_ns: int) -> None:
        """Give legs their F-TEIDs from now on; one changed access side is one handover."""
        changed = False
        for leg, role, ends in tunnels:
            old_role, old = context.legs.get(leg, ("", ()))
            role = role or old_role or context.roles.get(leg, "")
            if role == ACCESS and old and ends:
                own = context.record
                changed |= any(self._owner(end) is not own for end in ends)
            if ends:
                context.bearers.add(leg.bearer)
            held = tuple(
                end for end in ends if end in old or self._claim(context, leg, end, role, ts_ns)
            )
            if held:
                context.legs[leg] = role, held
            else:
                context.legs.pop(leg, None)
            for end in old:
                if end not in held:
                    self._release(context, leg, end, ts_ns)
        context.record.handovers += changed

    def release_access(self, context: Context, ts_ns: int) -> None:
        """End the access side of every bearer: the UE is idle."""
        idle = [
            Tunnel(leg, ACCESS, ()) for leg, (role, _) in context.legs.items() if role == ACCESS
        ]
        self.set_tunnels(context, idle, ts_ns)

    def drop_bearers(self, context: Context, bearers: set[int], ts_ns: int) -> None:
        """End bearers; the context ends with its last one or with the one it hangs on."""
        gone = [Tunnel(leg, "", ()) for leg in context.legs if leg.bearer in bearers]
        self.set_tunnels(context, gone, ts_ns)
        context.bearers -= bearers
        if not context.bearers:
            self.end(context, ts_ns, "released")

    def end(self, context: Context, ts_ns: int, reason: str) -> None:
        """End a context, and the session with its last one."""
        record = context.record
        if context not in record.contexts:
            return
        record.contexts.discard(context)
        for leg, (_, ends) in list(context.legs.items()):
            for end in ends:
                self._release(context, leg, end, ts_ns)
        context.legs.clear()
        for key in context.keys:
            self._take_out(self._by_key, (context.protocol, key), context)
        for node in {context.requester, context.responder}:
            self._take_out(self._by_node, (context.protocol, node), context)
        known = (context.nodes, context.token, context.linked)
        if self._by_subscriber.get(known) is context:
            del self._by_subscriber[known]
        if not record.contexts:
            record.ended_ns, record.reason = max(ts_ns, record.created_ns), reason
            if self._running.pop(record.number, None) is not None:
                self._ended[record.number] = record

    # ---- inside

    def _owner(self, end: End) -> Record | None:
        span = self._live.get(end)
        return None if span is None else span.record

    def _claim(self, context: Context, leg: Leg, end: End, role: str, ts_ns: int) -> bool:
        """Let a leg hold an F-TEID; the sessions of all its holders are one."""
        span = self._live.get(end)
        if span is not None and span.record is not context.record:
            if self._is_same(span, context, leg):
                self._merge(span.record, context.record)
            else:
                self._take_away(span, ts_ns)
                self.ends_reused += 1
                span = None
        if span is None:
            span = self._open(context.record, end, role, ts_ns)
        if span is None:
            return False
        span.role = span.role or role
        span.holders.add((context, leg))
        return True

    def _is_same(self, span: Span, context: Context, leg: Leg) -> bool:
        """Whether a context that announces a span's F-TEID belongs to the span's session."""
        old, new = span.record, context.record
        if len(old.contexts) + len(new.contexts) > MAX_CONTEXTS:
            return False
        if old.token and new.token and old.rank is new.rank and old.token != new.token:
            return False
        for version in (True, False):  # IPv4, IPv6
            ours = {a for a in new.addresses if (a >> 32 == 0xFFFF) is version}
            theirs = {a for a in old.addresses if (a >> 32 == 0xFFFF) is version}
            if ours and theirs and not ours & theirs:
                return False
        return not any(
            holder.nodes == context.nodes and held.kind == leg.kind for holder, held in span.holders
        )

    def _merge(self, one: Record, other: Record) -> None:
        """Make one session of two; the number that came first stays."""
        keep, gone = (one, other) if one.number < other.number else (other, one)
        if gone.rank.value > keep.rank.value:
            keep.token, keep.rank = gone.token, gone.rank
        keep.apn = keep.apn or gone.apn
        keep.rat = keep.rat or gone.rat
        for place in sorted(gone.locations):
            if place[1] != keep.location(OPEN):
                keep.locations.append(place)
        keep.created_ns = min(keep.created_ns, gone.created_ns)
        keep.handovers += gone.handovers
        keep.flows += gone.flows
        keep.protocols |= gone.protocols
        for context in gone.contexts:
            context.record = keep
        keep.contexts |= gone.contexts
        for span in gone.spans:
            span.record = keep
            if span.last_ns == OPEN:
                self.bindings.put(span.end, keep.number)
        keep.spans.extend(gone.spans)
        for address in gone.addresses:
            self._take_out(self._by_address, address, gone)
            self._add_address(keep, address)
        for number in (gone.number, *gone.merged):
            self._merged[number] = keep
            keep.merged.append(number)
        self._running.pop(gone.number, None)

    def _take_away(self, span: Span, ts_ns: int) -> None:
        """Give an F-TEID up to a new session.

        A core node that gives its end away has ended the old session; an access node may only
        have moved a bearer.
        """
        holders = list(span.holders)
        for context, leg in holders:
            role, ends = context.legs[leg]
            left = tuple(end for end in ends if end != span.end)
            if left:
                context.legs[leg] = role, left
            else:
                del context.legs[leg]
        span.holders.clear()
        self._close(span, ts_ns)
        for context in {context for context, _ in holders}:
            if span.role == CORE or not context.legs:
                self.end(context, ts_ns, "replaced")

    def _open(self, record: Record, end: End, role: str, ts_ns: int) -> Span | None:
        if len(record.spans) >= MAX_SPANS:
            oldest = next((span for span in record.spans if span.last_ns != OPEN), None)
            if oldest is None:
                self.ends_refused += 1
                return None
            record.spans.remove(oldest)
            self._take_out(self._spans, oldest.end, oldest)
        span = Span(end, role, record, ts_ns)
        record.spans.append(span)
        self._live[end] = span
        self._spans.setdefault(end, []).append(span)
        self.bindings.put(end, record.number)
        return span

    def _release(self, context: Context, leg: Leg, end: End, ts_ns: int) -> None:
        span = self._live.get(end)
        if span is None or (context, leg) not in span.holders:
            return
        span.holders.discard((context, leg))
        if not span.holders:
            self._close(span, ts_ns)

    def _close(self, span: Span, ts_ns: int) -> None:
        span.last_ns = max(ts_ns, span.first_ns)
        del self._live[span.end]
        self.bindings.remove(span.end)

    def _add_address(self, record: Record, key: int) -> None:
        if key in record.addresses or len(record.addresses) >= MAX_ADDRESSES:
            return
        record.addresses[key] = None
        holders = self._by_address.setdefault(key, deque(maxlen=MAX_SAME_ADDRESS))
        holders.append(record)

    def _make_room(self, ts_ns: int) -> None:
        while len(self) >= self._limit:
            if not self._ended:
                oldest = next(iter(self._running.values()))
                for context in list(oldest.contexts):
                    self.end(context, ts_ns, "evicted")
                self.evicted += 1
            _, record = self._ended.popitem(last=False)
            for span in record.spans:
                self._take_out(self._spans, span.end, span)
            for address in record.addresses:
                self._take_out(self._by_address, address, record)
            for number in record.merged:
                del self._merged[number]

    @staticmethod
    def _take_out(index: dict, key: object, item: object) -> None:  # type: ignore[type-arg]
        """Remove an item from a collection of an index, and the collection with its last one."""
        items = index.get(key)
        if items is not None and item in items:
            items.remove(item)
            if not items:
                del index[key]
