"""Features of a host window over what it talks to: sweeps, beacons, and the hour before."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import polars as pl

from veilwatch.learning.features.base import Feature, feature, ratio
from veilwatch.learning.features.window_activity import ANSWERED
from veilwatch.learning.features.windows import PAIR, WINDOW, network
from veilwatch.schema.units import HOUR_NS

REPEATS: Final = 4
"""Least starts by which a pair's rhythm is judged: three gaps."""

SLOWEST_S: Final = 1.0
"""Calls that follow each other faster are one piece of work, not a rhythm."""

REGULAR: Final = 0.25
"""Deviation of gaps over their mean below which a pair is regular: a beacon with a jitter of
± 40 % evenly spread has 0.23, calls at random 1."""

NEAR: Final = 0.1
"""Share of the median by which a gap may miss it and still count as the same."""

CONTEXT_WINDOWS: Final = 12
"""Windows of an hour: the window itself and those before."""

MAX_GAP_NS: Final = HOUR_NS
"""Longest gap between calls that counts towards a rhythm, the length of the context."""

TICK_NS: Final = 100_000

HOUR_ROWS: Final = 1 << 20
"""Pairs by window of which the hours are summed up at one time, 100 MiB: a pair counts in the hours
of twelve windows, so that a sweep of a million destinations makes twelve million."""

DESTINATIONS: Final[tuple[Feature, ...]] = (
    feature(
        "dead_destinations",
        (~pl.col("answered")).sum(),
        "",
        "Destinations that answered no flow",
    ),
    feature(
        "dead_destination_share",
        (~pl.col("answered")).mean(),
        "",
        "Share of destinations that answered no flow",
    ),
    feature("port_sweep", pl.col("ports").max(), "", "Most ports tried at one destination"),
)
"""Aggregations over the destinations of a window."""

PORTS: Final[tuple[Feature, ...]] = (
    feature("host_sweep", pl.col("destinations").max(), "", "Most destinations of one port"),
    feature(
        "host_sweep_dead",
        pl.col("dead").max(),
        "",
        "Most flows without an answer to one port",
    ),
)
"""Aggregations over the ports of a window."""

NETWORKS: Final[tuple[Feature, ...]] = (
    feature(
        "network_sweep", pl.col("destinations").max(), "", "Most destinations within one network"
    ),
)
"""Aggregations over the networks of a window."""

# Of a window's pairs and of an hour's: `gaps` between calls, their `period` and `variation`.
_RHYTHM: Final = (pl.col("gaps") >= REPEATS - 1) & (pl.col("period") >= SLOWEST_S)
_REGULAR: Final = _RHYTHM & (pl.col("variation") < REGULAR)


def _of_steadiest(name: str) -> pl.Expr:
    """Return a value of the pair whose gaps vary least, of several the one with most gaps."""
    order = pl.struct(
        pl.col("variation"),
        (-pl.col("gaps").cast(pl.Int64)).alias("fewness"),
        pl.col(name).alias("value"),
    )
    # Sorted as one value: several that are each filtered are refused before Polars 2.1.
    return order.filter(_RHYTHM).sort().first().struct.field("value")


BEACONS: Final[tuple[Feature, ...]] = (
    feature("pairs", pl.len(), "", "Distinct destinations with port and protocol"),
    feature("pair_calls_max", pl.col("calls").max(), "", "Most flows of one destination and port"),
    feature(
        "repeated_pairs",
        (pl.col("calls") >= REPEATS).sum(),
        "",
        "Destinations and ports with four flows or more",
    ),
    feature(
        "pair_equal_share",
        pl.col("equal").filter(pl.col("calls") >= REPEATS).max(),
        "",
        "Largest share of flows of one destination and port with the same payload both ways",
    ),
    feature(
        "beacon_variation",
        _of_steadiest("variation"),
        "",
        "Deviation over mean of the gaps of the steadiest destination and port: low for a beacon",
    ),
    feature(
        "beacon_period",
        _of_steadiest("period"),
        "s",
        "Median gap of the steadiest destination and port",
    ),
    feature("beacon_gaps", _of_steadiest("gaps"), "", "Gaps of the steadiest destination and port"),
    feature(
        "beacon_jitter",
        _of_steadiest("jitter"),
        "",
        "Longest minus shortest gap over the median, of the steadiest destination and port",
    ),
    feature(
        "beacon_equal_share",
        _of_steadiest("equal"),
        "",
        "Share of flows with the same payload, of the steadiest destination and port",
    ),
    feature(
        "beacon_strength",
        pl.col("near").filter(_RHYTHM).max(),
        "",
        "Largest share of gaps of one destination and port within a tenth of their median",
    ),
    feature("beacon_pairs", _REGULAR.sum(), "", "Destinations and ports with regular gaps"),
    feature(
        "beacon_flow_share",
        pl.col("calls").filter(_REGULAR).sum() / pl.col("calls").sum(),
        "",
        "Share of flows to destinations and ports with regular gaps",
    ),
)
"""Aggregations over the pairs of a window."""

HOUR: Final[tuple[Feature, ...]] = (
    feature("hour_flows", pl.col("calls").sum(), "", "Flows in the hour that the window ends"),
    feature("hour_pairs", pl.len(), "", "Destinations and ports in that hour"),
    feature(
        "hour_unanswered_share",
        ratio(pl.col("dead").sum(), pl.col("calls").sum()),
        "",
        "Share of flows without an answer in that hour",
    ),
    feature(
        "hour_up_share",
        ratio(pl.col("up").sum(), pl.col("up").sum() + pl.col("down").sum()),
        "",
        "Share of IP bytes sent by the host in that hour",
    ),
    feature(
        "hour_top_share",
        pl.col("calls").max() / pl.col("calls").sum(),
        "",
        "Share of flows to the destination and port with most of them in that hour",
    ),
    feature(
        "hour_beacon_variation",
        _of_steadiest("variation"),
        "",
        "Deviation over mean of the gaps of the steadiest destination and port in that hour",
    ),
    feature(
        "hour_beacon_period",
        _of_steadiest("period"),
        "s",
        "Mean gap of the steadiest destination and port in that hour",
    ),
    feature(
        "hour_beacon_gaps",
        _of_steadiest("gaps"),
        "",
        "Gaps of the steadiest destination and port in that hour",
    ),
    feature(
        "hour_beacon_flow_share",
        pl.col("calls").filter(_REGULAR).sum() / pl.col("calls").sum(),
        "",
        "Share of flows to destinations and ports with regular gaps in that hour",
    ),
)
"""Aggregations over the pairs of the hour that a window ends."""


def pair_features(flows: pl.DataFrame) -> Iterable[pl.LazyFrame]:
    """Return the features of destinations, ports, networks, pairs and the hour, a frame each."""
    table = flows.lazy()
    destinations = table.group_by(*WINDOW, "destination").agg(
        answered=ANSWERED.any(), ports=pl.col("dst_port").n_unique()
    )
    ports = table.group_by(*WINDOW, "protocol", "dst_port").agg(
        destinations=pl.col("destination").n_unique(), dead=(~ANSWERED).sum()
    )
    networks = table.group_by(*WINDOW, network().alias("network")).agg(
        destinations=pl.col("destination").n_unique()
    )
    for level, features in (
        (destinations, DESTINATIONS),
        (ports, PORTS),
        (networks, NETWORKS),
        (_pairs(table), BEACONS),
    ):
        yield level.group_by(WINDOW).agg(item.expression for item in features)
    yield _hour_features(table)


def _pairs(table: pl.LazyFrame) -> pl.LazyFrame:
    """Return each pair of each window with its rhythm; a gap lies within one window."""
    gap = (pl.col("pair_gap_ns") / 1e9).filter(pl.col("gap_inside"))
    exchange = pl.struct("fwd_payload_bytes", "bwd_payload_bytes")
    key = (*PAIR, "window")
    # Most pairs are seen once or twice: only the others are worth the dear expressions.
    repeated = table.filter(pl.len().over(key) >= REPEATS)
    rhythm = repeated.group_by(key).agg(
        gaps=gap.count(),
        period=gap.median(),
        variation=ratio(gap.std(ddof=0), gap.mean()),
        jitter=ratio(gap.max() - gap.min(), gap.median()),
        near=((gap - gap.median()).abs() <= NEAR * gap.median()).mean(),
        equal=exchange.unique_counts().max() / pl.len(),
    )
    return table.group_by(key).agg(calls=pl.len()).join(rhythm, on=key, how="left")


def _hour_features(table: pl.LazyFrame) -> pl.LazyFrame:
    """Return the features of the hour that each window ends."""
    by_window = _by_window(table).collect()
    earlier = _earlier(table.select(WINDOW).unique())
    sizes = by_window.lazy().group_by("host", "then").agg(rows=pl.len())
    windows = (
        earlier.join(sizes, on=("host", "then"))
        .group_by(WINDOW)
        .agg(pl.col("rows").sum())
        .sort(WINDOW)
        .select(*WINDOW, part=(pl.col("rows").cum_sum() - pl.col("rows")) // HOUR_ROWS)
        .collect()
    )
    # One after the other: together they would be what the bound is there to avoid.
    parts = windows.partition_by("part", maintain_order=True)
    if len(parts) > 1:
        made = (_of_hours(part, by_window).collect() for part in parts)
        return pl.concat(list(made)).lazy()
    return _of_hours(windows, by_window)


def _of_hours(windows: pl.DataFrame, by_window: pl.DataFrame) -> pl.LazyFrame:
    hours = _hours(windows.lazy().select(WINDOW), by_window.lazy())
    return hours.group_by(WINDOW).agg(item.expression for item in HOUR)


def _by_window(table: pl.LazyFrame) -> pl.LazyFrame:
    """Return each pair of each window, which is called `then`, with sums over its flows."""
    # Whole numbers below 2^53, even squared and summed over an hour: exact in any order.
    ticks = (pl.col("pair_gap_ns") // TICK_NS).cast(pl.Float64)
    gap = ticks.filter(pl.col("pair_gap_ns") <= MAX_GAP_NS)
    return (
        table.group_by(*PAIR, "window")
        .agg(
            calls=pl.len(),
            dead=(~ANSWERED).sum(),
            up=pl.col("up").sum(),
            down=pl.col("down").sum(),
            gaps=gap.count(),
            gap_sum=gap.sum(),
            gap_squares=(gap * gap).sum(),
        )
        .rename({"window": "then"})
    )


def _earlier(windows: pl.LazyFrame) -> pl.LazyFrame:
    """Return each window with itself and those of the hour before, `then`."""
    back = pl.LazyFrame({"back": range(CONTEXT_WINDOWS)}, {"back": pl.Int64})
    return windows.join(back, how="cross").with_columns(then=pl.col("window") - pl.col("back"))


def _hours(windows: pl.LazyFrame, by_window: pl.LazyFrame) -> pl.LazyFrame:
    """Return each pair of the hour that each window ends, with sums over that hour."""
    mean = ratio(pl.col("gap_sum"), pl.col("gaps"))
    return (
        _earlier(windows)
        .join(by_window, on=("host", "then"))
        .group_by(*PAIR, "window")
        .agg(pl.col("calls", "dead", "up", "down", "gaps", "gap_sum", "gap_squares").sum())
        .with_columns(
            period=mean * TICK_NS / 1e9,
            variation=ratio(
                (pl.col("gap_squares") / pl.col("gaps") - mean * mean).clip(0).sqrt(), mean
            ),
        )
    )
