"""From flows to channels: what a host says to one service within an hour.

A channel is what an analyst can act on: this host, this server, this port. It begins anew every
hour after the host's first flow, so that a sensor keeps no more than the hour that it keeps anyway.
"""

from __future__ import annotations

from typing import Final

import polars as pl

from veilwatch.learning.features.flow_class import flow_class
from veilwatch.learning.features.resolved import resolved_names
from veilwatch.learning.features.windows import HOST, PLACE, WINDOW_NS, window_flows
from veilwatch.schema.units import HOUR_NS

CHANNEL: Final = ("host", "pair", "hour")
"""A channel is the number of its host, of address, port and protocol, and of the hour."""

CHANNEL_KEYS: Final = (
    *(*HOST, PLACE, "dst_ip", "dst_port", "protocol", "hour", "first_ns", "last_ns"),
    *("flow_id", "flow_count", "flow_class"),
)
"""What identifies a channel: its host, the service, the hour; first start and last end of its
flows, the first of them, how many there are, and their class (`flow_class`)."""

WINDOWS_AN_HOUR: Final = HOUR_NS // WINDOW_NS


def channel_flows(frame: pl.DataFrame) -> pl.DataFrame:
    """Return flows with their channel, in order of host and time.

    Parameters
    ----------
    frame
        As `veilwatch.learning.features.windows.window_flows` takes it.

    Returns
    -------
    polars.DataFrame
        What `window_flows` gives, and `hour`, `flow_class`, `resolved_name`
        (`veilwatch.learning.features.resolved`), `place_resolves` (whether any flow of the
        place has one), and `call_gap`: seconds since the start
        of the channel's flow before, null for the first and for records that continue a flow.
    """
    opens = pl.col("flow_id") == pl.col("parent_id")
    flows = window_flows(frame)
    return (
        flows.with_columns(resolved_names(flows))
        .lazy()
        .with_columns(
            hour=pl.col("window") // WINDOWS_AN_HOUR,
            flow_class=flow_class(),
            place_resolves=(pl.col("resolved_name") != "").any().over(PLACE),
        )
        .with_columns(
            call_gap=pl.when(opens).then(pl.col("first_ns").diff().over(*CHANNEL, opens)) / 1e9
        )
        .collect()
    )


def channel_key() -> tuple[tuple[str, ...], list[pl.Expr]]:
    """Return the columns that tell channels apart, and the expressions that add them to flows.

    For flows of which all of a host are there; they have a column `PLACE`.
    """
    host = (PLACE, *HOST)
    began = pl.col("first_ns").min().over(host)
    hour = ((pl.col("first_ns") - began) // HOUR_NS).alias("hour")
    return (*host, "dst_ip", "dst_port", "protocol", "hour"), [hour]
