"""Hosts that are learned from: captures and blends, scored by what never saw them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from tests.learning.features import naive_evidence
from tests.learning.training.factory import QUICK, make_corpus
from veilwatch.corpus.catalogue import Corpus
from veilwatch.errors import TrainingError
from veilwatch.learning.detectors.evidence import log_odds
from veilwatch.learning.features.channels import channel_key
from veilwatch.learning.features.flow_class import flow_class
from veilwatch.learning.training import hosts as under_test
from veilwatch.learning.training.crossfit import cross_fit
from veilwatch.learning.training.hosts import (
    BLENDED,
    HostFit,
    Hosts,
    decided_blends,
    decided_captures,
    fit_decision,
    fit_parts,
    gather_hosts,
    host_limits,
    host_threshold,
)
from veilwatch.schema.features import FeatureFrame

CAPTURES = 16
FOLD = np.arange(CAPTURES) // 2 % 2
"""Both classes in each fold."""


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return make_corpus(captures=CAPTURES, used=True)


@pytest.fixture(scope="module")
def flow_score(corpus: Corpus) -> np.ndarray:
    malicious = corpus.flows["capture"].to_numpy() % 2 == 1
    rng = np.random.default_rng(3)
    return np.clip(rng.normal(np.where(malicious, 0.6, 0.4), 0.1), 0.01, 0.99)


@pytest.fixture(scope="module")
def fit(corpus: Corpus, flow_score: np.ndarray) -> HostFit:
    return fit_decision(fit_parts(corpus, FOLD, QUICK), flow_score, QUICK)


@pytest.fixture(scope="module")
def hosts(corpus: Corpus) -> Hosts:
    return gather_hosts(corpus, FOLD, seed=1)


def test_hosts_are_the_captures_and_blends_of_each_side(corpus: Corpus, hosts: Hosts) -> None:
    assert hosts.base[:CAPTURES].tolist() == list(range(CAPTURES))
    assert set(hosts.size[:CAPTURES]) == {0} and set(hosts.size[CAPTURES:]) == set(BLENDED)
    assert hosts.used.tolist() == list(range(0, CAPTURES, 2))
    np.testing.assert_array_equal(hosts.malicious, hosts.base % 2 == 1)
    # Infected ones and benign ones alike are merged with used hosts, each once a size.
    for size in BLENDED:
        assert sorted(hosts.base[hosts.size == size]) == list(range(CAPTURES))
    flows = corpus.flows["capture"].to_numpy()
    for host, base, size in zip(range(len(hosts)), hosts.base, hosts.size, strict=True):
        captures = set(flows[hosts.row[hosts.host == host]].tolist())
        assert base in captures and len(captures) == size + 1
        assert {int(FOLD[k]) for k in captures} == {int(FOLD[base])}
        assert all(k % 2 == 0 for k in captures - {base})  # whom it is merged with is benign


def test_truth_by_flow_is_kept(corpus: Corpus, hosts: Hosts) -> None:
    """The row of a blend's flow is that of the corpus, where its truth stands."""
    kept = ["flow_id", "dst_ip", "dst_port", "fwd_bytes", "tls_sni", "ja4"]
    assert hosts.flows.select(kept).equals(corpus.flows[hosts.row].select(kept))
    captures = (hosts.size == 0)[hosts.host]
    np.testing.assert_array_equal(hosts.row[captures], np.arange(corpus.flows.height))


def test_a_capture_without_flows_is_a_host_and_no_blend(corpus: Corpus) -> None:
    flows = corpus.flows.filter(~pl.col("capture").is_in([2, 5]))
    hosts = gather_hosts(replace(corpus, flows=flows), FOLD, seed=1)
    assert hosts.base[:CAPTURES].tolist() == list(range(CAPTURES))
    assert not {2, 5} & set(hosts.base[CAPTURES:].tolist())
    assert 2 not in hosts.used


def test_evidence_is_what_is_said_of_each_host(fit: HostFit, flow_score: np.ndarray) -> None:
    parts, hosts = fit.parts, fit.parts.hosts
    classes = hosts.flows.select(flow_class()).to_series().to_numpy()
    odds = log_odds(flow_score[hosts.row])

    def units(features: FeatureFrame, score: np.ndarray, host: int) -> list[tuple[float, int]]:
        keys = features.keys
        of = keys["flow_class"] if "flow_class" in keys.columns else pl.zeros(len(keys), eager=True)
        mine = (keys["place"] == host).to_numpy()
        return list(zip(log_odds(score)[mine], of.to_numpy()[mine], strict=True))

    for host in range(0, len(hosts), 5):
        mine = hosts.host == host
        wanted = naive_evidence.evidence(
            list(zip(odds[mine], classes[mine], strict=True)),
            units(parts.channels.features, parts.channels.fit.score, host),
            units(parts.windows.features, parts.windows.fit.score, host),
        )
        np.testing.assert_allclose(fit.evidence.values[host], wanted, atol=1e-6)


@pytest.mark.parametrize("part", ["channels", "windows", "hosts"])
def test_nothing_is_scored_by_what_learned_from_it(fit: HostFit, part: str) -> None:
    side, hosts = fit.parts.side, fit.parts.hosts
    np.testing.assert_array_equal(side, FOLD[hosts.base])
    if part == "hosts":
        features, cross, of = fit.evidence, fit.decision, side
    else:
        heard = getattr(fit.parts, part)
        features, cross = heard.features, heard.fit
        of = side[features.keys["place"].to_numpy()]
    assert len(cross.members) == 2
    for fold, member in enumerate(cross.members):
        inside = np.flatnonzero(of == fold)
        said = member.predict_proba(features.take(inside))
        np.testing.assert_allclose(cross.score[inside], said)


def test_decisions_tell_used_hosts_apart(fit: HostFit) -> None:
    hosts, score = fit.parts.hosts, fit.decision.score
    for size in (0, *BLENDED):
        of = hosts.size == size
        bad, good = score[of & hosts.malicious], score[of & ~hosts.malicious]
        assert (bad[:, None] > good).mean() > 0.9


def test_a_host_without_flows_is_not_decided_about(corpus: Corpus) -> None:
    flows = corpus.flows.filter(pl.col("capture") != 4)
    silent = replace(corpus, flows=flows)
    parts = fit_parts(silent, FOLD, QUICK)
    score = fit_decision(parts, np.full(flows.height, 0.5), QUICK).decision.score
    assert np.flatnonzero(np.isnan(score)).tolist() == [4]


def test_channels_are_learned_from_captures_and_not_too_many_of_one(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, np.ndarray] = {}
    made = cross_fit

    def noted(detector: str, training: object, *arguments: object, **more: object) -> object:
        if detector == "channel":
            seen["aside"] = np.asarray(more["aside"])
        return made(detector, training, *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(under_test, "cross_fit", noted)
    monkeypatch.setattr(under_test, "MAX_CHANNELS", 7)
    parts = fit_parts(corpus, FOLD, QUICK)
    host = parts.channels.features.keys["place"].to_numpy()
    learned = np.bincount(host[~seen["aside"]], minlength=len(parts.hosts))
    assert learned[:CAPTURES].tolist() == [7] * CAPTURES
    assert (learned[CAPTURES:] == 0).all()
    assert not np.isnan(parts.channels.fit.score).any()  # all of them are heard


def test_background_of_an_infected_host_is_learned_as_benign(corpus: Corpus) -> None:
    """A channel counts as background if all of its flows do."""
    key, _ = channel_key()
    service = [name for name in key if name not in ("place", "src_ip", "subscriber", "hour")]
    infected = pl.col("capture") == 1
    first = corpus.flows.filter(infected)
    channels = first.select("src_ip", "subscriber", *service).unique(maintain_order=True)
    whole, half = channels.row(0), channels.row(1)

    def of(row: tuple[object, ...]) -> pl.Expr:
        same = zip(channels.columns, row, strict=True)
        return pl.all_horizontal(infected, *(pl.col(name) == value for name, value in same))

    # Give the second another flow, which says nothing.
    more = (
        first.filter(of(half))
        .head(1)
        .with_columns(tls_sni=pl.lit(""), dns_query=pl.lit(""), flow_id=pl.lit(10**6, pl.Int64))
    )
    flows = pl.concat([corpus.flows, more]).with_columns(
        tls_sni=pl.when(of(whole) | (of(half) & (pl.col("flow_id") < 10**6)))
        .then(pl.lit("ocsp.some-authority.example"))
        .otherwise(pl.lit("")),
        dns_query=pl.lit(""),
    )
    parts = fit_parts(replace(corpus, flows=flows), FOLD, QUICK)
    keys = parts.channels.features.keys.with_columns(
        learned=pl.Series(parts.channels.learned)
    ).filter(pl.col("place") == 1)
    told = {row[:-1]: row[-1] for row in keys.select(*channels.columns, "learned").iter_rows()}
    assert told[whole] is False and told[half] is True
    assert sum(told.values()) == len(told) - 1


def test_thresholds_are_set_by_benign_captures_as_they_were_recorded(hosts: Hosts) -> None:
    rng = np.random.default_rng(1)
    score = rng.random(len(hosts))
    loud = np.where(hosts.malicious | (hosts.size > 0), 1.0, score)
    found = host_threshold(hosts, score, 0.3)
    assert found == host_threshold(hosts, loud, 0.3)
    assert found.hosts == CAPTURES // 2
    score[0] = np.nan
    assert host_threshold(hosts, score, 0.3).hosts == CAPTURES // 2 - 1
    with pytest.raises(TrainingError, match="no benign host is left"):
        host_threshold(hosts, np.where(hosts.malicious, score, np.nan), 0.3)


def test_the_threshold_of_a_fold_is_set_by_the_others(hosts: Hosts) -> None:
    score = np.random.default_rng(1).random(len(hosts))
    side = FOLD[hosts.base]
    limit = host_limits(hosts, side, score, 0.3)
    for fold in (0, 1):
        other = np.where(side == fold, np.nan, score)
        assert set(limit[side == fold]) == {host_threshold(hosts, other, 0.3).threshold}
        moved = np.where(side == fold, 1 - score, score)
        again = host_limits(hosts, side, moved, 0.3)
        np.testing.assert_array_equal(again[side == fold], limit[side == fold])


def test_what_is_decided_is_told_by_capture_and_by_blend(hosts: Hosts) -> None:
    score = np.random.default_rng(1).random(len(hosts))
    limit = np.arange(len(hosts)) / len(hosts)
    captures = decided_captures(hosts, score, limit)
    np.testing.assert_array_equal(captures.score, score[:CAPTURES])
    np.testing.assert_array_equal(captures.alert, score[:CAPTURES] >= limit[:CAPTURES])
    used = decided_blends(hosts, score, 0.5)
    assert list(used) == list(BLENDED)
    for size, blends in used.items():
        of = hosts.size == size
        np.testing.assert_array_equal(blends.score, score[of])
        np.testing.assert_array_equal(blends.base, hosts.base[of])
        np.testing.assert_array_equal(blends.malicious, hosts.malicious[of])
        assert set(np.broadcast_to(blends.threshold, blends.score.shape)) == {0.5}
