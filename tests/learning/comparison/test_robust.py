"""Changed captures: which, how they are kept, and what is said of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.learning.comparison.factory import capture_corpus
from veilwatch.corpus.catalogue import Corpus, load_corpus
from veilwatch.corpus.manifest import read_manifest
from veilwatch.learning.comparison.perturb import MAX_PACKETS, PERTURBATIONS, UNCHANGED
from veilwatch.learning.comparison.plan import Split, make_split
from veilwatch.learning.comparison.robust import (
    changes,
    choose_captures,
    choose_split,
    make_trials,
    original_captures,
    trials_key,
)
from veilwatch.learning.evaluation.labelled import read_labels
from veilwatch.learning.models import Thresholds


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return load_corpus(capture_corpus(tmp_path_factory.mktemp("corpus")), workers=1)


@pytest.fixture(scope="module")
def trials(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    path = make_trials(corpus, [1, 0, 4], tmp_path_factory.mktemp("trials"), seed=1)
    return load_corpus(path, workers=1)


def thresholds(unit: float = 0.5, group: float = 0.5) -> Thresholds:
    return Thresholds(
        target_false_positive_rate=0.1,
        unit=unit,
        group=group,
        upper_share=1.0,
        benign_units=10,
        benign_captures=10,
    )


def test_captures_are_of_judged_folds_and_of_every_source_in_turn(corpus: Corpus) -> None:
    fold = np.arange(len(corpus.entries)) // 2 % 3
    fold[[10, 11]] = -1  # set aside
    sources = ["a", "a", "a", "b", "b", "c"]
    entries = [
        replace(entry, source_repo=sources[k // 2 % 6], family="")
        for k, entry in enumerate(corpus.entries)
    ]
    mixed = Corpus(entries, corpus.flows, corpus.hashes, {})
    split = Split("group", fold, 3)
    chosen = choose_captures(mixed, split, 2, seed=1)
    assert len(chosen) == 4 and not {10, 11} & set(chosen)
    for label in ("malicious", "benign"):
        mine = [entries[k] for k in chosen if entries[k].label == label]
        assert {item.source_repo for item in mine} == {"a", "b"}
    assert chosen == choose_captures(mixed, split, 2, seed=1)
    assert len(choose_captures(mixed, split, 99, seed=1)) == len(entries) - 2


def test_a_capture_without_flows_is_not_chosen(corpus: Corpus) -> None:
    less = Corpus(corpus.entries, corpus.flows.filter(corpus.flows["capture"] != 3), {}, {})
    split = Split("group", np.zeros(len(corpus.entries), np.int64), 2)
    split.fold[::4] = split.fold[1::4] = 1
    assert 3 not in choose_captures(less, split, 99, seed=1)


def test_the_split_that_leaves_whole_groups_out_is_tried(corpus: Corpus) -> None:
    made = [
        make_split(name, corpus.entries, folds=2, seed=1) for name in ("flow", "source", "group")
    ]
    chosen = choose_split(made)
    assert chosen is not None and chosen.name == "group"
    chosen = choose_split(made[:2])
    assert chosen is not None and chosen.name == "source"
    assert choose_split(made[:1]) is None


def test_every_capture_is_changed_in_every_way(corpus: Corpus, trials: Corpus) -> None:
    done = [(int(e.extra["capture"]), e.extra["change"]) for e in trials.entries]
    assert sorted(done) == sorted((k, name) for k in (0, 1, 4) for name in PERTURBATIONS)
    assert original_captures(trials).tolist() == [k for k, _ in done]
    for entry, (index, name) in zip(trials.entries, done, strict=True):
        original = corpus.entries[index]
        assert (entry.label, entry.family) == (original.label, original.family)
        if name == UNCHANGED:
            assert corpus.flows.filter(corpus.flows["capture"] == index).height < MAX_PACKETS
    for k, (index, name) in enumerate(done):
        if name in (UNCHANGED, "jitter"):
            mine = trials.flows.filter(trials.flows["capture"] == k)
            theirs = corpus.flows.filter(corpus.flows["capture"] == index)
            for column in ("fwd_bytes", "bwd_bytes", "dst_port"):
                assert sorted(mine[column]) == sorted(theirs[column])


def test_changed_captures_are_kept_and_made_again_if_not_whole(
    corpus: Corpus, tmp_path: Path
) -> None:
    path = make_trials(corpus, [0], tmp_path, seed=1)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*.pcapng")}
    (tmp_path / "loss" / "0.pcapng").write_bytes(b"")
    assert make_trials(corpus, [0], tmp_path, seed=1) == path
    assert (tmp_path / "loss" / "0.pcapng").read_bytes() == b""
    path.unlink()  # written last: without it, an interrupted run is begun anew
    make_trials(corpus, [0], tmp_path, seed=1)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*.pcapng")} == before
    assert len(read_manifest(path)) == len(PERTURBATIONS)


def test_the_folder_is_named_after_what_it_holds() -> None:
    keys = [trials_key("a", [1, 2], 3), trials_key("b", [1, 2], 3), trials_key("a", [2, 1], 3),
            trials_key("a", [1, 2], 4)]  # fmt: skip
    assert len(set(keys)) == 4 and keys[0] == trials_key("a", [1, 2], 3)


def test_what_is_found_before_and_after(trials: Corpus) -> None:
    """Capture 1 is malicious and judged by fold 0, 0 and 4 are benign and judged by fold 1."""
    labels = read_labels(trials)
    done = np.array([entry.extra["change"] for entry in trials.entries])[labels.capture]
    original = original_captures(trials)[labels.capture]
    score = np.where(original == 1, 0.9, 0.1)
    score[(original == 1) & (done == "padding")] = 0.4
    score[(original == 4) & (done == "jitter")] = 0.7
    score[(original == 1) & (done == "loss")] = np.nan  # nothing of it can be judged any more
    fold = np.array([1, 0, 5, 5, 1, *[5] * 20])
    split = Split("group", fold, 6)
    found = changes(trials, labels, score, split, {0: thresholds(), 1: thresholds(0.6, 0.8)})
    assert list(found) == list(PERTURBATIONS)
    assert all((c.malicious, c.benign) == (1, 2) for c in found.values())
    assert (found[UNCHANGED].found, found[UNCHANGED].false_alarms) == (1.0, 0.0)
    assert (found["padding"].found, found["padding"].units_found) == (0.0, 0.0)
    assert (found["loss"].found, found["loss"].units_found) == (0.0, None)
    # Fold 1 alerts flows from 0.6 on, captures from 0.8 on.
    jitter = found["jitter"]
    assert jitter.false_alarms == 0.0
    assert jitter.units_false_alarms is not None and 0 < jitter.units_false_alarms < 1


def test_captures_of_folds_that_were_not_judged_do_not_count(trials: Corpus) -> None:
    labels = read_labels(trials)
    split = Split("group", np.array([1, 0, 5, 5, 1, *[5] * 20]), 6)
    found = changes(trials, labels, np.full(len(labels.capture), 0.9), split, {1: thresholds()})
    assert (found[UNCHANGED].malicious, found[UNCHANGED].benign) == (0, 2)
    assert (found[UNCHANGED].found, found[UNCHANGED].false_alarms) == (None, 1.0)
