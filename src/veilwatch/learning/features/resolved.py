"""Which name a destination was resolved from, as far as the traffic shows it.

A host asks for a name and then talks to an address that it was answered with. Asked over HTTPS, TLS
or QUIC (DoH, DoT, DoQ) or over TCP nobody sees it, nor what a cache has held for more than a day:
then there is no name. Multicast names (mDNS, LLMNR) do not count: whoever is near may answer, and
for itself. Of several questions on one pair of ports the first is known. That an answer is true is
not known: a host that is infected may ask a resolver of its own.
"""

from __future__ import annotations

from typing import Final

import polars as pl

from veilwatch.learning.features.windows import HOST, PLACE
from veilwatch.schema.units import DAY_NS, SECOND_NS

MAX_AGE_NS: Final = DAY_NS
"""How long an answer names its addresses. Few names are kept longer by clients than by their TTL,
mostly minutes; programs that stay connected, or hold an address, come back within a day, while
addresses of clouds have got other tenants some days later."""

RESOLVED_COLUMNS: Final = (
    *(*HOST, "src_port", "dst_ip", "dst_port", "first_ns", "fwd_start", "bwd_start"),
    *("dns_query", "dns_addresses"),
)
"""What is needed of a flow table."""

_DNS: Final = 53
"""Port of unicast DNS: answers of multicast come from others."""


def resolved_names(frame: pl.DataFrame) -> pl.Series:
    """Return the name that each flow's destination was resolved from, '' where none is known.

    It is the name whose answer came last before the flow began, and not more than `MAX_AGE_NS`
    before: asked for by the flow's own host or, where that never asked, by any host of the place,
    as a resolver asks for others. What the flow says of itself (SNI) is not looked at.

    Parameters
    ----------
    frame
        `RESOLVED_COLUMNS` of a flow table, in any order of rows. With `PLACE` only answers of the
        same place count.

    Returns
    -------
    polars.Series
        String, shape (flows,).
    """
    if PLACE not in frame.columns:
        frame = frame.with_columns(pl.lit(0, pl.UInt32).alias(PLACE))
    # Numbers for hosts and destinations: what is joined is some 20 bytes an address.
    hosts = frame.select(PLACE, *HOST).unique().with_row_index("host")
    destinations = frame.select(PLACE, address="dst_ip").unique().with_row_index("destination")
    lookups = _lookups(frame).join(hosts, on=[PLACE, *HOST], how="left", maintain_order="left")
    answers = (
        lookups.lazy()
        .select("lookup", PLACE, address="dns_addresses")
        .explode("address")
        .join(destinations.lazy(), on=[PLACE, "address"])
        .select("lookup", "destination")
        .join(lookups.lazy().select("lookup", "host", "told_ns"), on="lookup")
        .with_columns(_pair())
        .sort("lookup")  # by time
        .collect()
    )
    flows = (
        frame.lazy()
        .with_row_index("flow")
        .select("flow", PLACE, *HOST, "first_ns", address="dst_ip")
        .join(destinations.lazy(), on=[PLACE, "address"])
        .join(answers.lazy(), on="destination", how="semi")
        .join(hosts.lazy(), on=[PLACE, *HOST])
        .select("flow", "first_ns", "destination", _pair())
        .sort("first_ns")
        .collect()
    )
    for name, by in (("own", "pair"), ("any", "destination")):
        flows = flows.join_asof(
            answers.select(by, "told_ns", pl.col("lookup").alias(name)),
            left_on="first_ns",
            right_on="told_ns",
            by=by,
            tolerance=MAX_AGE_NS,
            coalesce=True,
            check_sortedness=False,  # it cannot be checked within groups, and they are
        )
    lookup = pl.repeat(None, frame.height, dtype=pl.UInt32, eager=True)
    lookup = lookup.scatter(flows["flow"], flows.select(pl.coalesce("own", "any")).to_series())
    return lookups["dns_query"].gather(lookup).fill_null("").alias("resolved_name")


def _lookups(frame: pl.DataFrame) -> pl.DataFrame:
    """Return answers by the time at which they came, numbered, under the address of who asked.

    Of two at the same time the one whose name sorts last counts, whatever the order of rows.
    """
    # Where only the answer was seen, or the question was late, the resolver is the flow's source.
    turned = (pl.col("src_port") == _DNS) & (pl.col("dst_port") != _DNS)
    after_s = pl.when(turned).then("fwd_start").otherwise("bwd_start").cast(pl.Float64)
    return (
        frame.lazy()
        .filter(
            (pl.col("src_port") == _DNS) | (pl.col("dst_port") == _DNS),
            pl.col("dns_query") != "",
            pl.col("dns_addresses").list.len() > 0,
        )
        .select(
            PLACE,
            "subscriber",
            "dns_query",
            "dns_addresses",
            src_ip=pl.when(turned).then("dst_ip").otherwise("src_ip"),
            told_ns=pl.col("first_ns") + (after_s.fill_nan(0) * SECOND_NS).cast(pl.Int64),
        )
        .sort("told_ns", "dns_query")
        .with_row_index("lookup")
        .collect()
    )


def _pair() -> pl.Expr:
    """Return one number for a host and a destination."""
    pair = pl.col("host").cast(pl.UInt64) * 2**32 + pl.col("destination")
    return pair.alias("pair")
