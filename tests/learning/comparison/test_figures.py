"""Figures beside their plain definitions, intervals beside a naive bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_score, recall_score, roc_auc_score

from tests.known import known
from tests.learning.training.factory import entry, make_corpus
from veilwatch.learning.comparison.document import SplitResult
from veilwatch.learning.comparison.figures import RESAMPLES, Judged, own_thresholds, split_result
from veilwatch.learning.comparison.hosts import Decided
from veilwatch.learning.comparison.plan import Split
from veilwatch.learning.evaluation.labelled import Labels, read_labels
from veilwatch.learning.evaluation.metrics import detection_rate_at
from veilwatch.learning.models import Thresholds

CAPTURES, FLOWS, FOLDS = 24, 30, 3
CORPUS = make_corpus(captures=CAPTURES, flows=FLOWS)
LABELS = read_labels(CORPUS)
SPLIT = Split("group", np.arange(CAPTURES) // 2 % FOLDS, FOLDS)
FOLD = SPLIT.fold[LABELS.capture]


def scores(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    drawn = rng.normal(LABELS.malicious * 1.0 + rng.normal(0, 0.6, CAPTURES)[LABELS.capture])
    return np.round(1 / (1 + np.exp(-drawn)), 2)  # ties


SCORE = scores()


def judged(score: np.ndarray, labels: Labels = LABELS, **kept: np.ndarray) -> Judged:
    none = {k: np.full(len(score), np.nan) for k in range(FOLDS)}
    mine = {int(name[4:]): values for name, values in kept.items()}
    return Judged(score, labels, SPLIT.fold[labels.capture], none | mine)


LIMITS = own_thresholds(judged(SCORE), 0.1)


@pytest.fixture(scope="module")
def result() -> SplitResult:
    return split_result(judged(SCORE), CORPUS.entries, SPLIT, LIMITS, seed=5)


def test_means_over_folds(result: SplitResult) -> None:
    level = result.levels["flow"]
    parts = [(LABELS.malicious[k == FOLD], SCORE[k == FOLD]) for k in range(FOLDS)]
    assert level.folds == FOLDS
    assert level.roc_auc.value == pytest.approx(np.mean([roc_auc_score(*p) for p in parts]))
    for rate in ("0.01", "0.001", "0.0001"):
        wanted = np.mean([detection_rate_at(s, m, float(rate)) for m, s in parts])
        assert level.detection_rate_at_fpr[rate].value == pytest.approx(wanted)


@pytest.mark.parametrize("name", ["flow", "flow_tls", "capture"])
def test_curves_run_through_the_figures_of_the_table(result: SplitResult, name: str) -> None:
    level = result.levels[name]
    roc = dict(level.roc)
    for rate in ("0.01", "0.001", "0.0001"):
        assert roc[float(rate)] == pytest.approx(level.detection_rate_at_fpr[rate].value, abs=1e-5)
    found = [y for _, y in level.roc]
    assert found == sorted(found) and found[-1] == 1.0
    # The area below the steps of precision is the average precision of the table.
    shares, precision = np.array(level.precision_recall).T
    area = float((np.diff(shares) * precision[1:]).sum())
    assert area == pytest.approx(level.average_precision, abs=0.02)


def test_what_is_said_at_the_own_threshold(result: SplitResult) -> None:
    level = result.levels["flow"]
    limit = np.array([LIMITS[k].unit for k in range(FOLDS)])[FOLD]
    alert, truth = limit <= SCORE, LABELS.malicious
    for side, positive in ((level.malicious, True), (level.benign, False)):
        wanted = [f(truth == positive, alert == positive)
                  for f in (precision_score, recall_score, f1_score)]  # fmt: skip
        assert [side.precision, side.recall, side.f1] == pytest.approx(wanted)
    assert level.accuracy == pytest.approx(np.mean(alert == truth))
    c = level.confusion
    assert c.true_positive + c.false_negative == level.positives == truth.sum()
    assert c.false_positive + c.true_negative == level.negatives == (~truth).sum()
    assert level.supported_false_positive_rate == pytest.approx(3 / level.negatives)


def test_intervals_are_those_of_a_naive_bootstrap_over_captures(result: SplitResult) -> None:
    rng = np.random.default_rng(5)
    auc, found = [], []
    for _ in range(RESAMPLES):
        counts = rng.multinomial(CAPTURES, np.full(CAPTURES, 1 / CAPTURES))
        drawn = np.repeat(np.arange(CAPTURES), counts)
        rows = np.concatenate([np.flatnonzero(LABELS.capture == k) for k in drawn])
        values = []
        for number in range(FOLDS):
            mine = rows[FOLD[rows] == number]
            if len(set(LABELS.malicious[mine])) == 2:
                pair = LABELS.malicious[mine], SCORE[mine]
                values.append((roc_auc_score(*pair), detection_rate_at(*pair[::-1], 0.01)))
        auc.append(np.mean([a for a, _ in values]))
        found.append(np.mean([d for _, d in values]))
    level = result.levels["flow"]
    for figure, naive in ((level.roc_auc, auc), (level.detection_rate_at_fpr["0.01"], found)):
        assert [figure.low, figure.high] == pytest.approx(np.quantile(naive, [0.025, 0.975]))
        assert known(figure.low) < known(figure.value) < known(figure.high)


def test_thresholds_are_not_moved_by_what_they_judge() -> None:
    louder = np.where((FOLD == 1) & ~LABELS.malicious, 0.99, SCORE)
    moved = own_thresholds(judged(louder), 0.1)
    assert moved[1] == LIMITS[1] and moved[0].unit > LIMITS[0].unit
    # What was kept back for it decides alone.
    kept = judged(SCORE, fold1=np.where(FOLD == 2, 0.25, np.nan))
    assert own_thresholds(kept, 0.1)[1].unit == pytest.approx(0.25)


def test_the_levels_of_other_units() -> None:
    capture = np.repeat(np.arange(CAPTURES), 2)
    malicious = LABELS.capture_malicious[capture]
    none = np.zeros(len(capture), bool)
    labels = Labels(capture, malicious, none, LABELS.capture_malicious, none, "host_window")
    score = np.where(malicious, 0.8, 0.2)
    limit = Thresholds(
        target_false_positive_rate=0.1, unit=0.5, group=0.5, upper_share=1.0, benign_units=9,
        benign_captures=9,
    )  # fmt: skip
    limits = dict.fromkeys(range(FOLDS), limit)
    found = split_result(judged(score, labels), CORPUS.entries, SPLIT, limits, seed=1)
    assert list(found.levels) == ["host_window", "capture"] and found.without_background == {}
    assert found.levels["capture"].roc_auc.value == 1.0
    assert {f.found for f in found.families.values()} == {1.0}
    alone = Labels(np.arange(CAPTURES), LABELS.capture_malicious, none[:CAPTURES],
                   LABELS.capture_malicious, none[:CAPTURES], "capture")  # fmt: skip
    found = split_result(judged(score[::2], alone), CORPUS.entries, SPLIT, limits, seed=1)
    assert list(found.levels) == ["capture"]


def test_families_are_counted_by_capture(result: SplitResult) -> None:
    assert sum(f.captures for f in result.families.values()) == CAPTURES // 2
    assert set(result.families) == {entry(k, "malicious").family for k in range(1, CAPTURES, 2)}


def test_calibration_weighs_the_classes_alike(result: SplitResult) -> None:
    found = known(result.levels["flow"].calibration)
    weight = np.where(LABELS.malicious, 0.5 / LABELS.malicious.sum(),
                      0.5 / (~LABELS.malicious).sum())  # fmt: skip
    assert found.brier == pytest.approx(np.sum(weight * (SCORE - LABELS.malicious) ** 2))
    assert sum(found.share) == pytest.approx(1, abs=0.001)
    assert found.expected_error == pytest.approx(
        sum(s * abs(p - o) for s, p, o in zip(found.share, found.predicted, found.observed,
                                              strict=True)), abs=0.001
    )  # fmt: skip


def decided(seed: int = 2, blends: int = CAPTURES) -> Decided:
    """Captures as recorded, and malicious and benign ones on a used host, at limits by fold."""
    rng = np.random.default_rng(seed)
    base = np.concatenate([np.arange(CAPTURES), np.arange(blends)])
    malicious = LABELS.capture_malicious[base]
    score = 1 / (1 + np.exp(-rng.normal(np.where(malicious, 1.5, -0.5))))
    limit = np.array([0.5, 0.6, 0.7])[SPLIT.fold[base]]
    size = np.repeat([0, 1], [CAPTURES, blends])
    return Decided(score, limit, base, size, malicious)


def test_what_is_decided_stands_beside_captures_by_flows() -> None:
    hosts = decided()
    found = split_result(judged(SCORE), CORPUS.entries, SPLIT, LIMITS, hosts, seed=1)
    assert list(found.levels) == [
        "flow", "flow_tls", "capture", "capture_with_windows", "used_host_x1",
    ]  # fmt: skip
    by_flows = split_result(judged(SCORE), CORPUS.entries, SPLIT, LIMITS, seed=1)
    assert found.levels["capture"] == by_flows.levels["capture"]
    whole = found.levels["capture_with_windows"]
    score, limit = hosts.score[:CAPTURES], hosts.limit[:CAPTURES]
    truth = LABELS.capture_malicious
    assert whole.confusion.true_positive == (score >= limit)[truth].sum()
    assert whole.roc_auc.value == pytest.approx(
        np.mean([roc_auc_score(truth[k], score[k]) for k in map(SPLIT.fold.__eq__, range(FOLDS))])
    )
    # Families and kinds go by the decision.
    named = np.array([item.family for item in CORPUS.entries])
    for name, family in found.families.items():
        assert family.found == (score >= limit)[named == name].mean()
    (kind,) = found.benign_kinds.values()
    assert (kind.captures, kind.alerted) == ((~truth).sum(), (score >= limit)[~truth].sum())


def test_used_hosts_stand_beside_benign_captures_as_recorded() -> None:
    hosts = decided()
    hosts.score[CAPTURES + 1] = np.nan  # a malicious blend that takes no part
    hosts.score[0] = np.nan  # a benign capture
    found = split_result(judged(SCORE), CORPUS.entries, SPLIT, LIMITS, hosts, seed=1)
    used = found.levels["used_host_x1"]
    blended = hosts.size == 1
    seen = np.flatnonzero(~np.isnan(hosts.score) & (blended == hosts.malicious))
    fold = SPLIT.fold[hosts.base[seen]]
    score, truth, limit = hosts.score[seen], hosts.malicious[seen], hosts.limit[seen]
    assert (used.positives, used.negatives) == (CAPTURES // 2 - 1, CAPTURES // 2 - 1)
    assert used.roc_auc.value == pytest.approx(
        np.mean([roc_auc_score(truth[fold == k], score[fold == k]) for k in range(FOLDS)])
    )
    assert used.confusion.true_positive == (score >= limit)[truth].sum()
    assert used.confusion.false_positive == (score >= limit)[~truth].sum()
    quiet = blended & ~hosts.malicious
    counts = found.benign_blends["used_host_x1"]
    alerted = (hosts.score >= hosts.limit)[quiet].sum()
    assert (counts.captures, counts.alerted) == (quiet.sum(), alerted)


def test_a_resample_draws_a_blend_with_its_capture() -> None:
    """Blends that score as their captures do have the interval of the captures."""
    hosts = decided()
    hosts.score[CAPTURES:] = hosts.score[:CAPTURES]
    levels = split_result(judged(SCORE), CORPUS.entries, SPLIT, LIMITS, hosts, seed=1).levels
    used, recorded = levels["used_host_x1"], levels["capture_with_windows"]
    assert used.roc_auc == recorded.roc_auc
    assert used.detection_rate_at_fpr == recorded.detection_rate_at_fpr


def test_no_used_host_no_level() -> None:
    hosts = decided(blends=1)  # a benign one alone
    found = split_result(judged(SCORE), CORPUS.entries, SPLIT, LIMITS, hosts, seed=1)
    assert list(found.levels)[-1] == "capture_with_windows"
    assert found.benign_blends["used_host_x1"].captures == 1
