"""Subscribers learned from their tunnels, where no control traffic tells of them.

Flows that share an F-TEID and the address of a UE belong to one subscriber. Which end of a flow
is the UE is known if its PDU session container tells the direction; else if nearly all other flows
between the same two tunnel end points say which of them is the core; else it is the one end that
all flows of an F-TEID have in common. G-PDUs that the UE sends go to an F-TEID of the core, those
that it receives to one of the access side: a flow that shows both ties them together, and after a
handover the F-TEID of the core leads to the same subscriber. What stays ambiguous is counted and
left unknown.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from veilwatch.traffic.subscriber.messages import ACCESS, CORE, End, ue_key

MAX_LEARNED: Final = 262_144
"""Most pairs of F-TEID and UE address, at about 1 kB each; the one longest unused goes first."""

MAX_JOINED: Final = 256
"""Most F-TEIDs of one learned subscriber: a day of handovers. Beyond it the oldest is forgotten,
but for the first of the core, after which the subscriber is named."""

MAX_PAIRS: Final = 65_536
"""Most pairs of tunnel end points whose core side is learned: more than a core network has."""

LEAST_VOTES: Final = 3
CLEAR_MAJORITY: Final = 4
"""The core side of a pair is known if at least three flows tell of it, four times as many for as
against: an F-TEID that two sessions used one after the other, each with the same single server,
makes that server look like the UE. Who votes with the minority is not believed either."""

_NONE: Final[frozenset[int]] = frozenset()


class TunnelledFlow(NamedTuple):
    """What learning needs of a flow.

    Attributes
    ----------
    src, dst
        Inner addresses of initiator and responder.
    forth, back
        F-TEIDs that packets of the initiator and of the responder are sent to; None unseen.
    outer_src, outer_dst
        Tunnel end points of the initiator's and of the responder's side.
    direction
        `gtp_direction` of the flow table.
    """

    src: int
    dst: int
    outer_src: int
    outer_dst: int
    forth: End | None
    back: End | None
    direction: str
    first_ns: int
    last_ns: int


class Node(NamedTuple):
    """An F-TEID in the hands of one UE address."""

    end: End
    ue: int


@dataclass(slots=True, eq=False)
class Learned:
    """A learned subscriber: F-TEIDs that flows have tied together."""

    ue: int
    first_ns: int
    last_ns: int
    core: End | None = None
    nodes: dict[Node, str] = field(default_factory=dict)  # with the role of their F-TEID
    flows: int = 0

    @property
    def handovers(self) -> int:
        """Access F-TEIDs after the first one."""
        return max(0, sum(role == ACCESS for role in self.nodes.values()) - 1)


class Learner:
    """Bounded union of F-TEIDs by the flows that run through them.

    Attributes
    ----------
    forgotten
        Pairs of F-TEID and UE address given up for lack of room.
    """

    def __init__(self, limit: int = MAX_LEARNED) -> None:
        self._limit = limit
        self._nodes: OrderedDict[Node, Learned] = OrderedDict()
        self._common: OrderedDict[tuple[End, bool], frozenset[int]] = OrderedDict()
        self._votes: OrderedDict[tuple[int, int], list[int]] = OrderedDict()
        self.forgotten = 0

    def learned(self) -> list[Learned]:
        """Return the subscribers, in the order of their first flow."""
        unique = {id(learned): learned for learned in self._nodes.values()}
        return sorted(unique.values(), key=lambda learned: learned.first_ns)

    def observe(self, flow: TunnelledFlow) -> None:
        """Learn from one flow which inner end its F-TEIDs have in common."""
        ends = frozenset((ue_key(flow.src), ue_key(flow.dst)))
        if len(ends) < 2:
            return
        version = flow.src >> 32 == 0xFFFF  # a session may have one address of each version
        for end in (flow.forth, flow.back):
            if end is None:
                continue
            key = end, version
            common = self._common.get(key)
            if common is None or not common <= ends:
                # Nothing in common: the TEID was given to another session.
                self._common[key] = (common or ends) & ends or ends
            self._common.move_to_end(key)
            if len(self._common) > self._limit:
                self._common.popitem(last=False)

    def vote(self, flow: TunnelledFlow) -> None:
        """Learn from one flow which of its tunnel end points is the core."""
        ue = self._told_by_container(flow) or self._told_by_common_end(flow)
        if ue is None:
            return
        core = flow.outer_dst if ue == ue_key(flow.src) else flow.outer_src
        pair, _, _ = self._poll(flow)
        votes = self._votes.setdefault(pair, [0, 0])
        votes[core == pair[1]] += 1
        self._votes.move_to_end(pair)
        if len(self._votes) > MAX_PAIRS:
            self._votes.popitem(last=False)

    def join(self, flow: TunnelledFlow) -> None:
        """Tie the F-TEIDs of a flow to its UE and to each other."""
        ue = self._ue(flow)
        if ue is None:
            return
        sends = ue == ue_key(flow.src)
        core, access = (flow.forth, flow.back) if sends else (flow.back, flow.forth)
        found = None
        for end, role in ((core, CORE), (access, ACCESS)):
            if end is not None:
                found = self._add(found, Node(end, ue), role, flow)
        if found is not None and found.core is None:
            found.core = core

    def find(self, flow: TunnelledFlow) -> Learned | None:
        """Return whose flow it is, if its UE and an F-TEID of the core are known."""
        ue = self._ue(flow)
        if ue is None:
            return None
        for end in (flow.forth, flow.back):
            learned = None if end is None else self._nodes.get(Node(end, ue))
            if learned is not None and learned.core is not None:
                return learned
        return None

    def _ue(self, flow: TunnelledFlow) -> int | None:
        """Return the key of the UE's address, None unknown."""
        told = self._told_by_container(flow)
        if told is not None:
            return told
        pair, low, high = self._poll(flow)
        core = pair[high > low]
        by_end_points = ue_key(flow.src if flow.outer_dst == core else flow.dst)
        if max(low, high) >= max(LEAST_VOTES, CLEAR_MAJORITY * min(low, high)):
            return by_end_points
        told = self._told_by_common_end(flow)
        return told if low == high or told == by_end_points else None

    def _poll(self, flow: TunnelledFlow) -> tuple[tuple[int, int], int, int]:
        """Return a flow's pair of end points, and the votes for the lower and the higher one."""
        pair = (min(flow.outer_src, flow.outer_dst), max(flow.outer_src, flow.outer_dst))
        low, high = self._votes.get(pair, (0, 0))
        return pair, low, high

    @staticmethod
    def _told_by_container(flow: TunnelledFlow) -> int | None:
        if not flow.direction:
            return None
        return ue_key(flow.src if flow.direction == "uplink" else flow.dst)

    def _told_by_common_end(self, flow: TunnelledFlow) -> int | None:
        version = flow.src >> 32 == 0xFFFF
        told: set[int] = set()
        for end in (flow.forth, flow.back):
            common = self._common.get((end, version), _NONE) if end is not None else _NONE
            if len(common) == 1:
                told |= common & {ue_key(flow.src), ue_key(flow.dst)}
        return told.pop() if len(told) == 1 else None

    def _add(self, found: Learned | None, node: Node, role: str, flow: TunnelledFlow) -> Learned:
        known = self._nodes.get(node)
        if known is None:
            known = found or Learned(node.ue, flow.first_ns, flow.last_ns)
            self._enter(known, node, role)
        elif found is not None and found is not known:
            known = self._unite(found, known)
        self._nodes.move_to_end(node)
        known.first_ns = min(known.first_ns, flow.first_ns)
        known.last_ns = max(known.last_ns, flow.last_ns)
        return known

    def _enter(self, learned: Learned, node: Node, role: str) -> None:
        learned.nodes[node] = role
        self._nodes[node] = learned
        self._trim(learned)
        if len(self._nodes) > self._limit:
            self._forget(next(iter(self._nodes)))
            self.forgotten += 1

    def _trim(self, learned: Learned) -> None:
        while len(learned.nodes) > MAX_JOINED:
            self._forget(next(node for node in learned.nodes if node.end != learned.core))

    def _forget(self, node: Node) -> None:
        learned = self._nodes.pop(node)
        del learned.nodes[node]

    def _unite(self, one: Learned, other: Learned) -> Learned:
        """Make one of two; the name of the older one stays."""
        old, new = (one, other) if one.first_ns <= other.first_ns else (other, one)
        keep, gone = (old, new) if len(old.nodes) >= len(new.nodes) else (new, old)
        keep.core = old.core or new.core
        for node, role in gone.nodes.items():
            keep.nodes[node] = role
            self._nodes[node] = keep
        gone.nodes = {}
        keep.first_ns = old.first_ns
        keep.last_ns = max(one.last_ns, other.last_ns)
        keep.flows += gone.flows
        self._trim(keep)
        return keep
