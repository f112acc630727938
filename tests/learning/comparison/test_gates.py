"""Leaks between the sides of a split, and what metadata alone can tell."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.learning.comparison.factory import capture_corpus
from veilwatch.corpus.catalogue import Corpus, load_corpus
from veilwatch.corpus.manifest import read_manifest, write_manifest
from veilwatch.errors import CorpusError
from veilwatch.learning.comparison import CompareOptions, compare
from veilwatch.learning.comparison.copies import LEAST_PACKETS, copied_captures
from veilwatch.learning.comparison.gates import leak_gate, refuse_equal_captures
from veilwatch.learning.comparison.perturb import read_packets, write_packets
from veilwatch.learning.comparison.plan import Split, make_split


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Captures 0 and 2 are one file, and 6 holds a flow of 4 at other addresses' ports."""
    folder = tmp_path_factory.mktemp("copies")
    manifest = capture_corpus(folder, captures=12)
    entries = read_manifest(manifest)
    shutil.copy(entries[0].file, entries[2].file)
    theirs = [p for p in read_packets(entries[4].file) if p.protocol == 6]
    first = [p for p in theirs if p.flow == theirs[0].flow]
    assert len(first) >= LEAST_PACKETS
    write_packets(entries[6].file, [*read_packets(entries[6].file), *first])
    return load_corpus(manifest, workers=1)


def judged(corpus: Corpus, *indices: int) -> np.ndarray:
    return np.isin(np.arange(len(corpus.entries)), indices)


@pytest.mark.parametrize(
    ("mine", "copies"), [((0,), [2]), ((2,), [0]), ((4,), [6]), ((6,), [4]), ((1, 3), [])]
)
def test_captures_that_hold_what_is_judged(
    corpus: Corpus, mine: tuple[int, ...], copies: list[int]
) -> None:
    assert np.flatnonzero(copied_captures(corpus, judged(corpus, *mine))).tolist() == copies


def test_the_gate_counts_copies_on_other_sides_only(corpus: Corpus) -> None:
    fold = np.array([0, 1, 1, 0, 0, 1, 0, 1, 0, 1, 0, 1])
    # 0 and 2 lie in different folds, 4 and 6 in one.
    gate = leak_gate(corpus, Split("group", fold, 2))
    assert gate.text.startswith("2 captures hold flows")
    assert not gate.passed  # 2 of 12 are more than a tenth
    fold[2] = 0
    gate = leak_gate(corpus, Split("group", fold, 2))
    assert gate.text.startswith("0 captures hold flows") and gate.passed
    mixed = leak_gate(corpus, make_split("flow", corpus.entries, folds=2, seed=1))
    assert "both sides" in mixed.text


def test_flows_that_look_alike_are_counted(corpus: Corpus) -> None:
    """The same traffic a day later is no copy, but it looks alike."""
    later = corpus.flows.filter(corpus.flows["capture"] == 8).clone()
    shifted = [list(np.asarray(gaps) + 7) for gaps in later["seq_gap_us"]]
    flows = corpus.flows.filter(corpus.flows["capture"].is_in([8, 9, 11]))
    twin = later.with_columns(
        later["capture"] * 0 + 10, seq_gap_us=later["seq_gap_us"].__class__("", shifted,
                                                                          later["seq_gap_us"].dtype)
    )  # fmt: skip
    small = Corpus(corpus.entries, flows.vstack(twin), corpus.hashes, {})
    fold = np.full(12, -1)
    fold[[8, 9, 10, 11]] = [0, 0, 1, 1]
    gate = leak_gate(small, Split("group", fold, 2))
    assert gate.text.startswith("0 captures hold flows")
    long = (flows["fwd_packets"] + flows["bwd_packets"] >= LEAST_PACKETS).sum() + 6
    assert f"{100 * 12 / long:.1f} % of judged flows" in gate.text


def test_one_capture_under_two_labels_is_refused(corpus: Corpus) -> None:
    refuse_equal_captures(corpus)  # equal ones of one label are not
    entries = [replace(e, label="malicious") if k == 2 else e for k, e in enumerate(corpus.entries)]
    with pytest.raises(CorpusError, match="are the same capture") as caught:
        refuse_equal_captures(Corpus(entries, corpus.flows, corpus.hashes, {}))
    assert caught.value.hint


OPTIONS = CompareOptions(detectors=("lightgbm",), splits=("group",), folds=2, changed=0, workers=1)


@pytest.mark.parametrize(
    ("ttl", "hidden", "passed"),
    [
        ((64, 128), True, False),
        pytest.param((64, 64), False, True, marks=pytest.mark.slow),
    ],
)
def test_the_shortcut_gate_fires_where_the_place_tells(
    ttl: tuple[int, int], hidden: bool, passed: bool, tmp_path: Path
) -> None:
    manifest = capture_corpus(tmp_path / "c", captures=24, ttl=ttl, hidden=hidden)
    found = compare(manifest, tmp_path / "folds", OPTIONS)
    gate = found.gates[0]
    assert (gate.name, gate.passed) == ("shortcuts", passed)
    assert ("METADATA ALONE SEPARATES" in gate.text) != passed


@pytest.mark.slow
def test_the_shortcut_gate_fires_on_a_lab_whose_infected_hosts_are_of_one_system(
    tmp_path: Path,
) -> None:
    """Emulated families whose packets bear another TTL than those of benign applications."""
    from veilwatch.corpus.lab import build_lab

    manifest = build_lab(tmp_path / "lab", seed=3, scale=0.01)
    entries = read_manifest(manifest)
    kept = [e for k, e in enumerate(entries) if k % 8 < 2]
    for item in kept:
        if item.label == "malicious":
            packets = [
                replace(p, data=p.data[:8] + bytes([200]) + p.data[9:])
                for p in read_packets(item.file)
            ]
            write_packets(item.file, packets)
    write_manifest(manifest, kept)
    found = compare(manifest, tmp_path / "folds", OPTIONS)
    gate = found.gates[0]
    assert found.emulated and "emulated" in found.recommendation.text
    assert not gate.passed and "METADATA ALONE SEPARATES" in gate.text
