"""`veilwatch compare` as a user runs it."""

from __future__ import annotations

import csv
import json
import subprocess
from pathlib import Path

import pytest

from tests.cli.helpers import veilwatch
from veilwatch.corpus.lab import build_lab
from veilwatch.corpus.manifest import read_manifest, write_manifest


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A part of a small emulated corpus."""
    path = build_lab(tmp_path_factory.mktemp("lab"), seed=3, scale=0.01)
    write_manifest(path, [item for k, item in enumerate(read_manifest(path)) if k % 8 < 2])
    return path


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return veilwatch("compare", "--detectors", "lightgbm", "--folds", "2", *words)


@pytest.mark.slow
def test_an_emulated_corpus_from_end_to_end(manifest: Path, tmp_path: Path) -> None:
    words = ("--corpus", manifest, "--out", tmp_path, "--splits", "group,flow", "--changed", "2")
    done = run(*words, "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert "comparison.html" in done.stdout.replace("\n", "")
    document = json.loads((tmp_path / "comparison.json").read_text())
    assert document["format"] == 1 and document["emulated"]
    assert "emulated" in document["recommendation"]["text"]
    assert list(document["splits"]) == ["group", "flow"]
    (detector,) = document["detectors"]
    assert detector["robustness"]["unchanged"]["malicious"] == 2
    page = (tmp_path / "comparison.html").read_text()
    assert "Emulated traffic" in page and "src=" not in page
    for name in ("figures", "families", "robustness"):
        with (tmp_path / f"{name}.csv").open(newline="") as stream:
            assert len(list(csv.DictReader(stream))) > 1
    assert r"\begin{tabular}" in (tmp_path / "tables.tex").read_text()
    # One worker takes what two have left, and finds nothing to do.
    assert run(*words, "--workers", "1").returncode == 2  # its results stand there already
    again = run(*words, "--workers", "1", "--quiet", "--force")
    assert again.returncode == 0 and again.stderr == ""
    second = json.loads((tmp_path / "comparison.json").read_text())
    assert second["detectors"] == document["detectors"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--detectors", "oracle"), "unknown detector 'oracle'"),
        (("--splits", "weekday"), "unknown split 'weekday'"),
        (("--splits", "source", "--folds", "20", "--corpus", "few"), "cannot fill 20 folds"),
    ],
)
def test_bad_input_is_one_line(
    words: tuple[str, ...], message: str, manifest: Path, tmp_path: Path
) -> None:
    few = manifest.parent / "few.csv"
    write_manifest(few, read_manifest(manifest)[::6])
    done = run("--corpus", manifest, "--out", tmp_path, *(few if w == "few" else w for w in words))
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line.startswith("veilwatch: ")]
    assert len(lines) == 1 and message in lines[0] and "Traceback" not in done.stderr
    assert not (tmp_path / "comparison.json").exists()
