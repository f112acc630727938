"""Flows and the channels that they belong to."""

from __future__ import annotations

import polars as pl

from tests.learning.features.factory import random_flows
from tests.learning.features.varied import NS, START, varied_flows
from veilwatch.learning.features.channels import CHANNEL, channel_flows, channel_key
from veilwatch.learning.features.windows import BEGAN, HOST

SERVICE = [*HOST, "place", "dst_ip", "dst_port", "protocol", "hour"]


def test_flows_of_a_channel_share_host_service_and_hour() -> None:
    frame = varied_flows(600, seed=3).frame
    flows = channel_flows(frame)
    assert flows.height == frame.height
    assert flows.select(CHANNEL).n_unique() == flows.select(SERVICE).n_unique()
    both = {*CHANNEL, *SERVICE}
    assert flows.select(both).n_unique() == flows.select(CHANNEL).n_unique()
    began = pl.col("first_ns").min().over("host")
    hour = flows.select((pl.col("first_ns") - began) // (3600 * NS)).to_series()
    assert hour.to_list() == flows["hour"].to_list()
    assert flows["hour"].n_unique() == 3


def test_hours_begin_where_a_sensor_says_that_the_host_began() -> None:
    frame = varied_flows(100, seed=4).frame.with_columns(pl.lit(START - 1800 * NS).alias(BEGAN))
    flows = channel_flows(frame)
    hour = flows.select((pl.col("first_ns") - START + 1800 * NS) // (3600 * NS)).to_series()
    assert hour.to_list() == flows["hour"].to_list()


def test_a_call_is_as_far_as_the_one_before_it() -> None:
    """Records that continue a flow begin nothing."""
    rows = 4
    frame = random_flows(rows).frame.with_columns(
        *(pl.lit(value).alias(name) for name, value in (("src_ip", "10.0.0.1"), ("dst_ip", "b"))),
        *(pl.lit(443, pl.UInt16).alias("dst_port"), pl.lit(6, pl.UInt8).alias("protocol")),
        subscriber=pl.lit(""),
        first_ns=START + pl.Series([0, 10, 15, 30]) * NS,
        parent_id=pl.Series([0, 1, 1, 3]),
    )
    assert channel_flows(frame)["call_gap"].to_list() == [None, 10.0, None, 20.0]


def test_the_key_tells_channels_apart_as_the_flows_do() -> None:
    """For flows of which all of a host are there."""
    frame = varied_flows(500, seed=5).frame
    key, expressions = channel_key()
    ours = frame.with_columns(expressions).group_by(key).agg(pl.col("flow_id").sort())
    theirs = channel_flows(frame).group_by(CHANNEL).agg(pl.col("flow_id").sort())
    assert set(map(tuple, ours["flow_id"])) == set(map(tuple, theirs["flow_id"]))
