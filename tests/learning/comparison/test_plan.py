"""Nothing stands on both sides of a split."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from tests.learning.training.factory import entry
from veilwatch.corpus.manifest import CaptureEntry
from veilwatch.errors import TrainingError
from veilwatch.learning.comparison.plan import SPLITS, Split, judged_folds, make_split

FAMILIES = ("Locky", "Kovter", "Locky+Kovter", "Cerber", "Cerber+Hive", "Spora", "", "Emotet")

drawn = st.lists(
    st.tuples(st.booleans(), st.sampled_from(FAMILIES), st.integers(0, 5), st.integers(0, 900)),
    min_size=8,
    max_size=60,
)


def entries_of(rows: list[tuple[bool, str, int, int]]) -> list[CaptureEntry]:
    out = []
    for k, (malicious, family, source, day) in enumerate(rows):
        made = entry(
            k,
            "malicious" if malicious else "benign",
            group=f"{source}-{family if malicious else 'none'}-{day // 90}",
            source=f"source-{source}",
        )
        date = str(np.datetime64("2020-01-01") + day)
        made = replace(made, publisher=f"author-{source // 2}")
        out.append(replace(made, family=family if malicious else "", capture_start=date))
    return out


def made(name: str, entries: list[CaptureEntry], folds: int = 3) -> Split | None:
    """Make a split, or None where the corpus cannot fill it."""
    try:
        return make_split(name, entries, folds=folds, seed=3)
    except TrainingError as error:
        assert error.hint
        return None


@examples(60)
@given(drawn, st.sampled_from([name for name in SPLITS if name != "flow"]))
def test_what_is_judged_was_not_learned(rows: list[tuple[bool, str, int, int]], name: str) -> None:
    entries = entries_of(rows)
    split = made(name, entries)
    if split is None:
        return
    malicious = np.array([item.label == "malicious" for item in entries])
    judged = judged_folds(split, entries)
    assert judged
    for number in judged:
        learned = np.flatnonzero((split.fold >= 0) & split.learned_from(split.fold, number))
        mine = np.flatnonzero(split.fold == number)
        assert not set(learned) & set(mine)
        for side in (learned, mine):
            assert len(set(malicious[side])) == 2

        def those(rows: np.ndarray, of: str) -> set[str]:
            return {getattr(entries[int(k)], of) for k in rows}

        if name == "publisher":
            assert not those(learned, "publisher") & those(mine, "publisher")
        if name == "source":
            assert not those(learned, "source_repo") & those(mine, "source_repo")
        if name in ("group", "family"):
            assert not those(learned, "group") & those(mine, "group")
        if name == "family":
            parts = [
                {part for k in rows if (family := entries[int(k)].family)
                 for part in family.split("+")}
                for rows in (learned, mine)
            ]  # fmt: skip
            assert not parts[0] & parts[1]
        if name == "time":
            assert max(those(learned, "capture_start")) < min(those(mine, "capture_start"))


@examples(40)
@given(drawn)
def test_what_chooses_thresholds_is_neither_learned_nor_judged(
    rows: list[tuple[bool, str, int, int]],
) -> None:
    entries = entries_of(rows)
    split = made("time", entries)
    if split is None:
        return
    for number in judged_folds(split, entries):
        kept = split.kept_for_thresholds(entries, number, 3)
        known = (split.fold >= 0) & split.learned_from(split.fold, number)
        assert (known | ~kept).all()
        if kept.any():
            groups = np.array([item.group for item in entries])
            assert not set(groups[kept]) & set(groups[known & ~kept])
            for side in (kept, known & ~kept):
                assert len({entries[k].label for k in np.flatnonzero(side)}) == 2


def test_nothing_is_kept_where_other_folds_choose() -> None:
    entries = entries_of([(bool(k % 2), "Locky", k, k) for k in range(12)])
    split = make_split("group", entries, folds=2, seed=1)
    assert not split.kept_for_thresholds(entries, 0, 1).any()


def test_every_family_is_left_out_once() -> None:
    rows = [(k % 3 > 0, FAMILIES[k // 8], k % 4, 100 * (k // 8)) for k in range(48)]
    entries = entries_of(rows)
    split = make_split("family", entries, folds=3, seed=1)
    folds: dict[str, int] = {}
    for item, fold in zip(entries, split.fold.tolist(), strict=True):
        if item.label == "malicious":
            assert folds.setdefault(item.family, fold) == fold
    assert folds["Locky"] == folds["Locky+Kovter"] == folds["Kovter"]


def test_fewer_families_than_folds_and_one_alone() -> None:
    entries = entries_of([(k % 2 > 0, "Cerber" if k % 4 > 1 else "Spora", k, k) for k in range(16)])
    assert make_split("family", entries, folds=5, seed=1).folds == 2
    alone = [replace(e, family="Cerber") if e.label == "malicious" else e for e in entries]
    with pytest.raises(TrainingError, match="one family"):
        make_split("family", alone, folds=5, seed=1)


def test_captures_without_a_date_take_no_part_in_time() -> None:
    dates = ["", "soon", "1970-01-01", "1980-01-01", *[f"2021-01-{d:02d}" for d in range(1, 21)]]
    entries = [
        replace(entry(k, "malicious" if k % 2 else "benign"), capture_start=date)
        for k, date in enumerate(dates)
    ]
    split = make_split("time", entries, folds=5, seed=1)
    assert (split.fold[:4] == -1).all() and (split.fold[4:] >= 0).all()
    assert split.ordered and judged_folds(split, entries) == [1, 2, 3]
    undated = [replace(item, capture_start="1970-01-01T00:00:00") for item in entries]
    with pytest.raises(TrainingError, match="no capture has a date"):
        make_split("time", undated, folds=5, seed=1)


def test_one_class_cannot_be_split() -> None:
    entries = [entry(k, "benign") for k in range(12)]
    for name in ("publisher", "source", "group", "family", "time"):
        with pytest.raises(TrainingError):
            make_split(name, entries, folds=2, seed=1)


def test_an_unknown_split_is_named_with_those_there_are() -> None:
    with pytest.raises(TrainingError, match="unknown split 'weekday'") as caught:
        make_split("weekday", entries_of([(True, "", 1, 1)]), folds=2, seed=1)
    assert all(name in caught.value.hint for name in SPLITS)
