"""Whose flow it is: by its session's number, its F-TEIDs, its inner address, or by learning."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final, NamedTuple

import polars as pl

from veilwatch.subscriber.learn import Learned, Learner, TunnelledFlow
from veilwatch.subscriber.messages import ACCESS, CORE, MAPPED, End, Rank
from veilwatch.subscriber.pseudonym import KeyRing
from veilwatch.subscriber.store import Record, Span, Store

MAX_UNATTRIBUTED: Final = 4096
"""Pairs of tunnel end points whose flows without subscriber are counted one by one."""

_WANTED: Final = (
    *("gtp_depth", "src_ip", "dst_ip", "outer_src_ip", "outer_dst_ip", "fwd_teid", "bwd_teid"),
    *("gtp_direction", "first_ns", "last_ns"),
)

CONTROL: Final = "control"
LEARNED: Final = "learned"


class _Answer(NamedTuple):
    subscriber: str = ""
    by: str = ""
    apn: str = ""
    location: str = ""


_UNKNOWN: Final = _Answer()


@lru_cache(maxsize=65_536)
def address_number(text: str) -> int:
    """Return an address as 128 bits, IPv4 as ::ffff:a.b.c.d; 0 for ''."""
    if not text:
        return 0
    if ":" in text:
        return int.from_bytes(socket.inet_pton(socket.AF_INET6, text), "big")
    return MAPPED | int.from_bytes(socket.inet_pton(socket.AF_INET, text), "big")


def address_text(number: int) -> str:
    """Write an address as people do."""
    if number >> 32 == 0xFFFF:
        return str(IPv4Address(number & 0xFFFF_FFFF))
    return str(IPv6Address(number))


def ue_text(key: int) -> str:
    """Write an address of a UE; of IPv6 the prefix."""
    return address_text(key) if key >> 32 == 0xFFFF else f"{IPv6Address(key)}/64"


def _packed(end: End) -> bytes:
    return end.address.to_bytes(16, "big") + end.teid.to_bytes(4, "big")


@dataclass(slots=True)
class _Way:
    """Flows of one UE through the same tunnels."""

    flow: TunnelledFlow
    first_ns: int
    last_ns: int
    rows: list[tuple[int, int]] = field(default_factory=list)  # with the flow's first_ns
    others: list[str] = field(default_factory=list)


def _tunnelled(flow: tuple[Any, ...]) -> TunnelledFlow:
    """Read a row of the columns `_WANTED`."""
    depth, src, dst, outer_src, outer_dst, forth, back, direction, first, last, _ = flow
    return TunnelledFlow(
        address_number(src),
        address_number(dst),
        address_number(outer_src),
        address_number(outer_dst),
        End(address_number(outer_dst), forth) if depth and forth else None,
        End(address_number(outer_src), back) if depth and back else None,
        direction,
        first,
        last,
    )


def _initiators(forth: Span, back: Span) -> Span | None:
    """Return the span whose session is the initiator's: it sends uplink and receives downlink."""
    if (forth.role == CORE) == (back.role == ACCESS):
        return None
    return forth if forth.role == CORE else back


class Attributor:
    """Gives flows their subscriber.

    Parameters
    ----------
    store
        Sessions known from control traffic.
    learner
        Subscribers learned from tunnels.
    keys
        Makes pseudonyms.

    Attributes
    ----------
    counts
        Flows by what became of them.
    unattributed
        Flows in tunnels without subscriber by their pair of end points.
    """

    def __init__(self, store: Store, learner: Learner, keys: KeyRing) -> None:
        self._store = store
        self._learner = learner
        self._keys = keys
        self.counts: Counter[str] = Counter()
        self.unattributed: Counter[tuple[str, str]] = Counter()

    def annotate(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Fill `subscriber`, `subscriber_by`, `apn` and `location`; see `Directory.annotate`."""
        sessions = (
            frame["session"] if "session" in frame.columns else pl.repeat(0, len(frame), eager=True)
        )
        answers = [_UNKNOWN] * len(frame)
        ways: dict[Hashable, _Way] = {}
        wanted = (frame["gtp_depth"] > 0) | (sessions > 0)
        if len(self._store):
            wanted |= True
        told = bool((sessions > 0).any()) or len(self._store) > 0
        rows = pl.DataFrame({"row": wanted.arg_true()})["row"].to_list()
        chosen = frame.select(_WANTED)[rows].with_columns(sessions[rows].alias("session"))
        for row, flow in zip(rows, chosen.iter_rows(), strict=True):
            if told:
                record = self._by_control(_tunnelled(flow), flow[-1], flow[0] > 0)
                if record is not None:
                    record.flows += 1
                    self.counts["control"] += 1
                    answers[row] = self._told(record, flow[8], flow[9])
                    continue
            if flow[0]:
                self._group(ways, row, flow)
        for way in ways.values():
            way.flow = way.flow._replace(first_ns=way.first_ns, last_ns=way.last_ns)
        for learn in (self._learner.vote, self._learner.join):
            for way in ways.values():
                learn(way.flow)
        for way in ways.values():
            self._learned(way, answers)
        columns = zip(*answers, strict=True) if answers else ((), (), (), ())
        names = ("subscriber", "subscriber_by", "apn", "location")
        return frame.with_columns(
            pl.Series(name, values, pl.String) for name, values in zip(names, columns, strict=True)
        )

    def token(self, record: Record) -> bytes:
        """Return a session's token: of its identity, else of its address and core F-TEID."""
        if record.rank is not Rank.NONE:
            return record.token
        core = next((span.end for span in record.spans if span.role == CORE), None)
        ue = next(iter(record.addresses), 0)
        if core is not None and ue:
            return self.tunnel_token(ue, core)
        place = b"" if core is None else _packed(core)
        parts = (place, ue.to_bytes(16, "big"), record.created_ns.to_bytes(8, "big", signed=True))
        return self._keys.token("session", b"".join(parts))

    def tunnel_token(self, ue: int, core: End) -> bytes:
        """Return the token of what is known by its address and core F-TEID only."""
        return self._keys.token("tunnel", ue.to_bytes(16, "big") + _packed(core))

    def _by_control(self, flow: TunnelledFlow, number: int, tunnelled: bool) -> Record | None:
        if number:
            return self._store.by_number(number)
        if tunnelled:
            return self._by_ends(flow)
        return self._by_address(flow)

    def _by_ends(self, flow: TunnelledFlow) -> Record | None:
        forth, back = (
            None if end is None else self._store.by_end(end, flow.first_ns, flow.last_ns)
            for end in (flow.forth, flow.back)
        )
        if forth is None or back is None or forth.record is back.record:
            span = forth or back
            return None if span is None else span.record
        # Between two subscribers of one core the flow is seen in the tunnels of both.
        span = _initiators(forth, back)
        return None if span is None else span.record

    def _by_address(self, flow: TunnelledFlow) -> Record | None:
        """Find the one session that holds the initiator's address, else the responder's."""
        for address in (flow.src, flow.dst):
            found = self._store.by_address(address, flow.first_ns, flow.last_ns)
            if len(found) == 1:
                return found[0]
            if found:
                self.counts["ambiguous"] += 1
                return None
        return None

    def _told(self, record: Record, first_ns: int, last_ns: int) -> _Answer:
        subscriber = self._keys.pseudonym(self.token(record), first_ns)
        return _Answer(subscriber, CONTROL, record.apn, record.location(last_ns))

    def _group(self, ways: dict[Hashable, _Way], row: int, flow: tuple[Any, ...]) -> None:
        """Put a flow to those of its UE through the same tunnels, which have one subscriber.

        Where the UE is not told, to those between the same two inner addresses.
        """
        _, src, dst, outer_src, outer_dst, forth, back, direction, first, last, _ = flow
        inner, other = (src, dst) if direction == "uplink" else (dst, src)
        key = (inner if direction else (src, dst), outer_src, outer_dst, forth, back, direction)
        way = ways.get(key)
        if way is None:
            way = ways[key] = _Way(_tunnelled(flow), first, last)
        way.rows.append((row, first))
        way.first_ns, way.last_ns = min(way.first_ns, first), max(way.last_ns, last)
        # Two flows to different servers show what their tunnels have in common, and more do not.
        if other not in way.others and len(way.others) < 2:
            way.others.append(other)
            self._learner.observe(_tunnelled(flow))

    def _learned(self, way: _Way, answers: list[_Answer]) -> None:
        learned = self._learner.find(way.flow)
        if learned is None:
            self.counts["ambiguous"] += len(way.rows)
            ends = sorted((way.flow.outer_src, way.flow.outer_dst))
            pair = (address_text(ends[0]), address_text(ends[1]))
            if pair in self.unattributed or len(self.unattributed) < MAX_UNATTRIBUTED:
                self.unattributed[pair] += len(way.rows)
            return
        learned.flows += len(way.rows)
        self.counts["learned"] += len(way.rows)
        core = learned.core
        token = b"" if core is None else self.tunnel_token(learned.ue, core)
        for row, first_ns in way.rows:
            name = self._keys.pseudonym(token, first_ns) if token else ""
            answers[row] = _Answer(name, LEARNED)

    def learned_name(self, learned: Learned, ts_ns: int) -> str:
        """Return the pseudonym of a learned subscriber, '' while its core F-TEID is unknown."""
        if learned.core is None:
            return ""
        return self._keys.pseudonym(self.tunnel_token(learned.ue, learned.core), ts_ns)
