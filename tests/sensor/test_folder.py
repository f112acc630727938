"""A folder that grows: which files are whole, what is remembered, what is set aside."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.helpers import exchange
from veilwatch.capture import PcapWriter
from veilwatch.errors import CaptureError, OutputError
from veilwatch.flow import EarlyPoints
from veilwatch.pipeline import FlowReader
from veilwatch.sensor import folder as module
from veilwatch.sensor.folder import FolderStream

START = 1_700_000_000 * 10**9


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.0)
    monkeypatch.setattr(module, "WAIT_S", 0.005)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "captures"
    folder.mkdir()
    return folder


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    return tmp_path / "state" / "seen.jsonl"


def write(path: Path, number: int, packets: int = 3) -> Path:
    with PcapWriter(path) as writer:
        for k, frame in enumerate(exchange(f"10.0.0.{number}", 40_000 + number)[:packets]):
            writer.write(START + number * 10**9 + k * 10**6, frame)
    return path


def read(stream: FolderStream, until: Callable[[], bool], seconds: float = 20.0) -> int:
    """Read blocks until something holds; return how many packets came."""
    packets, deadline = 0, time.monotonic() + seconds
    for block in stream:
        packets += len(block)
        if until():
            stream.stop()
        assert time.monotonic() < deadline
    return packets


def quiet(stream: FolderStream, seconds: float = 0.4) -> int:
    """Read until nothing more comes for a while; return how many packets came."""
    packets, end = 0, time.monotonic() + seconds
    for block in stream:
        packets += len(block)
        if len(block):
            end = time.monotonic() + seconds
        elif time.monotonic() > end:
            stream.stop()
    return packets


def test_what_is_whole_is_read_and_the_youngest_waits(place: Path, memory: Path) -> None:
    for number in (1, 2, 3):
        path = write(place / f"{4 - number}.pcap", number)
        os.utime(path, ns=(START + number, START + number))
    stream = FolderStream(place, memory, settle_s=600)
    assert quiet(stream) == 6
    names = [file.name.rsplit("/", 1)[1] for file in stream.report.files]
    assert names == ["3.pcap", "2.pcap"]
    stream.close()


def test_a_file_whose_size_is_stable_is_whole(place: Path, memory: Path) -> None:
    write(place / "a.pcap", 1)
    stream = FolderStream(place, memory, settle_s=0.2)
    began = time.monotonic()
    assert read(stream, lambda: stream.report.packets > 0) == 3
    assert time.monotonic() - began >= 0.2
    stream.close()


def test_a_file_that_is_renamed_in_is_whole_at_once(place: Path, memory: Path) -> None:
    hidden = write(place / ".a.pcap.new", 1)
    part = write(place / "b.pcap.part", 2)
    stream = FolderStream(place, memory, settle_s=600)
    blocks = iter(stream)
    for _ in range(3):
        assert len(next(blocks)) == 0
    hidden.rename(place / "a.pcap")
    part.rename(place / "b.pcap")
    assert quiet(stream) == 6
    stream.close()


def test_a_restart_reads_nothing_twice(place: Path, memory: Path) -> None:
    write(place / "a.pcap", 1)
    write(place / "b\n“.pcap", 2)
    stream = FolderStream(place, memory, settle_s=0.05)
    assert quiet(stream) == 6
    stream.close()
    with memory.open("a") as lines:
        lines.write('{"name": "cut')  # a crash
    stream = FolderStream(place, memory, settle_s=0.05)
    assert quiet(stream) == 0
    stream.close()
    # The same name, another file.
    (place / "a.pcap").unlink()
    write(place / "a.pcap", 3, packets=5)
    stream = FolderStream(place, memory, settle_s=0.05)
    assert quiet(stream) == 5
    stream.close()
    assert len(memory.read_text().splitlines()) == 3
    assert all(json.loads(line) for line in memory.read_text().splitlines())


def test_a_file_that_was_not_read_to_its_end_is_read_again(place: Path, memory: Path) -> None:
    write(place / "a.pcap", 1)
    stream = FolderStream(place, memory, settle_s=0.05)
    for block in stream:
        if len(block):
            break
    stream.close()  # as good as a kill: nothing was remembered
    stream = FolderStream(place, memory, settle_s=0.05)
    assert quiet(stream) == 3
    stream.close()


def test_what_cannot_be_read_is_named_and_left_alone(place: Path, memory: Path) -> None:
    write(place / "good.pcap", 1)
    (place / "notes.txt").write_text("no capture")
    cut = write(place / "cut.pcap", 2)
    cut.write_bytes(cut.read_bytes()[:-5])
    (place / "empty.pcap").touch()
    (place / "folder").mkdir()
    (place / "link.pcap").symlink_to("/etc/passwd")
    stream = FolderStream(place, memory, settle_s=0.05)
    assert quiet(stream) == 5
    assert set(stream.aside) == {"notes.txt", "cut.pcap"}
    assert "not a capture" in stream.aside["notes.txt"] or stream.aside["notes.txt"]
    assert (place / "notes.txt").exists()
    stream.close()
    stream = FolderStream(place, memory, settle_s=0.05)
    assert quiet(stream) == 0
    assert not stream.aside
    stream.close()


def test_flows_run_on_from_file_to_file(place: Path, memory: Path) -> None:
    frames = exchange("10.0.0.9", 40_009, rounds=4)
    for k in range(2):
        with PcapWriter(place / f"{k}.pcap") as writer:
            for i, frame in enumerate(frames[k * 5 : k * 5 + 6]):
                writer.write(START + (k * 5 + i) * 10**6, frame)
    stream = FolderStream(place, memory, settle_s=0.05)
    with FlowReader(stream, early=EarlyPoints(packets=(8,))) as reader:
        kinds = []
        for live in reader.live_tables(interval_s=0.0):
            kinds.append(live.early)
            if live.early:
                (row,) = live.table.frame.select("fwd_packets", "bwd_packets").rows()
                assert sum(row) == 8
                stream.stop()
        assert kinds == [True, False]


def test_reports_are_bounded(place: Path, memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REPORTS", 3)
    for number in range(1, 8):
        write(place / f"{number}.pcap", number)
    stream = FolderStream(place, memory, settle_s=0.05)
    assert quiet(stream) == 21
    assert len(stream.report.files) == 3
    assert stream.report.packets == 21
    stream.close()


def test_places_that_are_not_there(tmp_path: Path, place: Path) -> None:
    with pytest.raises(CaptureError, match="no such folder"):
        FolderStream(tmp_path / "nowhere", tmp_path / "seen")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="remember"):
        FolderStream(place, tmp_path / "file" / "seen")
