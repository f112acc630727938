"""Host windows against a plain-Python reading, and what must not matter to them."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from tests.learning.features import naive_windows
from tests.learning.features.factory import random_flows
from tests.learning.features.varied import NS, START, varied_flows
from veilwatch.learning.features import compute_features, window_pairs
from veilwatch.learning.features.host_window import HOST_WINDOW, host_windows
from veilwatch.learning.features.tls_numbers import WEAK
from veilwatch.learning.features.windows import READ_COLUMNS
from veilwatch.schema.features import FeatureFrame
from veilwatch.schema.flows import FlowTable

KEYS = ["place", "src_ip", "subscriber", "window"]


def all_features(table: FlowTable) -> FeatureFrame:
    return compute_features(table, ["host_window"], shortcuts=True)


def assert_as_naive(table: FlowTable) -> FeatureFrame:
    found = all_features(table)
    wanted = naive_windows.windows(table.frame.to_dicts())
    places = found.keys.select(KEYS).rows()
    assert places == sorted(places)
    assert set(places) == set(wanted)
    assert set(found.schema.names) == set(next(iter(wanted.values())))
    for k, name in enumerate(found.schema.names):
        expected = np.array([wanted[place][name] for place in places], np.float64)
        np.testing.assert_allclose(found.values[:, k], expected, rtol=1e-5, atol=1e-6, err_msg=name)
    return found


@pytest.mark.parametrize("seed", range(4))
def test_random_flows(seed: int) -> None:
    found = assert_as_naive(varied_flows(700, seed=seed))
    # Nearly everything applies to some window, or this would prove little.
    assert np.isfinite(found.values).any(axis=0).all()


def test_played_flows(flows: FlowTable) -> None:
    found = assert_as_naive(flows)
    column = found.schema.names.index
    assert np.nanmax(found.values[:, column("file_encrypted")]) > 0
    assert np.nanmax(found.values[:, column("host_sweep_dead")]) > 3


def test_renaming_hosts_and_places_changes_nothing() -> None:
    table = varied_flows(500, seed=9)
    before = all_features(table)
    renamed = table.frame.with_columns(
        src_ip=pl.col("src_ip").str.replace("10.0.0.", "172.16.3.", literal=True),
        # Networks stay apart and together as they were.
        dst_ip=pl.col("dst_ip")
        .str.replace("192.0.2.", "9.8.7.", literal=True)
        .str.replace("203.0.113.", "1.2.3.", literal=True)
        .str.replace("2001:db8:1:", "2001:db8:ffff:", literal=True),
        outer_src_ip=pl.lit("203.0.113.99"),
        flow_id=pl.col("flow_id") + 1_000_000,
        parent_id=pl.col("parent_id") + 1_000_000,
    )
    after = all_features(FlowTable(renamed))
    np.testing.assert_array_equal(after.values, before.values)


def test_shifting_time_changes_nothing() -> None:
    table = varied_flows(500, seed=10)
    later = table.frame.with_columns(pl.col("first_ns", "last_ns") + 12_345 * NS + 678)
    before, after = (compute_features(item, ["host_window"]) for item in (table, FlowTable(later)))
    np.testing.assert_array_equal(after.values, before.values)


def test_the_order_and_the_tables_of_flows_do_not_matter() -> None:
    table = varied_flows(500, seed=11)
    whole = all_features(table)
    order = np.random.default_rng(0).permutation(500)
    parts = [table.frame[order[start : start + 77]] for start in range(0, 500, 77)]
    joined = pl.concat([part.select(*READ_COLUMNS, "place") for part in parts])
    np.testing.assert_array_equal(all_features(FlowTable(joined)).values, whole.values)


def test_hosts_do_not_depend_on_each_other() -> None:
    table = varied_flows(500, seed=12)
    whole = all_features(table)
    one = pl.col("place") == 1
    alone = all_features(FlowTable(table.frame.filter(one)))
    np.testing.assert_array_equal(
        alone.values, whole.values[whole.keys.select(one).to_series().to_numpy()]
    )


@pytest.mark.parametrize("rows", [1, 7, 100])
def test_hours_summed_up_part_by_part_are_those_of_the_whole(
    monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    flows = varied_flows(300, seed=13).frame
    whole = host_windows(flows)
    monkeypatch.setattr(window_pairs, "HOUR_ROWS", rows)
    assert host_windows(flows).equals(whole)
    empty = host_windows(flows.clear())
    assert empty.schema == whole.schema and empty.is_empty()


def test_keys_say_where_and_when() -> None:
    table = varied_flows(300, seed=13)
    keys = all_features(table).keys
    assert keys["flow_count"].sum() == 300
    for row in keys.head(5).to_dicts():
        mine = table.frame.filter(
            *(pl.col(name) == row[name] for name in ("place", "src_ip", "subscriber")),
            pl.col("first_ns").is_between(row["first_ns"], row["first_ns"] + 300 * NS),
        )
        assert row["flow_id"] in mine["flow_id"]
        assert row["first_ns"] in mine["first_ns"]


def test_no_flows_no_windows() -> None:
    frame = compute_features(random_flows(0), ["host_window"])
    assert frame.values.shape == (0, len(frame.schema.features))
    assert host_windows(random_flows(0).frame).height == 0


def beacon(count: int, period: int) -> FlowTable:
    frame = varied_flows(count, seed=14).frame.with_columns(
        first_ns=START + pl.Series(np.arange(count) * period),
        parent_id=pl.col("flow_id"),
        place=pl.lit(0, pl.UInt32),
        src_ip=pl.lit("10.0.0.1"),
        subscriber=pl.lit(""),
        dst_ip=pl.lit("192.0.2.1"),
        dst_port=pl.lit(443, pl.UInt16),
        protocol=pl.lit(6, pl.UInt8),
    )
    return FlowTable(frame)


def test_a_beacon_is_steady_in_the_window_or_in_the_hour() -> None:
    minute, quarter = all_features(beacon(10, 60 * NS)), all_features(beacon(10, 900 * NS))
    column = minute.schema.names.index
    assert minute.values[0, column("beacon_variation")] == 0
    assert minute.values[0, column("beacon_period")] == 60
    assert minute.values[0, column("beacon_gaps")] == 4
    assert minute.values[0, column("beacon_flow_share")] == 1
    assert np.isnan(quarter.values[:, column("beacon_variation")]).all()
    assert quarter.values[-1, column("hour_beacon_variation")] == 0
    assert quarter.values[-1, column("hour_beacon_period")] == 900
    assert quarter.values[-1, column("hour_beacon_gaps")] == 4


def test_weak_ciphers_by_the_names_of_cipher_suites() -> None:
    """Scapy's table of suites is the oracle."""
    suites = pytest.importorskip("scapy.layers.tls.crypto.suites")._tls_cipher_suites
    words = ("_RC4_", "_RC2_", "_DES_", "_DES40_", "_EXPORT")
    weak = {
        number
        for number, name in suites.items()
        if number <= 0xFFFF and any(word in name for word in words)
    }
    assert len(weak) > 30
    assert {number for number in WEAK if number in suites} == weak


def test_every_feature_is_made() -> None:
    made = set(host_windows(varied_flows(20, seed=1).frame).columns)
    assert {item.spec.name for item in HOST_WINDOW.features} <= made
