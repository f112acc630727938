"""Bad input: one clear line, exit code 2, no traceback, nothing damaged."""

from __future__ import annotations

import gzip
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.helpers import feed, veilwatch, veilwatch_process, write_capture
from veilwatch.traffic.capture import PcapWriter


def _refused(result: subprocess.CompletedProcess[str], *words: str) -> None:
    assert result.returncode == 2, (result.returncode, result.stdout, result.stderr)
    lines = [line for line in result.stderr.splitlines() if line.startswith("veilwatch: ")]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in lines[0], lines[0]


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    return write_capture(tmp_path / "a.pcap")


def test_missing_file(tmp_path: Path) -> None:
    _refused(veilwatch_process("inspect", tmp_path / "none.pcap"), "none.pcap")


def test_folder_without_captures(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing here")
    _refused(veilwatch("flows", tmp_path, "-o", tmp_path / "f.csv"), str(tmp_path))


@pytest.mark.parametrize("content", [b"", b"hello, this is no capture at all\n", b"\x00" * 100])
def test_not_a_capture(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.pcap"
    path.write_bytes(content)
    _refused(veilwatch("inspect", path), "x.pcap")


@pytest.mark.parametrize("quiet", [[], ["-q"]])
def test_capture_cut_in_a_record_gives_what_it_holds_and_says_where(
    tmp_path: Path, capture: Path, quiet: list[str]
) -> None:
    cut = tmp_path / "cut.pcap"
    cut.write_bytes(capture.read_bytes()[:-7])
    result = veilwatch("flows", cut, "-o", tmp_path / "f.csv", *quiet)
    assert result.returncode == 1  # so that a script sees it
    assert "cut.pcap" in result.stderr and "offset" in result.stderr
    assert len((tmp_path / "f.csv").read_text().splitlines()) > 1


def test_cut_gzip(tmp_path: Path, capture: Path) -> None:
    cut = tmp_path / "cut.pcap.gz"
    cut.write_bytes(gzip.compress(capture.read_bytes())[:-20])
    result = veilwatch("inspect", cut)
    assert result.returncode == 1 and "Traceback" not in result.stderr


@pytest.mark.parametrize("quiet", [[], ["-q"]])
def test_a_capture_of_which_nothing_can_be_decoded_says_why(
    tmp_path: Path, quiet: list[str]
) -> None:
    strange = tmp_path / "strange.pcap"
    with PcapWriter(strange, link=147) as writer:
        for k in range(5):
            writer.write(1_700_000_000_000_000_000 + k, b"frames of a private kind")
    result = veilwatch("flows", strange, "-o", tmp_path / "f.csv", *quiet)
    assert result.returncode == 1
    assert "none of 5 packets could be decoded: 5 unsupported link (link type 147)" in result.stderr


def test_a_capture_without_packets_is_no_fault(tmp_path: Path) -> None:
    with PcapWriter(tmp_path / "none.pcap"):
        pass
    result = veilwatch("flows", tmp_path / "none.pcap", "-o", tmp_path / "f.csv", "-q")
    assert (result.returncode, result.stderr) == (0, "")


def test_unknown_output_form(tmp_path: Path, capture: Path) -> None:
    _refused(veilwatch("flows", capture, "-o", tmp_path / "f.xlsx"), "xlsx", ".parquet")


def test_unwritable_output_leaves_the_old_file(tmp_path: Path, capture: Path) -> None:
    _refused(veilwatch("flows", capture, "-o", "/proc/none/f.csv"), "/proc/none")
    _refused(veilwatch("corpus", "encapsulate", capture, "-o", "/proc/none/f.pcapng"), "/proc/none")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_full_disk_says_so(capture: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        result = subprocess.run(
            [sys.executable, "-m", "veilwatch", "flows", str(capture), "-o", "-", "--quiet"],
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=300,
            check=False,
        )
    text = result.stderr.decode()
    assert result.returncode == 2 and "Traceback" not in text
    assert "space" in text


def test_manifest_row_without_its_file(tmp_path: Path) -> None:
    manifest = tmp_path / "M.csv"
    manifest.write_text(
        "file,label,family,is_ransomware,group,source_repo,capture_start\n"
        "gone.pcap,benign,,0,g,s,2024-01-01\n"
    )
    _refused(
        veilwatch("train", "--corpus", manifest, "--out", tmp_path / "m"), "gone.pcap", "line 2"
    )
    assert not (tmp_path / "m").exists()


def test_one_class_only(tmp_path: Path, capture: Path) -> None:
    manifest = tmp_path / "M.csv"
    manifest.write_text(
        "file,label,family,is_ransomware,group,source_repo,capture_start\n"
        "a.pcap,benign,,0,g,s,2024-01-01\n"
    )
    _refused(veilwatch("train", "--corpus", manifest, "--out", tmp_path / "m"), "malicious")


def test_no_model_and_damaged_model(tmp_path: Path, capture: Path) -> None:
    _refused(
        veilwatch("detect", capture, "--model", tmp_path / "m", "--out", tmp_path / "o"), "no model"
    )
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model.json").write_text("{ not json")
    _refused(
        veilwatch("detect", capture, "--model", tmp_path / "m", "--out", tmp_path / "o"),
        "model.json",
    )


def test_evaluate_wants_a_model_or_a_split(tmp_path: Path) -> None:
    _refused(veilwatch("evaluate", "--corpus", tmp_path / "M.csv"), "--split")
    _refused(veilwatch("evaluate", "--corpus", tmp_path / "M.csv", "--split", "moon"), "moon")


def test_train_names_the_splits_there_are(tmp_path: Path) -> None:
    words = ("--corpus", tmp_path / "M.csv", "--out", tmp_path / "m", "--split", "flow")
    _refused(veilwatch("train", *words), "group, source, publisher")


def test_unknown_option_and_value() -> None:
    assert veilwatch("inspect").returncode == 2
    assert veilwatch("flows", "a.pcap", "-o", "x.csv", "--idle-timeout", "-3").returncode == 2


def test_interrupt_leaves_no_half_file(tmp_path: Path) -> None:
    target = tmp_path / "f.csv"
    process = subprocess.Popen(
        [sys.executable, "-m", "veilwatch", "flows", "-", "-o", str(target)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    feed(process, tmp_path / "a.pcap")
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert b"Traceback" not in stderr
    assert not target.exists()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".f.csv")] == []
