"""Evidence of hosts in bounded memory, beside a plain list of everything."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from tests.learning.features import naive_evidence
from veilwatch.detection.scoring.bounds import fair_share
from veilwatch.detection.scoring.hosts import BUCKET_NS, HORIZON_NS, HostEvidence
from veilwatch.learning.detectors.evidence import group_scores, rank_within
from veilwatch.learning.features.host_evidence import EVIDENCE_SCHEMA, FLOW_EVIDENCE

Floats = npt.NDArray[np.float64]

NS = 10**9
START = 1_700_000_000 * NS
CLASSES = 5
NAMES = EVIDENCE_SCHEMA.names[:FLOW_EVIDENCE]


def class_of(key: int) -> int:
    """Class of a flow, which its record keeps."""
    return key % CLASSES


class Plain:
    """Every flow in a list."""

    def __init__(self) -> None:
        self.flows: dict[int, tuple[str, float, bool, int]] = {}

    def add(self, host: str, key: int, score: float, alert: bool, last_ns: int) -> None:
        self.flows[key] = host, float(np.float32(score)), alert, last_ns

    def of(self, host: str, now: int) -> dict[int, tuple[str, float, bool, int]]:
        return {
            key: flow
            for key, flow in self.flows.items()
            if flow[0] == host and abs(now - flow[3]) <= HORIZON_NS
        }

    def evidence(self, host: str, now: int) -> list[float]:
        mine = self.of(host, now)
        return naive_evidence.of_flows(
            [(math.log(f[1] / (1 - f[1])), class_of(key)) for key, f in mine.items()]
        )

    def score(self, host: str, share: float, now: int) -> tuple[int, int, float]:
        mine = list(self.of(host, now).values())
        if not mine:
            return 0, 0, float("nan")
        scores = np.array([f[1] for f in mine])
        group = np.zeros(len(mine), np.int64)
        said = group_scores(scores, group, 1, upper_share=share)[0]
        return len(mine), sum(f[2] for f in mine), float(said)


def give(
    evidence: HostEvidence, rows: list[tuple[str, int, float, bool, int]], now: int, *, early: bool
) -> None:
    host = evidence.number([(row[0], "") for row in rows], now)
    evidence.add(
        host,
        np.array([row[1] for row in rows], np.int64),
        np.array([row[2] for row in rows], np.float64),
        np.array([row[3] for row in rows], np.bool_),
        np.array([class_of(row[1]) for row in rows], np.uint8),
        np.array([row[4] - NS for row in rows], np.int64),
        np.array([row[4] for row in rows], np.int64),
        early=early,
        now_ns=now,
    )


FLOW = st.tuples(
    st.sampled_from("abcd"), st.floats(0.001, 0.999), st.integers(0, 3000), st.booleans()
)


@examples(150)
@given(st.lists(st.lists(FLOW, max_size=12), max_size=12), st.sampled_from([0.25, 0.5, 1.0]))
def test_all_that_fits_is_scored_as_a_list_is(
    tables: list[list[tuple[str, float, int, bool]]], share: float
) -> None:
    evidence, plain = HostEvidence(max_flows=512, max_hosts=8), Plain()
    now, key, alive = START, 0, dict[int, str]()
    for k, table in enumerate(tables):
        rows = []
        early = k % 2 == 0
        for host, score, seconds, again in table:
            if again and alive:
                one, host = alive.popitem()
            else:
                key += 1
                one = key
            now = max(now, START + k * 600 * NS)
            rows.append((host, one, score, score > 0.5, now - seconds * NS))
        # A key may come once in a table.
        rows = list({row[1]: row for row in rows}.values())
        give(evidence, rows, now, early=early)
        for row in rows:
            plain.add(*row)
            if early:
                alive[row[1]] = row[0]
    for host in "abcd":
        number = evidence.find((host, ""))
        flows, alerts, score = plain.score(host, share, now)
        if number is None:
            assert flows == 0
            continue
        sums = evidence.sums(np.array([number]), share, now)
        assert (sums.flows[0], sums.alerts[0]) == (flows, alerts)
        np.testing.assert_allclose(sums.score[0], score, atol=1e-5)
        np.testing.assert_allclose(sums.evidence[0], plain.evidence(host, now), atol=1e-4)


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_what_does_not_fit_is_summed_up_and_never_makes_more_of_a_host(share: float) -> None:
    rng = np.random.default_rng(5)
    evidence, plain = HostEvidence(max_flows=256, max_host_flows=40, max_hosts=16), Plain()
    for k in range(40):
        rows = []
        for i in range(25):
            host = "scanner" if rng.random() < 0.8 else rng.choice(["b", "c", "d"])
            rows.append((host, k * 25 + i, float(rng.beta(1, 3)), False, START + k * 30 * NS))
        give(evidence, rows, START + k * 30 * NS, early=False)
        for row in rows:
            plain.add(*row)
    now = START + 1170 * NS
    assert evidence.summed_flows > 400
    assert evidence.flows <= 256
    for host in ("scanner", "b", "c", "d"):
        number = evidence.find((host, ""))
        sums = evidence.sums(np.array([number]), share, now)
        flows, _, score = plain.score(host, share, now)
        assert sums.flows[0] == flows
        assert sums.score[0] <= score + 1e-6
        if share == 1.0:
            np.testing.assert_allclose(sums.score[0], score, atol=1e-5)
        assert_never_more(sums.evidence[0], plain.evidence(host, now))
    # Those with few flows lost nothing.
    number = evidence.find(("b", ""))
    np.testing.assert_allclose(
        evidence.sums(np.array([number]), share, now).score[0],
        plain.score("b", share, now)[2],
        atol=1e-6,
    )


def assert_never_more(found: Floats, exact: list[float]) -> None:
    """Sums say as much as all flows do or less, and their means are exact."""
    for name, value, wanted in zip(NAMES, found, exact, strict=True):
        if name.endswith(("_mean", "_100")):
            np.testing.assert_allclose(value, wanted, atol=1e-4, err_msg=name)
        else:
            assert (np.isnan(value) and np.isnan(wanted)) or value <= wanted + 1e-4, name


ODDS = st.lists(st.tuples(st.floats(0.001, 0.999), st.integers(0, 4)), min_size=1, max_size=60)


@examples(150)
@given(ODDS, st.integers(1, 30))
def test_thinned_evidence_is_near_the_exact(flows: list[tuple[float, int]], most: int) -> None:
    """The strongest of a host are exact as long as they are kept one by one."""
    evidence, plain = HostEvidence(max_flows=200, max_host_flows=most, max_hosts=2), Plain()
    rows = [
        ("a", CLASSES * k + flow_class, score, False, START)
        for k, (score, flow_class) in enumerate(flows)
    ]
    give(evidence, rows, START, early=False)
    for row in rows:
        plain.add(*row)
    (number,) = evidence.number([("a", "")], START)
    found = evidence.sums(np.array([number]), 1.0, START).evidence[0]
    exact = plain.evidence("a", START)
    assert_never_more(found, exact)
    if evidence.summed_flows == 0:
        np.testing.assert_allclose(found, exact, atol=1e-4)
    strongest = class_of(max(rows, key=lambda row: row[2])[1])
    np.testing.assert_allclose(found[3 * strongest], exact[3 * strongest], atol=1e-4)
    ranked = sorted((score for score, _ in flows), reverse=True)
    for name, share in (("flow_upper_25", 0.25), ("flow_upper_50", 0.5)):
        if math.ceil(len(ranked) * share) <= most:
            k = NAMES.index(name)
            np.testing.assert_allclose(found[k], exact[k], atol=1e-4)


def test_what_two_names_of_a_host_said_is_one_hosts() -> None:
    evidence, plain = HostEvidence(max_flows=64, max_host_flows=3, max_hosts=4), Plain()
    rows = [("a" if k < 9 else "b", k, 0.05 * k + 0.02, False, START) for k in range(18)]
    give(evidence, rows, START, early=False)
    assert evidence.summed_flows > 0
    evidence.rename(("a", ""), ("b", ""))
    for row in rows:
        plain.add("b", *row[1:])
    (number,) = evidence.number([("b", "")], START)
    found = evidence.sums(np.array([number]), 1.0, START)
    assert found.flows[0] == 18
    assert_never_more(found.evidence[0], plain.evidence("b", START))


def test_another_model_moves_what_is_kept_and_what_is_summed_up() -> None:
    evidence = HostEvidence(max_flows=64, max_host_flows=4, max_hosts=4)
    give(evidence, [("a", k, 0.3 + k / 40, False, START) for k in range(20)], START, early=False)
    (number,) = evidence.number([("a", "")], START)
    before = evidence.sums(np.array([number]), 0.5, START).evidence[0]
    evidence.shift(1.5)
    after = evidence.sums(np.array([number]), 0.5, START).evidence[0]
    np.testing.assert_allclose(after, before + 1.5, atol=1e-4)


def test_sums_leave_the_hour_as_well() -> None:
    evidence = HostEvidence(max_flows=64, max_host_flows=4, max_hosts=4)
    give(evidence, [("a", k, 0.9, True, START) for k in range(20)], START, early=False)
    (number,) = evidence.number([("a", "")], START)
    assert evidence.sums(np.array([number]), 1.0, START).flows[0] == 20
    later = START + HORIZON_NS + BUCKET_NS
    assert evidence.sums(np.array([number]), 1.0, later).flows[0] == 0


YEAR_2100 = 4_102_444_800 * NS


def test_a_wrong_stamp_takes_no_room_of_sums_from_others() -> None:
    evidence = HostEvidence(max_flows=64, max_host_flows=4, max_hosts=4)
    column = START // BUCKET_NS % 13
    far = YEAR_2100 + (column - YEAR_2100 // BUCKET_NS % 13) * BUCKET_NS  # the same of the columns
    give(evidence, [("a", k, 0.9, True, far) for k in range(20)], START, early=False)
    give(evidence, [("a", 100 + k, 0.9, True, START) for k in range(40)], START, early=False)
    (number,) = evidence.number([("a", "")], START)
    assert evidence.sums(np.array([number]), 1.0, START).flows[0] == 40


def test_a_host_met_at_a_wrong_time_is_not_kept_for_good() -> None:
    evidence = HostEvidence(max_flows=64, max_hosts=3)
    give(evidence, [("a", 0, 0.5, False, YEAR_2100)], YEAR_2100, early=True)
    give(evidence, [("a", 1, 0.5, False, START)], START, early=True)
    for k, host in enumerate("bcd", 1):
        give(evidence, [(host, 10 + k, 0.5, False, START + k * NS)], START + k * NS, early=True)
    assert evidence.find(("a", "")) is None and evidence.find(("b", "")) is not None


def test_the_host_that_was_silent_longest_makes_room() -> None:
    evidence = HostEvidence(max_flows=64, max_hosts=3)
    for k, host in enumerate("abcd"):
        give(evidence, [(host, k, 0.5, False, START + k * NS)], START + k * NS, early=True)
    assert evidence.find(("a", "")) is None
    assert evidence.evicted_hosts == 1
    assert evidence.flows == 3
    # What it left behind is not taken for another host's.
    give(evidence, [("d", 0, 0.5, False, START)], START + 4 * NS, early=False)
    (number,) = evidence.number([("d", "")], START)
    assert evidence.sums(np.array([number]), 1.0, START).flows[0] == 2


def test_hosts_without_flows_in_the_hour_are_let_go_uncounted() -> None:
    evidence = HostEvidence(max_flows=8, max_hosts=2)
    for k in range(40):
        now = START + k * 2 * HORIZON_NS
        give(evidence, [(f"host-{k}", k, 0.5, False, now)], now, early=False)
    assert evidence.evicted_hosts == 0
    assert evidence.hosts <= 2


@given(st.lists(st.integers(0, 50), min_size=1, max_size=20), st.integers(1, 300))
def test_fair_shares(sizes: list[int], room: int) -> None:
    share = fair_share(np.array(sizes, np.int64), room)
    assert sum(min(size, share) for size in sizes) <= room
    if sum(sizes) > room:
        assert sum(min(size, share + 1) for size in sizes) > room


def test_ranks() -> None:
    group, key = np.array([1, 0, 1, 1]), np.array([0.5, 0.1, 0.9, 0.5])
    assert rank_within(group, key).tolist() == [1, 0, 0, 2]
