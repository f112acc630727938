"""Whose flow it is: by its session's number, its F-TEIDs, its inner address, or by learning."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Hashable
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

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


def _summed(flows: list[tuple[int, TunnelledFlow]]) -> TunnelledFlow:
    """Return flows of one UE through the same tunnels as one."""
    first = min(flow.first_ns for _, flow in flows)
    last = max(flow.last_ns for _, flow in flows)
    return flows[0][1]._replace(first_ns=first, last_ns=last)


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
        tunnelled: dict[Hashable, list[tuple[int, TunnelledFlow]]] = {}
        wanted = (frame["gtp_depth"] > 0) | (sessions > 0)
        if len(self._store):
            wanted |= True
        rows = pl.DataFrame({"row": wanted.arg_true()})["row"].to_list()
        chosen = frame.select(_WANTED)[rows].with_columns(sessions[rows].alias("session"))
        for row, flow in zip(rows, chosen.iter_rows(), strict=True):
            depth, src, dst, outer_src, outer_dst, forth, back, direction, first, last, number = (
                flow
            )
            seen = TunnelledFlow(
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
            record = self._by_control(seen, number, bool(depth))
            if record is not None:
                record.flows += 1
                self.counts["control"] += 1
                answers[row] = self._told(record, first, last)
            elif depth:
                # Where the UE is told, its other flows through the same tunnels are like this one.
                inner = (src, dst) if not direction else src if direction == "uplink" else dst
                way = (inner, outer_src, outer_dst, forth, back, direction)
                tunnelled.setdefault(way, []).append((row, seen))
        for flows in tunnelled.values():
            for _, seen in flows:
                self._learner.observe(seen)
        lessons = [_summed(flows) for flows in tunnelled.values()]
        for learn in (self._learner.vote, self._learner.join):
            for seen in lessons:
                learn(seen)
        for seen, flows in zip(lessons, tunnelled.values(), strict=True):
            learned = self._learner.find(seen)
            for row, flow_seen in flows:
                answers[row] = self._learned(learned, flow_seen)
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

    def _learned(self, learned: Learned | None, flow: TunnelledFlow) -> _Answer:
        if learned is None:
            self.counts["ambiguous"] += 1
            ends = sorted((flow.outer_src, flow.outer_dst))
            pair = (address_text(ends[0]), address_text(ends[1]))
            if pair in self.unattributed or len(self.unattributed) < MAX_UNATTRIBUTED:
                self.unattributed[pair] += 1
            return _UNKNOWN
        learned.flows += 1
        self.counts["learned"] += 1
        return _Answer(self.learned_name(learned, flow.first_ns), LEARNED)

    def learned_name(self, learned: Learned, ts_ns: int) -> str:
        """Return the pseudonym of a learned subscriber, '' while its core F-TEID is unknown."""
        if learned.core is None:
            return ""
        return self._keys.pseudonym(self.tunnel_token(learned.ue, learned.core), ts_ns)
