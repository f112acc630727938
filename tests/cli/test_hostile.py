"""Every hostile capture passes through inspect, flows and detect without a crash or a hang."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from tests.cli.helpers import veilwatch
from veilwatch.cli.reading import INCOMPLETE
from veilwatch.detection.scoring import FlowScorer
from veilwatch.errors import CaptureError
from veilwatch.learning.models import load_model
from veilwatch.schema.flows import FlowTable
from veilwatch.traffic.pipeline import FlowReader

MEMORY_LIMIT_KB = 1_000_000
"""How far a process may grow over all hostile files; they hold 31 MB on disk."""


def _memory_kb(field: str) -> int:
    """Return `VmRSS` or `VmHWM` of this process (proc(5))."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def _forget_peak() -> None:
    """Let the peak begin anew: other tests ran in this process before."""
    Path("/proc/self/clear_refs").write_text("5")


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "MANIFEST.csv")


@pytest.mark.corpus
@pytest.mark.slow
def test_each_file_is_read_or_refused_and_scored(corpus_path: Path, emulation: Path) -> None:
    """One after the other in this process: whatever a file does, the next one still works."""
    model = load_model(emulation / "model")
    scorer = FlowScorer(model)
    _forget_peak()
    before = _memory_kb("VmRSS")
    refused, packets, flows, scored = [], 0, 0, 0
    tables: list[pl.DataFrame] = []

    def score() -> None:
        """Score the tables of many files at once: explaining each by itself takes seconds."""
        if tables:
            scorer.add(FlowTable(pl.concat(tables)))
            tables.clear()

    for number, path in enumerate(_files(corpus_path / "hostile")):
        if number % 40 == 0:
            score()
        try:
            with FlowReader([path], first_flow_id=flows + 1) as reader:
                for table in reader:
                    flows += len(table)
                    # All of them are scored in the next test; here one file in three.
                    if number % 3 == 0:
                        tables.append(table.frame)
                        scored += len(table)
        except CaptureError as error:
            assert path.name in str(error)
            refused.append(path.name)
            continue
        statuses = {name: n for name, n in reader.balance.items() if name.isupper()}
        assert sum(statuses.values()) == reader.captures.packets, path
        packets += reader.captures.packets
    score()
    scores = scorer.finish()
    assert scores.flows.height == scored > 0 and flows > 10_000
    assert scores.flows["score"].is_between(0, 1).all()
    assert packets > 100_000
    # The one file of a format that is not read (snoop).
    assert len(refused) <= 1, refused
    assert _memory_kb("VmHWM") - before < MEMORY_LIMIT_KB


@pytest.mark.slow
@pytest.mark.corpus
def test_the_folder_as_one_input_through_every_verb(
    corpus_path: Path, emulation: Path, tmp_path: Path
) -> None:
    folder = corpus_path / "hostile"  # six of its files end in the middle of a packet
    inspected = veilwatch("inspect", folder, "--json")
    assert inspected.returncode == INCOMPLETE, inspected.stderr
    found = json.loads(inspected.stdout)
    written = veilwatch("flows", folder, "-o", tmp_path / "flows.parquet", "--quiet")
    assert written.returncode == INCOMPLETE, written.stderr
    detected = veilwatch(
        "detect", folder, "--model", emulation / "model", "--out", tmp_path / "out", "--json"
    )
    assert detected.returncode == INCOMPLETE, detected.stderr
    summary = json.loads(detected.stdout)
    assert summary["packets"] == found["packets"]
    assert summary["flows"] == found["flows"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<script" not in page
