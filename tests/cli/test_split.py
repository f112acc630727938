"""`veilwatch split` as a user runs it."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.cli.helpers import veilwatch, write_capture
from tests.traffic.capture import build
from veilwatch.cli.main import command_line
from veilwatch.errors import VeilwatchError
from veilwatch.traffic.capture import PcapWriter, open_captures

RECORD = 16 + 14 + 20 + 8 + 5
"""Bytes of the last packet of `write_capture` in a pcap."""


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    return write_capture(tmp_path / "a.pcap")


def packets(*paths: Path) -> list[tuple[int, bytes]]:
    return [
        (record.ts_ns, record.frame)
        for path in paths
        for record in build.read_all(open_captures([path]))
    ]


def refused(result: subprocess.CompletedProcess[str], *words: str) -> None:
    assert result.returncode == 2, (result.stdout, result.stderr)
    lines = [line for line in result.stderr.splitlines() if line.startswith("veilwatch: ")]
    assert len(lines) == 1 and "Traceback" not in result.stderr, result.stderr
    for word in words:
        assert word in lines[0], lines[0]


def test_the_flow_of_an_alert_is_taken_out(capture: Path, tmp_path: Path) -> None:
    assert veilwatch("flows", capture, "-o", tmp_path / "conn.log", "-q").returncode == 0
    rows = [x.split("\t") for x in (tmp_path / "conn.log").read_text().splitlines() if x[0] != "#"]
    (flow_id,) = {row[-2] for row in rows if row[2] == "10.0.0.2"}
    result = veilwatch("split", capture, "-o", tmp_path / "out", "--flow-id", flow_id)
    assert result.returncode == 0, result.stderr
    assert "9 of 29 packets" in result.stderr and "all.pcapng" in result.stdout
    assert packets(tmp_path / "out" / "all.pcapng") == packets(capture)[9:18]


def test_hosts_as_pcap(capture: Path, tmp_path: Path) -> None:
    result = veilwatch(
        *("split", capture, "-o", tmp_path / "out", "--by", "host", "--format", "pcap"),
        *("--where", "protocol = 6", "--host", "203.0.113.5", "--quiet"),
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "host-10.0.0.1.pcap", "host-10.0.0.2.pcap", "host-10.0.0.3.pcap", "index.csv"
    ]  # fmt: skip
    if shutil.which("capinfos"):
        about = subprocess.run(
            ["capinfos", tmp_path / "out" / "host-10.0.0.1.pcap"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert "nanoseconds" in about and re.search(r"Number of packets: +9\n", about)


def test_a_pipe_goes_into_a_ring(capture: Path, tmp_path: Path) -> None:
    result = veilwatch(
        *("split", "-", "-o", tmp_path / "ring", "--decapsulate", "--rotate-mb", "0.001"),
        *("--keep", "2"),
        stdin=capture.read_bytes(),
    )
    assert result.returncode == 0, result.stderr
    rings = sorted((tmp_path / "ring").glob("*.pcapng"))
    assert len(rings) == 2 and all(path.stat().st_size <= 1000 for path in rings)
    assert packets(*rings)[-1][1] == packets(capture)[-1][1][14:]


def test_wrong_input_is_one_line(capture: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    refused(veilwatch("split", tmp_path / "none.pcap", "-o", out), "none.pcap")
    refused(
        veilwatch("split", "-", "-o", out, "--by", "flow", stdin=capture.read_bytes()),
        "standard input: cannot be read twice",
    )
    refused(veilwatch("split", capture, "-o", tmp_path), "the folder is not empty")
    refused(veilwatch("split", capture, "-o", "/proc/none"), "/proc/none")
    refused(veilwatch("split", capture, "-o", out, "--where", "port = 1"), "docs/flows.md")
    assert veilwatch("split", capture, "-o", out, "--by", "moon").returncode == 2
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--teid", "0x1ffffffff"], "0x1ffffffff: not a TEID"),
        (["--teid", "-1"], "-1: not a TEID"),
        (["--teid", "abc"], "abc: not a TEID"),
        (["--host", "example"], "example: not an IP address"),
        (["--keep", "3"], "--keep: nothing is rotated"),
    ],
)
def test_wrong_values_are_told_before_anything_is_read(
    capture: Path, tmp_path: Path, options: list[str], words: str
) -> None:
    out = tmp_path / "out"
    result = CliRunner().invoke(command_line(), ["split", str(capture), "-o", str(out), *options])
    assert isinstance(result.exception, VeilwatchError) and words in str(result.exception)
    assert not out.exists()


def test_a_full_disk_is_one_line_and_finished_files_stay(tmp_path: Path) -> None:
    source = tmp_path / "a.pcap"
    with PcapWriter(source) as writer:
        for k in range(400):
            writer.write(1_700_000_000 * 10**9 + k * 10**8, bytes(1000))
    limit = (150_000, 150_000)
    code = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, {limit})"

    def run(folder: str, *options: str) -> subprocess.CompletedProcess[str]:
        words = ["veilwatch", "split", str(source), "-o", str(tmp_path / folder), *options]
        return subprocess.run(
            [sys.executable, "-c", f"{code}; import sys; sys.argv = {words!r}; "
             "from veilwatch.cli.main import run; run()"],
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip

    assert veilwatch("doctor", "--warm").returncode == 0  # compiled kernels are larger files
    refused(run("plain"), "cannot write: File too large")
    assert list((tmp_path / "plain").iterdir()) == []
    result = run("ring", "--rotate-s", "10")
    assert result.returncode == 0, result.stderr
    refused(run("late", "--rotate-mb", "0.2"), "cannot write")
    assert list((tmp_path / "late").iterdir()) == []


def test_interrupt_leaves_whole_files_only(capture: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "veilwatch", "split", "-", "-o", str(out), "--rotate-mb", "0.001"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    data = capture.read_bytes()
    process.stdin.write(data)
    for _ in range(1200):
        # A capture that goes on: what a pipe has buffered is handed over with its next bytes.
        process.stdin.write(data[-RECORD:])
        process.stdin.flush()
        if list(out.glob("*.pcapng")) and list(out.glob(".all*")):
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert b"Traceback" not in stderr
    left = sorted(out.iterdir())
    assert left and all(path.name.startswith("all_") for path in left)
    sent = packets(capture)
    found = packets(*left)
    assert found[: len(sent)] == sent[: len(found)] and set(found[len(sent) :]) <= {sent[-1]}
