"""`veilwatch compare` as a user runs it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from tests.cli.helpers import veilwatch, veilwatch_process
from tests.learning.comparison.factory import capture_corpus
from veilwatch.corpus.lab import build_lab
from veilwatch.corpus.manifest import read_manifest, write_manifest


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """A part of a small emulated corpus."""
    path = build_lab(tmp_path / "lab", seed=3, scale=0.01)
    write_manifest(path, [item for k, item in enumerate(read_manifest(path)) if k % 8 < 2])
    return path


COMPARE = ("compare", "--detectors", "lightgbm", "--folds", "2")


@pytest.mark.slow
def test_an_emulated_corpus_from_end_to_end(manifest: Path, tmp_path: Path) -> None:
    words = ("--corpus", manifest, "--out", tmp_path, "--splits", "group,flow", "--changed", "2")
    done = veilwatch_process(*COMPARE, *words, "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert "comparison.html" in done.stdout.replace("\n", "")
    document = json.loads((tmp_path / "comparison.json").read_text())
    assert document["format"] == 2 and document["emulated"]
    assert "emulated" in document["recommendation"]["text"]
    assert list(document["splits"]) == ["group", "flow"]
    (detector,) = document["detectors"]
    assert detector["robustness"]["unchanged"]["malicious"] == 2
    page = (tmp_path / "comparison.html").read_text()
    assert "Emulated traffic" in page and "src=" not in page
    for name in ("figures", "families", "false_alarms", "robustness"):
        with (tmp_path / f"{name}.csv").open(newline="") as stream:
            assert len(list(csv.DictReader(stream))) > 1
    assert r"\begin{tabular}" in (tmp_path / "tables.tex").read_text()
    # One worker takes what two have left, and finds nothing to do.
    alone = (*COMPARE, *words, "--workers", "1")
    assert veilwatch(*alone).returncode == 2  # its results stand there already
    again = veilwatch(*alone, "--quiet", "--force")
    assert again.returncode == 0 and again.stderr == ""
    second = json.loads((tmp_path / "comparison.json").read_text())
    assert second["detectors"] == document["detectors"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--detectors", "oracle"), "unknown detector 'oracle'"),
        (("--splits", "weekday"), "unknown split 'weekday'"),
        (("--splits", "source", "--folds", "20"), "cannot fill 20 folds"),
    ],
)
def test_bad_input_is_one_line(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    manifest = capture_corpus(tmp_path / "corpus", captures=8, flows=1)
    done = veilwatch(*COMPARE, "--corpus", manifest, "--out", tmp_path, "--workers", "1", *words)
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line.startswith("veilwatch: ")]
    assert len(lines) == 1 and message in lines[0] and "Traceback" not in done.stderr
    assert not (tmp_path / "comparison.json").exists()
