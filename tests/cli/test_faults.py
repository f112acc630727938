"""A capture that was not read to its end decides the exit code, in every verb and with `-q`."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.cli.helpers import write_capture
from veilwatch.cli.main import command_line
from veilwatch.traffic.capture import PcapWriter

VERBS = {
    "flows": ["flows", "{capture}", "-o", "out.csv"],
    "inspect": ["inspect", "{capture}"],
    "inspect as JSON": ["inspect", "{capture}", "--json"],
    "split": ["split", "{capture}", "-o", "out"],
    "split by host": ["split", "{capture}", "-o", "out", "--by", "host"],
    "encapsulate": ["corpus", "encapsulate", "{capture}", "-o", "out.pcapng"],
    "detect": ["detect", "{capture}", "--model", "{model}", "-o", "out"],
    "detect as JSON": ["detect", "{capture}", "--model", "{model}", "-o", "out", "--json"],
}
"""Every verb that reads captures for themselves."""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    return tmp_path


def run(words: list[str], capture: Path, model: Path, quiet: bool) -> tuple[int, str]:
    """Run a verb; return its exit code and what it said, in one line."""
    asked = [word.format(capture=capture, model=model) for word in words] + ["-q"] * quiet
    result = CliRunner().invoke(command_line(asked), asked)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, re.sub(r"\s+", " ", result.output)


@pytest.mark.parametrize("quiet", [False, True])
@pytest.mark.parametrize("verb", VERBS)
def test_a_capture_that_is_cut(place: Path, emulation: Path, verb: str, quiet: bool) -> None:
    cut = place / "cut.pcap"
    cut.write_bytes(write_capture(place / "whole.pcap").read_bytes()[:-7])
    code, said = run(VERBS[verb], cut, emulation / "model", quiet)
    assert code == 1
    assert "cut.pcap" in said and "offset" in said
    assert list(place.glob("out*")) or "inspect" in verb  # results are there all the same


@pytest.mark.parametrize("quiet", [False, True])
@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "split"])
def test_a_capture_of_which_nothing_can_be_decoded(
    place: Path, emulation: Path, verb: str, quiet: bool
) -> None:
    strange = place / "strange.pcap"
    with PcapWriter(strange, link=147) as writer:
        for k in range(5):
            writer.write(1_700_000_000_000_000_000 + k, b"frames of a private kind")
    code, said = run(VERBS[verb], strange, emulation / "model", quiet)
    assert code == 1
    assert "none of 5 packets could be decoded: 5 " in said


@pytest.mark.parametrize("verb", VERBS)
def test_whole_captures_are_no_fault(place: Path, emulation: Path, verb: str) -> None:
    code, said = run(VERBS[verb], write_capture(place / "a.pcap"), emulation / "model", True)
    assert code == 0, said


@pytest.mark.parametrize("quiet", [False, True])
def test_captures_of_a_corpus(place: Path, quiet: bool) -> None:
    cut = place / "cut.pcap"
    cut.write_bytes(write_capture(place / "whole.pcap").read_bytes()[:-7])
    (place / "M.csv").write_text("file,label\ncut.pcap,benign\nwhole.pcap,malicious\n")
    code, said = run(["corpus", "extract", "M.csv"], cut, cut, quiet)
    assert code == 1
    assert "cut.pcap: " in said and "offset" in said


@pytest.mark.slow
def test_sigterm_in_training_leaves_no_half_model(emulation: Path, tmp_path: Path) -> None:
    manifest, out = emulation / "lab" / "MANIFEST.csv", tmp_path / "model"
    words = ["train", "--corpus", str(manifest), "-o", str(out)]
    process = subprocess.Popen(
        [sys.executable, "-m", "veilwatch", *words], stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stderr is not None
    first = process.stderr.readline()  # of the progress: captures are read
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, said
    assert b"Traceback" not in first + said and b"ended by SIGTERM; nothing was written" in said
    assert not out.exists()
