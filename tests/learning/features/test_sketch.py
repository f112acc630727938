"""Flows that were seen before are noticed, from a sample of bounded size."""

from __future__ import annotations

import polars as pl
import pytest

from tests.learning.features.factory import random_flows
from veilwatch.learning.features import sketch as module
from veilwatch.learning.features.sketch import flow_numbers, seen_share, sketch


@pytest.mark.parametrize("size", [50, 4096])
def test_a_share_of_flows_is_recognised(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SKETCH", size)
    flows = random_flows(2000, seed=1).frame
    known = sketch(flows)
    assert len(known) == min(size, 2000) and known == sorted(known)
    assert max(known) < 1 << 53
    assert seen_share(flows, known) == 1.0
    shuffled = flows.sample(fraction=1, shuffle=True, seed=3)
    assert sketch(shuffled) == known
    later = flows.with_columns(first_ns=pl.col("first_ns") + 10**9)
    assert seen_share(later, known) == 0.0
    mixed = pl.concat([flows[:1000], later[:3000]])
    assert seen_share(mixed, known) == pytest.approx(1 / 3, abs=0.15)
    assert seen_share(flows[:0], known) == seen_share(flows, []) == 0.0


def test_addresses_and_wrappings_take_no_part() -> None:
    flows = random_flows(50, seed=2).frame
    moved = flows.with_columns(src_ip=pl.lit("10.9.9.9"), gtp_depth=pl.lit(1, pl.UInt8))
    assert (flow_numbers(flows) == flow_numbers(moved)).all()
    assert len(set(flow_numbers(flows).tolist())) == 50
