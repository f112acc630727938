"""Decisions about hosts under a split: who takes part, by what thresholds, and what is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.learning.training.factory import entry, make_corpus
from veilwatch.corpus.catalogue import Corpus
from veilwatch.errors import TrainingError
from veilwatch.learning.comparison import hosts as module
from veilwatch.learning.comparison.hosts import Decided, decide, takes_decision
from veilwatch.learning.comparison.plan import Split, make_split
from veilwatch.learning.detectors import DetectorSettings
from veilwatch.learning.detectors.host import HOST_PARAMETERS
from veilwatch.learning.detectors.lightgbm import PARAMETERS
from veilwatch.learning.evaluation.calibration import conformal_threshold

CAPTURES, FLOWS = 20, 16
SETTINGS = DetectorSettings(seed=3, threads=1)


def corpus_of_users(captures: int = CAPTURES) -> Corpus:
    """Captures of one host each, so that every benign one is a used host."""
    corpus = make_corpus(captures=captures, flows=FLOWS)
    services = pl.int_range(pl.len()) % 5 + 1
    flows = corpus.flows.with_columns(
        src_ip=pl.lit("10.0.0.1"),
        dst_ip=pl.format("192.0.2.{}", services),
        subscriber=pl.lit("", corpus.flows.schema["subscriber"]),
    )
    return Corpus(corpus.entries, flows, corpus.hashes, {})


CORPUS = corpus_of_users()
TRUTH = np.arange(CAPTURES) % 2 == 1
SCORE = np.where(TRUTH[CORPUS.flows["capture"].to_numpy()], 0.7, 0.3)
FOLD = np.arange(CAPTURES, dtype=np.int64) // 2 % 2


@pytest.fixture(autouse=True)
def few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    for parameters in (PARAMETERS, HOST_PARAMETERS):
        monkeypatch.setitem(parameters, "num_boost_round", 3)


def decided(
    folder: Path, fold: np.ndarray = FOLD, corpus: Corpus = CORPUS, score: np.ndarray = SCORE
) -> Decided:
    split = Split("group", fold, int(fold.max()) + 1)
    return decide(corpus, "a hash", split, {"any": score}, folder, SETTINGS, 0.2)["any"]


def test_captures_and_used_hosts_are_decided_about(tmp_path: Path) -> None:
    found = decided(tmp_path)
    assert (found.size == 0).sum() == CAPTURES
    assert found.base[found.size == 0].tolist() == list(range(CAPTURES))
    np.testing.assert_array_equal(found.malicious, TRUTH[found.base])
    for size in (1, 3):
        assert sorted(found.base[found.size == size]) == list(range(CAPTURES))
    assert np.isfinite(found.score).all() and np.isfinite(found.limit).all()
    for number in (0, 1):
        mine = FOLD[found.base] == number
        others = found.score[~mine & (found.size == 0) & ~found.malicious]
        assert set(found.limit[mine]) == {conformal_threshold(others, 0.2)}


def test_what_was_decided_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = decided(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(module, "fit_parts", None)
        again = decided(tmp_path)
        with pytest.raises(TypeError):  # other flow scores are another decision
            decided(tmp_path, score=SCORE + 0.01)
        with pytest.raises(TypeError):
            decided(tmp_path, fold=1 - FOLD)
    for name in ("score", "limit", "base", "size", "malicious"):
        np.testing.assert_array_equal(getattr(again, name), getattr(first, name))
        assert getattr(again, name).dtype == getattr(first, name).dtype
    assert not list(tmp_path.glob(".*"))


def test_folds_of_one_class_take_no_part(tmp_path: Path) -> None:
    """Captures 4 and 6, both benign, are a fold: nobody judged their flows."""
    fold = FOLD.copy()
    fold[[4, 6]] = 2
    outside = np.isin(CORPUS.flows["capture"].to_numpy(), [4, 6])
    found = decided(tmp_path, fold, score=np.where(outside, np.nan, SCORE))
    assert set(range(CAPTURES)) - set(found.base.tolist()) == {4, 6}
    np.testing.assert_array_equal(found.malicious, TRUTH[found.base])
    assert np.isfinite(found.score).all()
    # What is left is decided about as if nothing else were there.
    rest = ~outside
    left = [k for k in range(CAPTURES) if k not in (4, 6)]
    place = np.full(CAPTURES, 0)
    place[left] = range(len(left))
    flows = CORPUS.flows.filter(pl.Series(rest))
    renumbered = pl.Series("capture", place[flows["capture"].to_numpy()], pl.UInt32)
    small = Corpus(
        [CORPUS.entries[k] for k in left], flows.with_columns(renumbered), CORPUS.hashes, {}
    )
    alone = decided(tmp_path, FOLD[left], small, SCORE[rest])
    np.testing.assert_array_equal(alone.score, found.score)


def test_a_capture_that_another_fold_holds_too_takes_no_part(tmp_path: Path) -> None:
    names = [item.name for item in CORPUS.entries]
    hashes = CORPUS.hashes | {names[1]: CORPUS.hashes[names[3]], names[8]: CORPUS.hashes[names[4]]}
    assert FOLD[1] != FOLD[3] and FOLD[8] == FOLD[4]
    found = decided(tmp_path, corpus=Corpus(CORPUS.entries, CORPUS.flows, hashes, {}))
    aside = np.isnan(found.score)
    assert set(found.base[aside].tolist()) == {1, 3}
    assert aside.sum() == 6  # each as recorded, and on one and on three used hosts


def test_one_fold_alone_decides_nothing(tmp_path: Path) -> None:
    single = np.where(np.arange(CAPTURES) < 4, 0, np.where(TRUTH, 1, 2)).astype(np.int64)
    with pytest.raises(TrainingError, match="one fold alone") as caught:
        decided(tmp_path, single)
    assert caught.value.hint and not list(tmp_path.iterdir())


def test_which_splits_hosts_are_decided_under() -> None:
    entries = [
        replace(
            entry(k, "malicious" if k % 2 else "benign", source=f"source-{k // 2 % 5}"),
            publisher=f"author-{k // 2 % 3}",
            capture_start=f"2024-01-{k + 1:02d}",
        )
        for k in range(24)
    ]
    taken = {
        name: takes_decision(make_split(name, entries, folds=2, seed=1))
        for name in ("publisher", "source", "group", "family", "time", "flow")
    }
    assert taken == {
        "publisher": True, "source": True, "group": True, "family": True,
        "time": False, "flow": False,
    }  # fmt: skip
