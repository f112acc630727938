"""A folder that grows: which files are whole, what is remembered, what is set aside."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.helpers import exchange
from veilwatch.errors import CaptureError, OutputError
from veilwatch.sensor import folder as module
from veilwatch.sensor.folder import FolderStream
from veilwatch.sensor.read_log import Seen
from veilwatch.traffic.capture import PcapWriter, open_captures
from veilwatch.traffic.flow import InterimPoints
from veilwatch.traffic.pipeline import FlowReader

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
    with FlowReader(stream, early=InterimPoints(packets=(8,))) as reader:
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


ODD_NAMES = (
    b"caf\xe9.pcap",  # latin-1
    b"\xff\xfe\x80.pcap",
    b"two\nlines\r.pcap",
    b"\x1b[31mred\x07.pcap",
    b"-rf.pcap",
    b"*.pcap",
    b"[ab]?.pcap",
    b"a b'\"$(id).pcap",
    b"n" * 250 + b".pcap",
    "\u202egnp.pcap".encode(),
)


def test_a_file_of_any_name_is_read_once_and_stops_nothing(
    tmp_path: Path, place: Path, memory: Path
) -> None:
    for number, name in enumerate(ODD_NAMES, 1):
        write(tmp_path / "x.pcap", number)
        (tmp_path / "x.pcap").rename(place / os.fsdecode(name))
    write(place / "z-last.pcap", 99)
    stream = FolderStream(place, memory, settle_s=0.05)
    assert quiet(stream) == 3 * (len(ODD_NAMES) + 1)
    assert not stream.aside
    for file in stream.report.files:
        assert file.name.isprintable() and file.name.encode()
    stream.close()
    stream = FolderStream(place, memory, settle_s=0.05)
    assert quiet(stream) == 0  # all of them are remembered
    stream.close()
    assert memory.read_bytes().isascii()


def test_what_is_no_file_or_none_any_more_stops_nothing(
    place: Path, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(place / "fifo.pcap")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(place / "s.pcap"))
    (place / "folder.pcap").mkdir()
    (place / "loop.pcap").symlink_to(place / "loop.pcap")
    (place / "empty.pcap").touch()
    for number, name in enumerate(("*.pcap", "swapped.pcap", "a.pcap"), 1):
        write(place / name, number)
    stream = FolderStream(place, memory, settle_s=0.05)
    whole = stream._whole

    def vanishing() -> list[Seen]:
        found = whole()
        if found:
            (place / "*.pcap").unlink(missing_ok=True)
            if (place / "swapped.pcap").is_file():
                (place / "swapped.pcap").unlink()
                os.mkfifo(place / "swapped.pcap")
        return found

    monkeypatch.setattr(stream, "_whole", vanishing)
    assert quiet(stream) == 3  # and not once more by the pattern that the name looks like
    stream.close()
    listener.close()


def test_a_file_that_ends_its_reader_twice_is_set_aside(place: Path, memory: Path) -> None:
    write(place / "a.pcap", 1)
    for _ in range(2):
        stream = FolderStream(place, memory, settle_s=0.05)
        for block in stream:
            if len(block):
                break
        del stream  # killed amid the file: nothing is said and nothing closed
    write(place / "b.pcap", 2)
    notes = Notes()
    stream = FolderStream(place, memory, settle_s=0.05, progress=notes)
    assert quiet(stream) == 3
    assert list(stream.aside) == ["a.pcap"] and "broken off 2 times" in notes.said[-1]
    stream.close()
    stream = FolderStream(place, memory, settle_s=0.05, progress=notes)
    assert quiet(stream) == 0 and not stream.aside
    stream.close()
    # Under another name it is another file.
    (place / "a.pcap").rename(place / "again.pcap")
    stream = FolderStream(place, memory, settle_s=0.05)
    assert quiet(stream) == 3
    stream.close()


def test_a_reader_that_is_told_to_end_is_no_fault_of_the_file(place: Path, memory: Path) -> None:
    frames = exchange("10.0.0.9", 40_009)
    with PcapWriter(place / "a.pcap") as writer:
        for k in range(5000):  # several blocks
            writer.write(START + k * 10**6, frames[k % len(frames)])
    for _ in range(4):  # told to end, and killed as it takes too long
        stream = FolderStream(place, memory, settle_s=0.05)
        for block in stream:
            if len(block):
                stream.stop()
                assert len(next(stream._blocks))
                break
        del stream
    stream = FolderStream(place, memory, settle_s=0.05)
    assert quiet(stream) == 5000 and not stream.aside
    stream.close()


def test_a_fault_of_ours_is_said_and_the_next_file_is_read(
    place: Path, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(place / "a.pcap", 1)
    write(place / "b.pcap", 2)

    def broken(inputs: list[Path], **words: Any) -> Any:
        if str(inputs[0]).endswith("a.pcap"):
            raise IndexError("out of bounds")
        return open_captures(inputs, **words)

    monkeypatch.setattr(module, "open_captures", broken)
    notes = Notes()
    stream = FolderStream(place, memory, settle_s=0.05, progress=notes)
    assert quiet(stream) == 3
    assert list(stream.aside) == ["a.pcap"]
    assert sum("unexpected IndexError" in note for note in notes.said) == 2
    stream.close()


def test_a_file_that_may_not_be_read_yet_is_read_when_it_may(
    place: Path, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(place / "a.pcap", 1)
    write(place / "b.pcap", 2)
    closed = {"a.pcap"}
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name not in closed)
    stream = FolderStream(place, memory, settle_s=0.05)
    assert read(stream, lambda: stream.report.packets == 3) == 3
    assert list(stream.aside) == ["a.pcap"]
    stream.close()
    closed.clear()
    stream = FolderStream(place, memory, settle_s=0.05)
    assert quiet(stream) == 3
    stream.close()


def test_a_file_that_grew_is_read_again_and_said(place: Path, memory: Path) -> None:
    write(place / "a.pcap", 1, packets=3)
    stream = FolderStream(place, memory, settle_s=0.05)
    assert quiet(stream) == 3
    stream.close()
    longer = write(place.parent / "long.pcap", 1, packets=5).read_bytes()
    (place / "a.pcap").write_bytes(longer)  # the same inode
    notes = Notes()
    stream = FolderStream(place, memory, settle_s=0.05, progress=notes)
    assert quiet(stream) == 5
    assert any("has grown" in note for note in notes.said)
    stream.close()


@pytest.mark.parametrize("stamp", [0, 4_102_444_800 * 10**9])
def test_one_wrong_stamp_does_not_move_the_time_of_the_traffic(
    place: Path, memory: Path, stamp: int
) -> None:
    frames = exchange("10.0.0.9", 40_009, rounds=4)
    with PcapWriter(place / "a.pcap") as writer:
        for k, frame in enumerate(frames):
            writer.write(stamp if k == len(frames) - 1 else START + k * 10**6, frame)
    stream = FolderStream(place, memory, settle_s=0.05)
    latest = 0
    for block in stream:
        if len(block):
            latest = block.now_ns
            stream.stop()
    assert abs(latest - START) < 10**9
    stream.close()


class Notes:
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def start(self, task: str, total: float | None = None) -> None:
        pass

    def advance(self, amount: float = 1.0) -> None:
        pass

    def note(self, message: str) -> None:
        self.said.append(message)
