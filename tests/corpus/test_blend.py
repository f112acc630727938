"""Blends of captures with hosts that people use: nothing but address and time is changed."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from tests.learning.features.factory import random_flows
from veilwatch.corpus import blend as blends
from veilwatch.corpus.blend import (
    LEAST_DESTINATIONS,
    LEAST_FLOWS,
    MAX_PARTNER_FLOWS,
    Blend,
    blend_flows,
    plan_blends,
    used_hosts,
)
from veilwatch.errors import CorpusError

MOVED = ["first_ns", "last_ns", "src_ip", "subscriber"]
CAPTURES = 6


@pytest.fixture(scope="module")
def flows() -> pl.DataFrame:
    """Captures of 40 flows, each of one busy host and some others, each on a day of its own."""
    capture = np.random.default_rng(2).permutation(np.repeat(np.arange(CAPTURES), 40))
    rows = len(capture)
    frame = random_flows(rows, seed=8).frame
    busy = pl.int_range(rows) % 5 < 3
    day = pl.col("capture").cast(pl.Int64) * 86_400 * 10**9
    return frame.with_columns(
        capture=pl.Series(capture, dtype=pl.UInt32),
        index=pl.int_range(rows),
    ).with_columns(
        src_ip=pl.when(busy).then(pl.format("10.0.{}.1", "capture")).otherwise("src_ip"),
        subscriber=pl.when(busy).then(pl.format("s-{}", "capture")).otherwise(pl.lit("")),
        first_ns=pl.col("first_ns") + day,
        last_ns=pl.col("last_ns") + day,
    )


def busy(flows: pl.DataFrame, capture: int) -> pl.DataFrame:
    mine = flows.filter(pl.col("capture") == capture)
    return mine.filter(src_ip=f"10.0.{capture}.1", subscriber=f"s-{capture}")


PLANS = st.lists(
    st.tuples(
        st.permutations(range(CAPTURES)),
        st.integers(0, CAPTURES - 1),
        st.lists(st.floats(0, 1), min_size=CAPTURES, max_size=CAPTURES),
    ),
    max_size=4,
)


@examples(60)
@given(PLANS)
def test_a_blend_is_its_capture_and_the_busiest_hosts_of_its_partners(
    flows: pl.DataFrame, plan: list[tuple[list[int], int, list[float]]]
) -> None:
    made = [
        Blend(order[0], tuple(order[1 : size + 1]), tuple(moments[:size]))
        for order, size, moments in plan
    ]
    mixed, row = blend_flows(flows, made)
    assert mixed.schema == flows.schema
    # What a flow was is told by its row, and nothing but address and time is changed.
    assert len(row) == mixed.height
    assert mixed.drop("capture", *MOVED).equals(flows[row].drop("capture", *MOVED))
    lasting = pl.col("last_ns") - pl.col("first_ns")
    assert mixed.select(lasting).equals(flows[row].select(lasting))
    assert mixed["capture"].is_sorted()
    for number, blend in enumerate(made):
        mine = mixed.filter(pl.col("capture") == number).drop("capture")
        was = flows[row].filter(mixed["capture"] == number)
        own = mine.filter(was["capture"] == blend.base)
        base = flows.filter(pl.col("capture") == blend.base).drop("capture")
        assert own.equals(base)  # unchanged in all, other hosts of the capture included
        start = base["first_ns"].min()
        for partner, moment in zip(blend.partners, blend.moments, strict=True):
            theirs = mine.filter(was["capture"] == partner)
            before = busy(flows, partner)
            assert theirs["index"].to_list() == before["index"].to_list()
            assert theirs["src_ip"].unique().to_list() == [f"10.0.{blend.base}.1"]
            assert theirs["subscriber"].unique().to_list() == [f"s-{blend.base}"]
            whole = flows.filter(pl.col("capture") == partner)
            began, ended = whole["first_ns"].min(), whole["last_ns"].max()
            shift = (theirs["first_ns"] - before["first_ns"]).unique()
            assert len(shift) == 1
            # The partner's own moment falls on the beginning of the capture.
            at = began + moment * (ended - began)  # type: ignore[operator]
            assert abs(at + shift[0] - start) < 10_000
        assert mine.height == own.height + sum(busy(flows, k).height for k in blend.partners)


def test_a_capture_may_be_in_many_blends(flows: pl.DataFrame) -> None:
    mixed, row = blend_flows(flows, [Blend(0, (1,), (0.5,)), Blend(2, (1,), (0.0,))] * 2)
    assert mixed["capture"].unique().sort().to_list() == [0, 1, 2, 3]
    first, third = (mixed.filter(pl.col("capture") == k).drop("capture") for k in (0, 2))
    assert first.equals(third)
    assert (flows["capture"][row] == 1).sum() == 4 * busy(flows, 1).height


def test_a_capture_without_flows_cannot_be_blended(flows: pl.DataFrame) -> None:
    for blend in (Blend(CAPTURES, (1,), (0.5,)), Blend(0, (CAPTURES + 3,), (0.5,))):
        with pytest.raises(CorpusError, match="has no flow to blend"):
            blend_flows(flows, [blend])


def test_no_blends(flows: pl.DataFrame) -> None:
    mixed, row = blend_flows(flows, [])
    assert mixed.schema == flows.schema and mixed.height == len(row) == 0


def table(sizes: list[tuple[int, int]]) -> pl.DataFrame:
    """Captures whose busiest host has so many flows to so many destinations, and a quiet one."""
    hosts = [
        (capture, "10.0.0.1", f"192.0.2.{k % destinations}")
        for capture, (count, destinations) in enumerate(sizes)
        for k in range(count)
    ]
    hosts += [(capture, "10.0.0.2", f"198.51.100.{capture}") for capture in range(len(sizes))]
    schema = {"capture": pl.UInt32, "src_ip": pl.String, "dst_ip": pl.String}
    return pl.DataFrame(hosts, schema, orient="row").with_columns(subscriber=pl.lit(""))


def test_used_hosts_have_enough_flows_and_not_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_PARTNER_FLOWS == 20_000
    monkeypatch.setattr(blends, "MAX_PARTNER_FLOWS", 50)
    sizes = [
        (LEAST_FLOWS, LEAST_DESTINATIONS),
        (LEAST_FLOWS - 1, LEAST_DESTINATIONS),
        (LEAST_FLOWS, LEAST_DESTINATIONS - 1),
        (50, 5),
        (51, 5),
        (LEAST_FLOWS, LEAST_DESTINATIONS),
    ]
    benign = np.array([True] * 5 + [False])
    assert used_hosts(table(sizes), benign).tolist() == [0, 3]
    assert used_hosts(table(sizes).clear(), benign).tolist() == []


@examples(150)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 2)), min_size=1, max_size=14),
    st.integers(1, 4),
    st.integers(0, 3),
)
def test_partners_are_used_and_on_the_same_side(
    captures: list[tuple[bool, int]], size: int, seed: int
) -> None:
    used = np.flatnonzero([is_used for is_used, _ in captures]).astype(np.int64)
    side = np.array([number for _, number in captures], np.int64)
    bases = np.arange(len(captures), dtype=np.int64)
    plan = plan_blends(bases, used, side, size, seed=seed)
    assert plan == plan_blends(bases, used, side, size, seed=seed)
    left = []
    for base in bases.tolist():
        pool = [k for k in used.tolist() if side[k] == side[base] and k != base]
        if len(pool) >= size:
            left.append(base)
    assert [blend.base for blend in plan] == left
    for blend in plan:
        assert blend.size == size == len(set(blend.partners)) == len(blend.moments)
        assert blend.base not in blend.partners and set(blend.partners) <= set(used.tolist())
        assert {int(side[k]) for k in blend.partners} == {int(side[blend.base])}
        assert all(0 <= moment < 1 for moment in blend.moments)


def test_other_seeds_and_sizes_choose_others() -> None:
    used, side = np.arange(40, dtype=np.int64), np.zeros(40, np.int64)
    first = plan_blends(used, used, side, 1, seed=1)
    assert first != plan_blends(used, used, side, 1, seed=2)
    three = plan_blends(used, used, side, 3, seed=1)
    assert [b.partners[:1] for b in three] != [b.partners for b in first]
