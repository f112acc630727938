"""Whose flow it is: by its session's number, its F-TEIDs, its inner address, or by learning."""

from __future__ import annotations

import socket
from collections import Counter
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Final

import polars as pl

from veilwatch.schema.flow_facts import TunnelFacts
from veilwatch.schema.units import DAY_NS
from veilwatch.traffic.subscriber.learn import Learned, Learner, TunnelledFlow
from veilwatch.traffic.subscriber.messages import ACCESS, CORE, MAPPED, End, Rank
from veilwatch.traffic.subscriber.pseudonym import KeyRing
from veilwatch.traffic.subscriber.session_store import Record, SessionStore, Span

MAX_UNATTRIBUTED: Final = 4096
"""Pairs of tunnel end points whose flows without subscriber are counted one by one."""

CONTROL: Final = "control"
LEARNED: Final = "learned"


_ANSWERS: Final = {
    "row": pl.UInt32,
    **dict.fromkeys(("subscriber", "subscriber_by", "apn", "location"), pl.String),
}
"""What is known of a flow, by its row in the table."""

_WAY: Final = (
    "ue",
    "peer",
    "outer_src_ip",
    "outer_dst_ip",
    "fwd_teid",
    "bwd_teid",
    "gtp_direction",
)
"""What flows of one UE through the same tunnels have in common. They have one subscriber. Where the
UE is not told these are the flows between the same two inner addresses."""


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


def _tunnelled(flow: TunnelFacts) -> TunnelledFlow:
    """Return a flow with its addresses as numbers."""
    outer_src, outer_dst = address_number(flow.outer_src_ip), address_number(flow.outer_dst_ip)
    return TunnelledFlow(
        address_number(flow.src_ip),
        address_number(flow.dst_ip),
        outer_src,
        outer_dst,
        End(outer_dst, flow.fwd_teid) if flow.gtp_depth and flow.fwd_teid else None,
        End(outer_src, flow.bwd_teid) if flow.gtp_depth and flow.bwd_teid else None,
        flow.gtp_direction,
        flow.first_ns,
        flow.last_ns,
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

    def __init__(self, store: SessionStore, learner: Learner, keys: KeyRing) -> None:
        self._store = store
        self._learner = learner
        self._keys = keys
        self.counts: Counter[str] = Counter()
        self.unattributed: Counter[tuple[str, str]] = Counter()
        self._weight = 1

    def annotate(self, frame: pl.DataFrame, *, early: bool = False) -> pl.DataFrame:
        """Fill `subscriber`, `subscriber_by`, `apn` and `location`; see `Directory.annotate`."""
        self._weight = 0 if early else 1
        sessions = (
            frame["session"] if "session" in frame.columns else pl.repeat(0, len(frame), eager=True)
        )
        chosen = frame.select(TunnelFacts._fields).with_columns(sessions.alias("session"))
        chosen = chosen.with_row_index("row")
        told = self._by_sessions(chosen)
        learned = self._by_tunnels(
            chosen.filter(pl.col("gtp_depth") > 0).join(told, on="row", how="anti")
        )
        answers = chosen.select("row").join(
            pl.concat([told, learned]), on="row", how="left", maintain_order="left"
        )
        return frame.with_columns(answers.drop("row").fill_null("").get_columns())

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

    def _by_sessions(self, flows: pl.DataFrame) -> pl.DataFrame:
        """Return the answers to the flows that control traffic tells of."""
        if not len(self._store):
            flows = flows.filter(pl.col("session") > 0)
        answers = []
        for row, *values, number in flows.iter_rows():
            flow = TunnelFacts(*values)
            tunnelled = _tunnelled(flow)
            record = self._by_control(tunnelled, number, flow.gtp_depth > 0)
            if record is not None:
                record.flows += self._weight
                self.counts["control"] += self._weight
                answers.append(self._told(row, record, tunnelled))
        return pl.DataFrame(answers, _ANSWERS, orient="row")

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
                self.counts["ambiguous"] += self._weight
                return None
        return None

    def _told(
        self, row: int, record: Record, flow: TunnelledFlow
    ) -> tuple[int, str, str, str, str]:
        subscriber = self._keys.pseudonym(self.token(record), flow.first_ns)
        return row, subscriber, CONTROL, record.apn, record.location(flow.last_ns)

    def _by_tunnels(self, flows: pl.DataFrame) -> pl.DataFrame:
        """Learn from the flows that no session claims; return the answers to those it tells of."""
        up, directed = pl.col("gtp_direction") == "uplink", pl.col("gtp_direction") != ""
        src, dst = pl.col("src_ip"), pl.col("dst_ip")
        flows = flows.with_columns(
            ue=pl.when(up | ~directed).then(src).otherwise(dst),
            peer=pl.when(directed).then(pl.lit("")).otherwise(dst),
            other=pl.when(up).then(dst).otherwise(src),
        )
        # Two flows to different servers show what their tunnels have in common, and more do not.
        showing = flows.unique([*_WAY, "other"], keep="first", maintain_order=True).filter(
            pl.int_range(pl.len()).over(_WAY) < 2
        )
        if self._weight:
            for flow in showing.select(TunnelFacts._fields).iter_rows():
                self._learner.observe(_tunnelled(TunnelFacts(*flow)))
        ways = flows.group_by(_WAY, maintain_order=True).agg(
            pl.col("gtp_depth", "src_ip", "dst_ip").first(),
            pl.col("first_ns").min(),
            pl.col("last_ns").max(),
            pl.col("row"),
            # Pseudonyms change at the earliest after a day.
            day=pl.col("first_ns") // DAY_NS,
        )
        tunnelled = [
            _tunnelled(TunnelFacts(*way)) for way in ways.select(TunnelFacts._fields).iter_rows()
        ]
        if self._weight:
            for learn in (self._learner.vote, self._learner.join):
                for way in tunnelled:
                    learn(way)
        counts = (ways["row"].list.len() * self._weight).to_list()
        tokens = [self._learned(*way) for way in zip(tunnelled, counts, strict=True)]
        rows = (
            ways.select("row", "day", token=pl.Series(tokens, dtype=pl.Binary))
            .filter(pl.col("token").is_not_null())
            .explode("row", "day")
        )
        names = rows.select("token", "day").unique()
        shown = [self._keys.pseudonym(token, day * DAY_NS) for token, day in names.iter_rows()]
        return rows.join(
            names.with_columns(subscriber=pl.Series(shown, dtype=pl.String)), on=["token", "day"]
        ).select(
            "row", "subscriber", subscriber_by=pl.lit(LEARNED), apn=pl.lit(""), location=pl.lit("")
        )

    def _learned(self, way: TunnelledFlow, flows: int) -> bytes | None:
        """Return the token of the subscriber of flows that go one way, None unknown."""
        learned = self._learner.find(way)
        if learned is None or learned.core is None:
            self.counts["ambiguous"] += flows
            ends = sorted((way.outer_src, way.outer_dst))
            pair = (address_text(ends[0]), address_text(ends[1]))
            room = len(self.unattributed) < MAX_UNATTRIBUTED
            if flows and (room or pair in self.unattributed):
                self.unattributed[pair] += flows
            return None
        learned.flows += flows
        self.counts["learned"] += flows
        return self.tunnel_token(learned.ue, learned.core)

    def learned_name(self, learned: Learned, ts_ns: int) -> str:
        """Return the pseudonym of a learned subscriber, '' while its core F-TEID is unknown."""
        if learned.core is None:
            return ""
        return self._keys.pseudonym(self.tunnel_token(learned.ue, learned.core), ts_ns)
