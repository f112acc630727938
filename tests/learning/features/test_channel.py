"""Channels against a plain-Python reading, and what must not matter to them."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from tests.learning.features import naive_channels
from tests.learning.features.factory import random_flows
from tests.learning.features.varied import NS, START, varied_flows
from veilwatch.corpus.blend import Blend, blend_flows
from veilwatch.learning.features import compute_features
from veilwatch.learning.features.channel import CHANNEL_SET, channels
from veilwatch.learning.features.resolved import resolved_names
from veilwatch.learning.features.windows import READ_COLUMNS
from veilwatch.schema.features import FeatureFrame
from veilwatch.schema.flows import FlowTable

SERVICE = ["dst_ip", "dst_port", "protocol"]
KEYS = ["place", "src_ip", "subscriber", *SERVICE, "hour"]
CHEAP = ["a.free-prizes.XYZ", "t.co", "www.example.com", "", "q9z8x7.tk"]


def telling_flows(rows: int, *, seed: int) -> FlowTable:
    """Draw flows of few services that say more of themselves, some resolved before."""
    rng = np.random.default_rng(seed)
    frame = varied_flows(rows, seed=seed).frame
    asks = pl.Series(rng.random(rows) < 0.1)

    def pick(values: list[Any], dtype: Any) -> pl.Series:
        return pl.Series([values[k] for k in rng.integers(0, len(values), rows)], dtype=dtype)

    return FlowTable(
        frame.with_columns(
            tls_sni=pick(CHEAP, pl.String),
            ja4=pick(["t13d1516h2_8daaf6152771_02713d6af862", "t12d0a", ""], pl.String),
            tls_ciphers=pick([[], [0x002F, 0x1301, 5], [0x1302]], frame.schema["tls_ciphers"]),
            tls_alpn=pick([[], ["h2", "http/1.1"], ["x"]], frame.schema["tls_alpn"]),
            tls_version=pick([0x0303, 0x0304, 0xFEFD], frame.schema["tls_version"]),
            cert_self_signed=pick([None, True, False], pl.Boolean),
            cert_not_before_s=pick([None, 1_600_000_000], pl.Int64),
            cert_not_after_s=pick([None, 1_700_000_000], pl.Int64),
            dns_query_type=pick([1, 10, 16, 28], frame.schema["dns_query_type"]),
            src_port=pick([53, 40_000], frame.schema["src_port"]),
            dns_addresses=pl.when(asks)
            .then(pl.concat_list("dst_ip", pl.lit("192.0.2.1")))
            .otherwise(pl.lit([], frame.schema["dns_addresses"])),
        ).with_columns(dns_query=pl.when(asks).then(pl.lit("r.example.su")).otherwise("dns_query"))
    ).check()


def features_of(table: FlowTable) -> FeatureFrame:
    return compute_features(table, ["channel"])


def assert_as_naive(table: FlowTable) -> FeatureFrame:
    found = features_of(table)
    rows = table.frame.to_dicts()
    wanted = naive_channels.channels(rows, resolved_names(table.frame).to_list())
    keys = found.keys.select(KEYS).rows()
    assert len(keys) == len(set(keys)) and set(keys) == set(wanted)
    assert set(found.schema.names) == set(next(iter(wanted.values()))[1])
    for k, name in enumerate(found.schema.names):
        expected = np.array([wanted[key][1][name] for key in keys], np.float64)
        np.testing.assert_allclose(found.values[:, k], expected, rtol=1e-5, atol=1e-6, err_msg=name)
    for key, row in zip(keys, found.keys.iter_rows(named=True), strict=True):
        flows, _ = wanted[key]
        assert row["flow_id"] == flows[0]["flow_id"] and row["flow_count"] == len(flows)
        assert row["first_ns"] == flows[0]["first_ns"]
        assert row["last_ns"] == max(flow["last_ns"] for flow in flows)
        assert row["flow_class"] == min(map(naive_channels.flow_class, flows))
    return found


@pytest.mark.parametrize("seed", range(4))
def test_random_flows(seed: int) -> None:
    found = assert_as_naive(telling_flows(700, seed=seed))
    # Nearly everything applies to some channel, or this would prove little.
    assert np.isfinite(found.values).any(axis=0).all()
    assert found.keys["hour"].n_unique() == 3


def test_played_flows(flows: FlowTable) -> None:
    found = assert_as_naive(flows)
    column = found.schema.names.index
    assert np.nanmax(found.values[:, column("call_gap_near")]) > 0
    shares = [k for k, name in enumerate(found.schema.names) if name.startswith("file_")]
    assert np.nanmax(found.values[:, shares]) > 0


def test_channels_stand_in_order_of_host_and_time() -> None:
    keys = features_of(telling_flows(300, seed=5)).keys
    order = keys.select("place", "src_ip", "subscriber", "first_ns").rows()
    assert order == sorted(order)


def test_the_order_of_flows_does_not_matter() -> None:
    table = telling_flows(400, seed=6)
    shuffled = FlowTable(table.frame.sample(fraction=1, shuffle=True, seed=2))
    ours, theirs = features_of(table), features_of(shuffled)
    assert ours.keys.equals(theirs.keys)
    np.testing.assert_array_equal(ours.values, theirs.values)


def test_only_the_columns_that_are_read_matter() -> None:
    table = telling_flows(200, seed=7)
    found = channels(table.frame.select(*READ_COLUMNS, "place"))
    assert found.equals(channels(table.frame))
    empty = channels(table.frame.clear())
    assert empty.height == 0 and empty.schema == found.schema


def test_the_time_of_day_and_the_addresses_do_not_matter() -> None:
    """Shifted as a whole, under other names: nothing changes but the age of certificates."""
    table = telling_flows(400, seed=8)
    shift = 500 * 86_400 * NS
    other = table.frame.with_columns(
        pl.col("first_ns", "last_ns") + shift,
        pl.col("cert_not_before_s", "cert_not_after_s") + shift // NS,
        src_ip=pl.col("src_ip") + "7",
        dst_ip=pl.col("dst_ip") + "7",
        dns_addresses=pl.col("dns_addresses").list.eval(pl.element() + "7"),
    )
    ours, theirs = features_of(table), features_of(FlowTable(other))
    np.testing.assert_allclose(theirs.values, ours.values, rtol=1e-5)


def beacon(count: int, seconds: int) -> pl.DataFrame:
    """Flows of one host to one service, so many seconds apart."""
    first = START + np.arange(count) * seconds * NS
    return random_flows(count, seed=9).frame.with_columns(
        src_ip=pl.lit("10.0.0.1"),
        subscriber=pl.lit(""),
        dst_ip=pl.lit("203.0.113.7"),
        dst_port=pl.lit(443, pl.UInt16),
        protocol=pl.lit(6, pl.UInt8),
        first_ns=pl.Series(first),
        last_ns=pl.Series(first + NS),
        fwd_payload_bytes=pl.lit(300, pl.UInt64),
        bwd_payload_bytes=pl.lit(90, pl.UInt64),
    )


def test_a_beacon_shows_its_rhythm() -> None:
    found = features_of(FlowTable(beacon(20, 60)))
    told = dict(zip(found.schema.names, found.values[0], strict=True))
    assert len(found) == 1 and told["calls"] == 20
    assert told["call_gap_median"] == 60 and told["call_gap_variation"] == 0
    assert told["call_gap_near"] == told["equal_exchanges"] == 1
    assert told["distinct_uploads"] == pytest.approx(1 / 20)


def test_a_channel_begins_anew_every_hour() -> None:
    found = features_of(FlowTable(beacon(31, 240)))
    assert found.keys["hour"].to_list() == [0, 1, 2]
    assert found.keys["flow_count"].to_list() == [15, 15, 1]
    gap = found.values[:, found.schema.names.index("call_gap_max")]
    assert gap[:2].tolist() == [240, 240] and np.isnan(gap[2])


@pytest.mark.parametrize("seed", range(3))
def test_a_channel_is_the_same_on_a_host_that_people_use(seed: int) -> None:
    """Blended within its hour, and where both places resolve names: see the limits below."""
    base = telling_flows(200, seed=seed).frame.with_columns(
        pl.lit(0, pl.UInt32).alias("capture"),
        (pl.col("first_ns") - START) // 8 + START,
    )
    base = base.with_columns(src_ip=pl.lit("10.0.0.1"), subscriber=pl.lit("")).drop("place")
    partner = random_flows(150, seed=seed + 50).frame.with_columns(
        pl.lit(1, pl.UInt32).alias("capture"),
        dst_ip=pl.format("198.51.100.{}", pl.int_range(pl.len())),
        src_ip=pl.lit("10.9.9.9"),
        subscriber=pl.lit("s"),
        dns_addresses=pl.lit([], pl.List(pl.String)),
    )
    flows = pl.concat([base, partner.select(base.columns)])
    mixed, _ = blend_flows(flows, [Blend(0, (1,), (0.0,))])
    alone, used = (features_of(FlowTable(part.drop("capture"))) for part in (base, mixed))
    assert used.keys["src_ip"].unique().to_list() == ["10.0.0.1"]
    mine = used.keys.with_row_index("row").join(alone.keys, on=SERVICE, how="semi")["row"]
    assert len(used) > len(alone) == len(mine)
    same = used.take(mine.to_numpy().astype(np.intp))
    order = [frame.keys.select(SERVICE).with_row_index().sort(SERVICE)["index"].to_numpy()
             for frame in (alone, same)]  # fmt: skip
    np.testing.assert_array_equal(same.values[order[1]], alone.values[order[0]])
    assert np.isfinite(alone.values).any(axis=0).sum() > 60


def test_lookups_of_others_tell_that_a_place_resolves_names() -> None:
    """The one value that a used host changes: whether an answer could have been seen."""
    quiet = beacon(5, 60).with_columns(src_port=pl.lit(40_000, pl.UInt16))
    asked = quiet.head(1).with_columns(
        dst_ip=pl.lit("10.0.0.53"),
        dst_port=pl.lit(53, pl.UInt16),
        dns_query=pl.lit("www.example.com"),
        dns_addresses=pl.lit(["192.0.2.9"]),
        flow_id=pl.lit(99, pl.Int64),
    )
    web = quiet.tail(1).with_columns(dst_ip=pl.lit("192.0.2.9"), flow_id=pl.lit(98, pl.Int64))
    shares = []
    for table in (quiet, pl.concat([quiet, asked, web])):
        found = features_of(FlowTable(table))
        (row,) = np.flatnonzero((found.keys["dst_ip"] == "203.0.113.7").to_numpy())
        shares.append(found.values[row, found.schema.names.index("resolved_share")])
    assert np.isnan(shares[0]) and shares[1] == 0


def test_no_feature_tells_the_place() -> None:
    assert not any(item.spec.shortcut for item in CHANNEL_SET.features)
    told = {item.spec.name for item in CHANNEL_SET.features}
    assert told.isdisjoint(column for column in random_flows(1).frame.columns if "ip" in column)
