"""Splits by source and by group."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.learning.training.factory import entry
from veilwatch.corpus.manifest import CaptureEntry
from veilwatch.errors import TrainingError
from veilwatch.learning.evaluation.splits import assign_folds

captures = st.lists(
    st.tuples(st.sampled_from(["malicious", "benign"]), st.integers(0, 9), st.integers(0, 3)),
    max_size=60,
)


def entries_of(drawn: list[tuple[str, int, int]]) -> list[CaptureEntry]:
    return [
        entry(k, label, group=f"{label}-{source}-{day}", source=f"repo-{source}")
        for k, (label, source, day) in enumerate(drawn)
    ]


@given(captures, st.sampled_from(["source", "group"]), st.integers(2, 5), st.integers(0, 3))
def test_nothing_stands_in_two_folds_and_no_fold_is_empty(
    drawn: list[tuple[str, int, int]], by: Any, folds: int, seed: int
) -> None:
    entries = entries_of(drawn)
    keys = [item.source_repo if by == "source" else item.group for item in entries]
    if len(set(keys)) < folds:
        with pytest.raises(TrainingError, match=f"{len(set(keys))} {by}s"):
            assign_folds(entries, by, folds=folds, seed=seed)
        return
    fold = assign_folds(entries, by, folds=folds, seed=seed)
    assert fold.shape == (len(entries),) and fold.dtype == np.int64
    assert len(set(zip(keys, fold.tolist(), strict=True))) == len(set(keys))
    assert set(fold.tolist()) == set(range(folds))


def many(seed: int = 1) -> list[CaptureEntry]:
    rng = np.random.default_rng(seed)
    drawn = [
        ("malicious" if k % 3 else "benign", int(rng.integers(10)), int(rng.integers(20)))
        for k in range(300)
    ]
    return entries_of(drawn)


def test_same_seed_same_folds_whatever_the_order_of_rows() -> None:
    entries = many()
    fold = assign_folds(entries, seed=4)
    np.testing.assert_array_equal(fold, assign_folds(entries, seed=4))
    assert not np.array_equal(fold, assign_folds(entries, seed=5))
    reversed_fold = assign_folds(entries[::-1], seed=4)
    np.testing.assert_array_equal(fold, reversed_fold[::-1])


@pytest.mark.parametrize("label", ["malicious", "benign"])
def test_folds_are_even(label: str) -> None:
    entries = many()
    fold = assign_folds(entries, "group", folds=5)
    counts = Counter(int(f) for f, item in zip(fold, entries, strict=True) if item.label == label)
    largest = max(Counter(item.group for item in entries).values())
    assert max(counts.values()) - min(counts.values()) <= largest


def test_a_group_of_both_labels_stays_whole() -> None:
    entries = [entry(k, "malicious" if k % 2 else "benign", group=f"g{k // 4}") for k in range(40)]
    fold = assign_folds(entries, "group", folds=5)
    assert all(len(set(fold[k : k + 4].tolist())) == 1 for k in range(0, 40, 4))


def test_no_captures() -> None:
    with pytest.raises(TrainingError, match="0 groups cannot fill 5 folds"):
        assign_folds([])
