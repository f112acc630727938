"""Names of families: of files at their end, live as flows are reported and end."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl

from tests.detection.scoring.test_crowd import Trees
from tests.learning.features.factory import random_flows
from veilwatch.detection.scoring import naming
from veilwatch.learning.detectors.family import EVIDENCE_FLOWS
from veilwatch.schema.scores import UNKNOWN_FAMILY, HostKey

ONE: HostKey = ("10.0.0.1", "")
TWO: HostKey = ("10.0.0.2", "s-2")


def namer(trees: Trees | None = None, **bounds: int) -> naming.HostNamer:
    card: Any = SimpleNamespace(flow_threshold=0.5, threshold=0.6)
    model: Any = trees or Trees()
    return naming.HostNamer(model, card, **bounds)


def flows(flow_ids: list[int], host: HostKey = ONE, score: float = 0.9) -> pl.DataFrame:
    """Flows that hold conversations: of the family "even" or "odd", by their id."""
    frame = random_flows(len(flow_ids), seed=3, malicious=np.ones(len(flow_ids), bool)).frame
    kinds = frame.schema
    told = {"protocol": 6, "fwd_payload_bytes": 500, "bwd_payload_bytes": 500}
    told |= {"fwd_packets": 5, "bwd_packets": 5}
    return frame.with_columns(
        *(pl.lit(value).cast(kinds[name]).alias(name) for name, value in told.items()),
        pl.Series("flow_id", flow_ids),
        pl.lit("tls").alias("service"),
        pl.lit(host[0]).alias("src_ip"),
        pl.lit(host[1]).alias("subscriber"),
        pl.lit(score, pl.Float32).alias("score"),
    )


def name_of(under_test: naming.HostNamer, host: HostKey) -> str:
    names, certainty = under_test.name([host], np.array([True]))
    assert bool(certainty[0] >= 0.6) is (names[0] != UNKNOWN_FAMILY)
    return names[0]


def test_only_alerted_hosts_have_names_and_trees_are_asked_once() -> None:
    trees = Trees()
    under_test = namer(trees)
    under_test.add(flows([2, 4]))
    under_test.add(flows([3], TWO))
    hosts = [ONE, TWO, ("10.0.0.3", "")]
    names, certainty = under_test.name(hosts, np.array([True, False, True]))
    assert names == ["even", "", UNKNOWN_FAMILY] and certainty[1:].tolist() == [0, 0]
    assert under_test.name(hosts, np.array([True, True, False]))[0] == ["even", "odd", ""]
    assert trees.asked == [3]


def test_what_was_answered_of_a_live_flow_is_replaced_by_its_record() -> None:
    under_test = namer()
    under_test.add(flows([2]))
    assert name_of(under_test, ONE) == "even"
    under_test.add(flows([2], score=0.1))
    assert name_of(under_test, ONE) == UNKNOWN_FAMILY
    under_test.add(flows([3]))
    assert name_of(under_test, ONE) == "odd"


def test_a_host_that_is_renamed_keeps_its_name() -> None:
    under_test = namer()
    under_test.add(flows([2, 4]))
    under_test.add(flows([6], TWO))
    assert (name_of(under_test, ONE), name_of(under_test, TWO)) == ("even", "even")
    under_test.rename(ONE, TWO)
    assert name_of(under_test, ONE) == UNKNOWN_FAMILY
    under_test.add(flows([3, 5, 7, 9], TWO))
    # Three are even, four are odd: too close to call it one of them.
    assert name_of(under_test, TWO) == UNKNOWN_FAMILY


def test_flows_count_for_the_host_that_they_turn_out_to_be_of() -> None:
    under_test = namer()
    under_test.add(flows([2, 4]))
    under_test.settle(pl.concat([flows([4, 3], ONE), flows([2], TWO)]))
    under_test.add(flows([3]))
    assert name_of(under_test, TWO) == "even"
    assert name_of(under_test, ONE) == UNKNOWN_FAMILY  # one of each


def test_the_strongest_flows_of_a_host_decide() -> None:
    under_test = namer()
    weak = list(range(1, 2 * EVIDENCE_FLOWS, 2))
    strong = list(range(0, 2 * EVIDENCE_FLOWS, 2))
    for some, score in ((weak, 0.6), (strong, 0.9), (weak, 0.7)):
        under_test.add(flows(some, score=score))
        name_of(under_test, ONE)
    assert name_of(under_test, ONE) == "even"


def test_hosts_are_bounded_and_the_one_asked_about_longest_ago_goes() -> None:
    under_test = namer(max_hosts=2)
    for number, host in enumerate([ONE, TWO, ("10.0.0.3", "")]):
        under_test.add(flows([2 * number], host))
        name_of(under_test, host)
    assert (name_of(under_test, ONE), name_of(under_test, TWO)) == (UNKNOWN_FAMILY, "even")
