"""The examples do what their pages say: a plugin that is installed, and two days of work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.conftest import ROOT

EXAMPLES = ROOT / "examples"


def run(
    *words: str | Path, modules: Sequence[Path] = (), environment: Mapping[str, str] = {}
) -> subprocess.CompletedProcess[str]:
    """Run Python with further folders of modules."""
    folders = map(str, [ROOT / "src", *modules])
    return subprocess.run(
        [sys.executable, *map(str, words)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(folders), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example package, installed without a network into a folder of its own."""
    pytest.importorskip("setuptools", reason="builds the example package")
    place = tmp_path_factory.mktemp("plugin")
    # From a copy: building leaves files beside the sources.
    source = place / "source"
    for file in sorted((EXAMPLES / "plugin").rglob("*")):
        if file.is_file() and "__pycache__" not in file.parts and "build" not in file.parts:
            target = source / file.relative_to(EXAMPLES / "plugin")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet")
    target = place / "site"
    done = run("-m", "pip", "install", *options, "--target", target, source)
    assert done.returncode == 0, done.stderr
    return target


def test_the_detector_keeps_the_contract(installed: Path) -> None:
    code = (
        "import veilwatch\n"
        "from veilwatch.learning.detectors import DETECTORS\n"
        "assert list(DETECTORS)[-1] == 'naive_bayes'\n"
        "veilwatch.check_detector('naive_bayes')\n"
    )
    done = run("-c", code, modules=[installed])
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_model_of_the_detector(installed: Path, tmp_path: Path) -> None:
    code = (
        "import sys, veilwatch\n"
        "from pathlib import Path\n"
        "folder = Path(sys.argv[1])\n"
        "manifest = veilwatch.build_lab(folder / 'lab', scale=0.05)\n"
        "model = veilwatch.train(manifest, detector='naive_bayes', folds=2, hosts=False,\n"
        "                        families=False)\n"
        "veilwatch.save_model(model, folder / 'model')\n"
        "truth = veilwatch.field_capture(folder / 'n3.pcapng', subscribers=4, scale=0.1)\n"
        "print(veilwatch.detect(folder / 'n3.pcapng', folder / 'model').hosts.height)\n"
    )
    done = run("-c", code, tmp_path, modules=[installed])
    assert (done.returncode, done.stdout.strip()) == (0, "4"), done.stderr
    manifest = json.loads((tmp_path / "model" / "model.json").read_text())
    assert manifest["detector"] == "naive_bayes"
    assert manifest["members"] == ["member-0", "member-1"]
    assert manifest["held_out"]["flow"]["n_positive"] > 100
    # Where the package is missing, its model is refused by name.
    words = ("detect", tmp_path / "n3.pcapng", "--model", tmp_path / "model", "-o", tmp_path / "r")
    refused = run("-m", "veilwatch", *words)
    assert refused.returncode == 2
    assert "unknown detector 'naive_bayes'" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_the_sink_is_known_to_the_command_line_and_writes(installed: Path, tmp_path: Path) -> None:
    listed = run("-m", "veilwatch", "sinks", "list", modules=[installed])
    assert listed.returncode == 0, listed.stderr
    assert "csv+file://" in listed.stdout and "veilwatch-example 0.1.0" in listed.stdout
    assert "?separator=" in listed.stdout
    file = tmp_path / "alerts.csv"
    code = (
        "import sys\n"
        "from dataclasses import replace\n"
        "from tests.sinks.events import make\n"
        "from veilwatch.sinks.base import open_sink\n"
        "event, other = make(0), make(1)\n"
        "hostile = replace(other, alert=replace(other.alert, family='=cmd()'))\n"
        "with open_sink(sys.argv[1]) as sink:\n"
        "    receipt = sink.send([event, hostile])\n"
        "print(len(receipt.delivered), len(receipt.again), len(receipt.refused))\n"
    )
    done = run("-c", code, f"csv+file://{file}?separator=semicolon", modules=[installed, ROOT])
    assert (done.returncode, done.stdout.split()) == (0, ["2", "0", "0"]), done.stderr
    lines = [line.split(";") for line in file.read_text().splitlines()]
    assert len(lines) == 2 and all(len(line) == 6 for line in lines)
    assert lines[1][4] == "'=cmd()"
    refused = run("-c", code, f"csv+file://{file.with_suffix('.txt')}", modules=[installed, ROOT])
    assert "names no CSV file" in refused.stderr


@pytest.mark.slow
def test_two_days_of_work(tmp_path: Path) -> None:
    environment = {"VEILWATCH_EXAMPLES": str(tmp_path), "VEILWATCH_EXAMPLES_SCALE": "0.05"}
    research = run(EXAMPLES / "researcher_day.py", environment=environment)
    assert research.returncode == 0, research.stderr
    assert "210 captures" in research.stdout
    assert "The traffic is emulated" in research.stdout
    analysis = run(EXAMPLES / "analyst_day.py", environment=environment)
    assert analysis.returncode == 0, analysis.stderr
    assert "LightGBM on emulated traffic" in analysis.stdout
    assert "of 4 infected subscribers alerted" in analysis.stdout
    summary = json.loads((tmp_path / "results" / "summary.json").read_text())
    assert summary["model_emulated"] and summary["flows"] > 50
    for name in ("held-out.html", "comparison/comparison.html", "report.html"):
        assert "<html" in (tmp_path / name).read_text()
