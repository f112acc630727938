"""Whose traffic it is, by the tunnels that other flows have told of."""

from __future__ import annotations

import polars as pl

from tests.learning.features.factory import random_flows
from veilwatch.detection.scoring.owners import MAX_ENDS, Owners
from veilwatch.schema.scores import Claim

UPF, GNB = "192.0.2.1", "192.0.2.2"


def flows(*rows: tuple[str, str, int, int]) -> pl.DataFrame:
    """Flows by address, subscriber and TEIDs to and from the core; TEIDs of 0 are no tunnel."""
    host, subscriber, forth, back = zip(*rows, strict=True)
    return random_flows(len(rows)).frame.with_columns(
        src_ip=pl.Series(host),
        subscriber=pl.Series(subscriber),
        outer_src_ip=pl.lit(GNB),
        outer_dst_ip=pl.lit(UPF),
        fwd_teid=pl.Series(forth, dtype=pl.UInt32),
        bwd_teid=pl.Series(back, dtype=pl.UInt32),
        gtp_depth=pl.Series(
            [int(f + b > 0) for f, b in zip(forth, back, strict=True)], dtype=pl.UInt8
        ),
    )


def settled(owners: Owners, *rows: tuple[str, str, int, int]) -> tuple[list[str], list[Claim]]:
    frame, claims = owners.settle(flows(*rows))
    return frame["subscriber"].to_list(), claims


def test_a_tunnel_that_one_flow_tells_of_tells_of_the_others() -> None:
    rows = [("10.0.0.1", "", 1, 0), ("10.0.0.1", "s-a", 1, 2), ("10.0.0.1", "", 0, 2)]
    assert settled(Owners(), *rows) == (["s-a"] * 3, [])
    owners = Owners()
    assert settled(owners, rows[0]) == ([""], [])
    assert settled(owners, rows[1]) == (["s-a"], [Claim("10.0.0.1", "s-a")])
    assert settled(owners, rows[2]) == (["s-a"], [])


def test_two_subscribers_with_one_address_stay_apart() -> None:
    owners = Owners()
    assert settled(owners, ("10.0.0.1", "", 1, 0), ("10.0.0.1", "", 7, 0)) == (["", ""], [])
    # What was said of the address before is of both: neither takes it as a whole.
    assert settled(owners, ("10.0.0.1", "s-a", 1, 2)) == (["s-a"], [])
    found = settled(owners, ("10.0.0.1", "", 1, 0), ("10.0.0.1", "", 7, 0))
    assert found == (["s-a", ""], [])
    found = settled(owners, ("10.0.0.1", "s-b", 7, 8), ("10.0.0.1", "", 0, 8))
    assert found[0] == ["s-b", "s-b"]
    assert settled(owners, ("10.0.0.1", "", 1, 8)) == ([""], [])  # of two owners neither


def test_another_address_in_the_tunnel_and_one_outside_of_it_are_others() -> None:
    owners = Owners()
    settled(owners, ("10.0.0.1", "s-a", 1, 2))
    found = settled(owners, ("10.0.0.2", "", 1, 2), ("10.0.0.1", "", 0, 0))
    assert found == (["", ""], [])
    settled(owners, ("10.0.0.3", "", 0, 0), ("10.0.0.3", "", 5, 0))
    assert settled(owners, ("10.0.0.3", "s-c", 5, 0)) == (["s-c"], [])


def test_memory_is_bounded() -> None:
    owners = Owners(max_ties=4, max_unclaimed=3)
    for n in range(20):
        settled(owners, ("10.0.0.1", f"s-{n}", n + 1, 0), (f"10.0.1.{n}", "", 1, 0))
    assert len(owners._owner) <= 4 and len(owners._unclaimed) <= 3
    assert settled(owners, ("10.0.0.1", "", 20, 0)) == (["s-19"], [])
    many = [("10.9.9.9", "", n + 1, 0) for n in range(MAX_ENDS + 5)]
    settled(owners, *many)
    assert len(owners._unclaimed["10.9.9.9"]) == MAX_ENDS + 1
