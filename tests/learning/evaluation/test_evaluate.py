"""The evaluation document: the contract that others read."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from tests.learning.features.factory import random_flows
from tests.learning.training.factory import entry, make_corpus
from veilwatch.corpus.catalogue import Corpus
from veilwatch.errors import TrainingError
from veilwatch.learning.evaluation.evaluate import (
    CaptureScores,
    evaluate_scores,
    mean_of_folds,
    measure_levels,
)
from veilwatch.learning.evaluation.labelled import (
    Labels,
    read_labels,
    require_both_classes,
)
from veilwatch.learning.features.flow_class import is_encrypted

LEVEL = {
    "n_positive": int,
    "n_negative": int,
    "roc_auc": float,
    "average_precision": float,
    "detection_rate_at_fpr": dict,
    "threshold": float,
    "detection_rate": float,
    "false_positive_rate": float,
    "curve": dict,
}


def mean_of_captures(score: np.ndarray, labels: Labels) -> np.ndarray:
    return np.array(
        [
            np.mean(mine)
            if len(mine := score[(labels.capture == k) & ~np.isnan(score)])
            else np.nan
            for k in range(len(labels.capture_malicious))
        ]
    )


def evaluate(corpus: Corpus, score: np.ndarray, **limits: Any) -> dict[str, Any]:
    labels = read_labels(corpus)
    thresholds = {"unit_threshold": 0.5, "capture_threshold": 0.5} | limits
    whole = CaptureScores(mean_of_captures(score, labels), thresholds.pop("capture_threshold"))
    return evaluate_scores(score, {"capture": whole}, labels, corpus.entries, **thresholds)


@pytest.fixture
def corpus() -> Corpus:
    return make_corpus(captures=12, flows=20)


@pytest.fixture
def score(corpus: Corpus) -> np.ndarray:
    labels = read_labels(corpus)
    noise = np.random.default_rng(0).random(len(labels.malicious))
    return np.where(labels.malicious, 0.3 + 0.7 * noise, 0.7 * noise)


def test_the_contract(corpus: Corpus, score: np.ndarray) -> None:
    found = evaluate(corpus, score)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    for level in ("flow", "flow_tls", "capture"):
        assert {name: type(value) for name, value in found[level].items()} == LEVEL
        assert set(found[level]["detection_rate_at_fpr"]) == {"0.1", "0.01", "0.001"}
        negatives = found[level]["n_negative"]
        assert found["supported_false_positive_rate"][level] == pytest.approx(min(1, 3 / negatives))
    assert list(found["families"]) == ["family-0", "family-1", "family-2"]
    assert found["benign_kinds"] == {"unnamed": {"n": 6, "alerted": 0}}
    for family in found["families"].values():
        assert {name: type(value) for name, value in family.items()} == {
            "n": int,
            "detection_rate": float,
            "n_flows": int,
            "flow_detection_rate": float,
            "is_ransomware": bool,
        }


def test_the_levels_count_what_they_say(corpus: Corpus, score: np.ndarray) -> None:
    labels = read_labels(corpus)
    found = evaluate(corpus, score)
    assert (found["flow"]["n_positive"], found["flow"]["n_negative"]) == (120, 120)
    assert (found["capture"]["n_positive"], found["capture"]["n_negative"]) == (6, 6)
    tls = labels.encrypted
    assert 0 < found["flow_tls"]["n_positive"] == (tls & labels.malicious).sum() < 120
    assert found["flow_tls"]["roc_auc"] == pytest.approx(
        roc_auc_score(labels.malicious[tls], score[tls])
    )
    captures = mean_of_captures(score, labels)
    assert found["capture"]["roc_auc"] == pytest.approx(
        roc_auc_score(labels.capture_malicious, captures)
    )
    rows = [k for k, item in enumerate(corpus.entries) if item.family == "family-1"]
    family = found["families"]["family-1"]
    assert family["n"] == len(rows)
    assert family["detection_rate"] == pytest.approx(np.mean(captures[rows] >= 0.5))
    flows = np.isin(labels.capture, rows)
    assert family["n_flows"] == flows.sum()
    assert family["flow_detection_rate"] == pytest.approx(np.mean(score[flows] >= 0.5))


def test_flows_set_aside_do_not_count(corpus: Corpus, score: np.ndarray) -> None:
    labels = read_labels(corpus)
    gone = np.isin(labels.capture, [0, 1, 2])
    masked = np.where(gone, np.nan, score)
    kept = [k for k in range(len(corpus.entries)) if k > 2]
    frame = corpus.flows.filter(pl.Series(~gone)).with_columns(pl.col("capture") - 3)
    alone = Corpus([corpus.entries[k] for k in kept], frame, corpus.hashes, {})
    assert evaluate(corpus, masked) == evaluate(alone, score[~gone])
    half = np.where(np.arange(len(score)) % 2 == 0, np.nan, score)
    assert evaluate(corpus, half)["families"]["family-1"]["n_flows"] == 20


@pytest.mark.parametrize("kept", ["malicious", "benign"])
def test_one_class_gives_none_and_not_nan(kept: str, corpus: Corpus, score: np.ndarray) -> None:
    labels = read_labels(corpus)
    wanted = labels.malicious if kept == "malicious" else ~labels.malicious
    found = evaluate(corpus, np.where(wanted, score, np.nan))
    json.dumps(found, allow_nan=False)
    for level in ("flow", "flow_tls", "capture"):
        assert found[level]["roc_auc"] is None
        assert (found[level]["detection_rate"] is None) == (kept == "benign")
    assert bool(found["families"]) == (kept == "malicious")


def test_no_tls_flow(corpus: Corpus, score: np.ndarray) -> None:
    plain = corpus.flows.with_columns(
        pl.lit("dns").alias("service"),
        pl.lit(0, pl.UInt32).alias("quic_version"),
        *[pl.lit(0, pl.UInt16).alias(f"tls_{side}_hello_bytes") for side in ("client", "server")],
    )
    found = evaluate(Corpus(corpus.entries, plain, corpus.hashes, {}), score)
    json.dumps(found, allow_nan=False)
    assert found["flow_tls"]["n_positive"] == found["flow_tls"]["n_negative"] == 0
    assert found["flow_tls"]["threshold"] is None
    assert found["supported_false_positive_rate"]["flow_tls"] == 1.0


def test_one_threshold_a_flow_and_a_capture(corpus: Corpus, score: np.ndarray) -> None:
    labels = read_labels(corpus)
    found = evaluate(
        corpus,
        score,
        unit_threshold=np.where(labels.malicious, 0.0, 1.0),
        capture_threshold=np.where(labels.capture_malicious, 0.0, 1.0),
    )
    for level in ("flow", "flow_tls", "capture"):
        assert found[level]["detection_rate"] == 1.0
        assert found[level]["false_positive_rate"] == 0.0


def test_what_counts_as_encrypted() -> None:
    columns = ("tls_client_hello_bytes", "tls_server_hello_bytes", "quic_version")
    rows = [(0, 0, 0, ""), (9, 0, 0, ""), (0, 9, 0, ""), (0, 0, 1, ""), (0, 0, 0, "quic")]
    rows += [(0, 0, 0, "tls"), (0, 0, 0, "dtls"), (0, 0, 0, "http")]
    frame = random_flows(len(rows)).frame.with_columns(
        *[pl.Series(name, [row[k] for row in rows]) for k, name in enumerate(columns)],
        pl.Series("service", [row[3] for row in rows]),
    )
    found = frame.select(is_encrypted()).to_series().to_list()
    assert found == [False, True, True, True, True, True, True, False]


def test_labels_that_cannot_be_used() -> None:
    empty = Corpus([entry(0, "benign")], make_corpus().flows.clear(), {}, {})
    with pytest.raises(TrainingError, match="no capture of the corpus holds a flow"):
        read_labels(empty)
    corpus = make_corpus(captures=4, flows=3)
    for label, parity in (("malicious", 0), ("benign", 1)):
        flows = corpus.flows.filter(pl.col("capture") % 2 == parity)
        with pytest.raises(TrainingError, match=f"no {label} flow"):
            require_both_classes(read_labels(Corpus(corpus.entries, flows, {}, {})))


def test_folds_count_alike_however_large_and_whatever_their_scale(corpus: Corpus) -> None:
    """Each fold is told apart perfectly, but by scores of another height."""
    labels = read_labels(corpus)
    fold = labels.capture // 4
    score = np.where(labels.malicious, 0.3, 0.1) + 0.3 * fold
    captures = mean_of_captures(score, labels)
    home = np.arange(12) // 4
    whole = CaptureScores(captures, 0.25)
    parts = [
        measure_levels(
            np.where(fold == k, score, np.nan), {"capture": whole.of(home == k)}, labels,
            unit_threshold=0.25,
        )
        for k in range(3)
    ]  # fmt: skip
    means = mean_of_folds(parts)
    assert means["flow"]["roc_auc"] == means["capture"]["detection_rate_at_fpr"]["0.01"] == 1.0
    assert means["flow"]["false_positive_rate"] == pytest.approx(2 / 3)
    for level in ("flow", "capture"):
        curve = means[level]["curve"]
        at = dict(zip(curve["false_positive_rate"], curve["detection_rate"], strict=True))
        for rate, found in means[level]["detection_rate_at_fpr"].items():
            assert at[float(rate)] == pytest.approx(found, abs=1e-6)
    together = measure_levels(score, {"capture": whole}, labels, unit_threshold=0.25)
    assert together["flow"]["roc_auc"] < 0.8
    assert means["flow"]["n_positive"] == together["flow"]["n_positive"]


def test_a_fold_of_one_class_has_no_rates_to_average(corpus: Corpus) -> None:
    labels = read_labels(corpus)
    score = np.where(labels.malicious, 0.9, 0.1)
    nothing = {"capture": CaptureScores(np.full(12, np.nan), 0.5)}
    whole = measure_levels(score, nothing, labels, unit_threshold=0.5)
    malicious = np.where(labels.malicious, score, np.nan)
    half = measure_levels(malicious, nothing, labels, unit_threshold=0.5)
    means = mean_of_folds([whole, half])
    assert means["flow"]["folds"] == 1
    assert means["flow"]["n_positive"] == whole["flow"]["n_positive"]
    assert means["capture"]["folds"] == 0
    assert means["capture"]["roc_auc"] is None
    assert means["capture"]["detection_rate_at_fpr"]["0.01"] is None
