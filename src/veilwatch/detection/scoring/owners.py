"""Whose traffic it is, told by its tunnel as soon as any flow in that tunnel has told it.

Who owns a tunnel is learned from several flows, or from control traffic that may come late: the
first flows of a host have no subscriber, later ones have. A host is one all the same. What ties
them together is the host's address inside one end of a tunnel (F-TEID, 3GPP TS 29.281 cl. 5.1):
two subscribers with one private address are never behind the same F-TEID.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import chain
from typing import Final

import polars as pl

from veilwatch.schema.scores import Claim

MAX_TIES: Final = 1 << 17
"""Most pairs of address and F-TEID that are remembered, some 300 bytes each: the one longest unused
goes first, and its flows then wait for another that tells."""

MAX_UNCLAIMED: Final = 1 << 14
"""Most hosts without subscriber whose tunnels are remembered, for the day somebody claims them."""

MAX_ENDS: Final = 32
"""Most F-TEIDs remembered of one such host. One with more is not moved as a whole any more: its
address is one that many subscribers share."""

_WAYS: Final = ("src_ip", "end", "teid", "subscriber")

_Tie = tuple[str, str, int]


class Owners:
    """Remember which subscriber has an address behind an F-TEID.

    Parameters
    ----------
    max_ties, max_unclaimed
        Bounds; see `MAX_TIES` and `MAX_UNCLAIMED`.
    """

    def __init__(self, *, max_ties: int = MAX_TIES, max_unclaimed: int = MAX_UNCLAIMED) -> None:
        self._max_ties = max_ties
        self._max_unclaimed = max_unclaimed
        self._owner: OrderedDict[_Tie, str] = OrderedDict()
        self._unclaimed: OrderedDict[str, set[tuple[str, int]]] = OrderedDict()

    def settle(self, flows: pl.DataFrame) -> tuple[pl.DataFrame, list[Claim]]:
        """Give flows the subscriber that their tunnel has, and say which hosts have one now.

        Parameters
        ----------
        flows
            A flow table.

        Returns
        -------
        polars.DataFrame
            The same flows; `subscriber` is filled in where it was '' and the tunnel tells it.
        list of Claim
            Hosts of which earlier flows came without subscriber, all of them in tunnels that
            are known to be of one subscriber now.
        """
        named = pl.col("subscriber") != ""
        ways = _ways(flows.filter(pl.col("gtp_depth") > 0))
        claims = self._learn(ways.filter(named)) if ways.height else []
        unknown = flows.filter(~named)
        if unknown.is_empty():
            return flows, claims
        found = self._find(ways.filter(~named)) if self._owner and ways.height else []
        if found:
            flows = _fill(flows, found)
            unknown = flows.filter(~named)
        self._wait(unknown)
        return flows, claims

    def _learn(self, ways: pl.DataFrame) -> list[Claim]:
        claims = []
        for host, end, teid, subscriber in ways.iter_rows():
            tie = host, end, teid
            self._owner[tie] = subscriber
            self._owner.move_to_end(tie)
            waiting = self._unclaimed.get(host)
            if waiting is not None and (end, teid) in waiting:
                waiting.discard((end, teid))
                if not waiting:
                    del self._unclaimed[host]
                    claims.append(Claim(host, subscriber))
        while len(self._owner) > self._max_ties:
            self._owner.popitem(last=False)
        return claims

    def _find(self, ways: pl.DataFrame) -> list[tuple[str, str, int, str]]:
        return [
            (host, end, teid, owner)
            for host, end, teid, _ in ways.iter_rows()
            if (owner := self._owner.get((host, end, teid))) is not None
        ]

    def _wait(self, unknown: pl.DataFrame) -> None:
        """Remember in which tunnels hosts without subscriber were seen; ('', 0) is in none."""
        inside = _ways(unknown.filter(pl.col("gtp_depth") > 0)).select("src_ip", "end", "teid")
        hosts = set(inside["src_ip"])
        # A host outside tunnels matters only where the same address is in one as well.
        seen = pl.Series("src_ip", sorted(hosts | self._unclaimed.keys()), dtype=pl.String)
        plain = (
            unknown.filter((pl.col("gtp_depth") == 0) & pl.col("src_ip").is_in(seen.implode()))[
                "src_ip"
            ]
            .unique()
            .to_list()
        )
        for host, end, teid in chain(inside.iter_rows(), ((host, "", 0) for host in plain)):
            ends = self._unclaimed.setdefault(host, set())
            if len(ends) < MAX_ENDS:
                ends.add((end, teid))
            else:
                ends.add(("", 0))
            self._unclaimed.move_to_end(host)
        while len(self._unclaimed) > self._max_unclaimed:
            self._unclaimed.popitem(last=False)


def _ways(flows: pl.DataFrame) -> pl.DataFrame:
    """Return the F-TEIDs that each host's packets, and those to it, were sent to."""
    sides = [
        flows.select("src_ip", end=end, teid=teid, subscriber="subscriber")
        for end, teid in (("outer_dst_ip", "fwd_teid"), ("outer_src_ip", "bwd_teid"))
    ]
    ways = pl.concat(sides).filter(pl.col("teid") > 0)
    return ways.unique(_WAYS, keep="first", maintain_order=True)


def _fill(flows: pl.DataFrame, found: list[tuple[str, str, int, str]]) -> pl.DataFrame:
    known = pl.DataFrame(
        found,
        {"src_ip": pl.String, "end": pl.String, "teid": flows.schema["fwd_teid"], "o": pl.String},
        orient="row",
    )
    told = flows.select(
        "src_ip", "gtp_depth", "outer_src_ip", "outer_dst_ip", "fwd_teid", "bwd_teid"
    )
    for name, end, teid in (
        ("forth", "outer_dst_ip", "fwd_teid"),
        ("back", "outer_src_ip", "bwd_teid"),
    ):
        told = told.join(
            known.rename({"end": end, "teid": teid, "o": name}),
            on=["src_ip", end, teid],
            how="left",
            maintain_order="left",
        )
    told = told.with_columns(subscriber=flows["subscriber"])
    # Where both directions tell, and tell of two, neither is believed.
    agree = pl.col("forth").is_null() | pl.col("back").is_null() | pl.col("forth").eq("back")
    owner = pl.when(agree).then(pl.coalesce("forth", "back", pl.lit(""))).otherwise(pl.lit(""))
    filled = told.select(
        pl.when((pl.col("subscriber") == "") & (pl.col("gtp_depth") > 0))
        .then(owner)
        .otherwise("subscriber")
        .alias("subscriber")
    )
    return flows.with_columns(filled["subscriber"])
