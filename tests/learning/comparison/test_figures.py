"""Figures beside their plain definitions, intervals beside a naive bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_score, recall_score, roc_auc_score

from tests.learning.training.factory import entry, make_corpus
from veilwatch.learning.comparison.figures import RESAMPLES, Judged, own_thresholds, split_result
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
def result():
    return split_result(judged(SCORE), CORPUS.entries, SPLIT, LIMITS, seed=5)


def test_means_over_folds(result) -> None:
    level = result.levels["flow"]
    parts = [(LABELS.malicious[k == FOLD], SCORE[k == FOLD]) for k in range(FOLDS)]
    assert level.folds == FOLDS
    assert level.roc_auc.value == pytest.approx(np.mean([roc_auc_score(*p) for p in parts]))
    for rate in ("0.01", "0.001", "0.0001"):
        wanted = np.mean([detection_rate_at(s, m, float(rate)) for m, s in parts])
        assert level.detection_rate_at_fpr[rate].value == pytest.approx(wanted)


@pytest.mark.parametrize("name", ["flow", "flow_tls", "capture"])
def test_curves_run_through_the_figures_of_the_table(result, name: str) -> None:
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


def test_what_is_said_at_the_own_threshold(result) -> None:
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


def test_intervals_are_those_of_a_naive_bootstrap_over_captures(result) -> None:
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
        assert figure.low < figure.value < figure.high


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


def test_families_are_counted_by_capture(result) -> None:
    assert sum(f.captures for f in result.families.values()) == CAPTURES // 2
    assert set(result.families) == {entry(k, "malicious").family for k in range(1, CAPTURES, 2)}


def test_calibration_weighs_the_classes_alike(result) -> None:
    found = result.levels["flow"].calibration
    weight = np.where(LABELS.malicious, 0.5 / LABELS.malicious.sum(),
                      0.5 / (~LABELS.malicious).sum())  # fmt: skip
    assert found.brier == pytest.approx(np.sum(weight * (SCORE - LABELS.malicious) ** 2))
    assert sum(found.share) == pytest.approx(1, abs=0.001)
    assert found.expected_error == pytest.approx(
        sum(s * abs(p - o) for s, p, o in zip(found.share, found.predicted, found.observed,
                                              strict=True)), abs=0.001
    )  # fmt: skip


def windows_of(score_of_capture: np.ndarray) -> Judged:
    """Two windows a capture."""
    capture = np.repeat(np.arange(CAPTURES), 2)
    malicious, none = LABELS.capture_malicious[capture], np.zeros(2 * CAPTURES, bool)
    labels = Labels(capture, malicious, none, LABELS.capture_malicious, none, "host_window")
    return judged(score_of_capture[capture], labels)


def test_windows_are_heard_beside_flows() -> None:
    certain = windows_of(np.where(LABELS.capture_malicious, 0.99, 0.01))
    found = split_result(judged(SCORE), CORPUS.entries, SPLIT, LIMITS, certain, seed=1)
    assert list(found.levels) == ["flow", "flow_tls", "capture", "capture_with_windows"]
    alone, both = found.levels["capture"], found.levels["capture_with_windows"]
    assert alone.roc_auc.value < both.roc_auc.value == 1.0
    assert both.confusion.false_negative == 0
    assert {family.found for family in found.families.values()} == {1.0}
    assert alone == split_result(judged(SCORE), CORPUS.entries, SPLIT, LIMITS, seed=1).levels[
        "capture"
    ]  # fmt: skip


def test_the_threshold_of_both_is_not_moved_by_what_it_judges() -> None:
    quiet = windows_of(np.full(CAPTURES, 0.2))
    loud = windows_of(np.where(SPLIT.fold == 1, 0.9, 0.2))
    limits = [
        split_result(judged(SCORE), CORPUS.entries, SPLIT, LIMITS, windows, seed=1)
        for windows in (quiet, loud)
    ]
    of_quiet, of_loud = (item.levels["capture_with_windows"].confusion for item in limits)
    # Fold 1 scores higher beside the same threshold, so more of it alerts.
    assert of_loud.false_positive > of_quiet.false_positive
