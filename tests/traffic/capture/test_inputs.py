"""From names to captures, and what is refused before anything is read."""

from __future__ import annotations

import gzip
import io
import os
import sys
from pathlib import Path

import pytest

from tests.traffic.capture import build
from tests.traffic.capture.test_source import Stdin
from veilwatch.errors import CaptureError
from veilwatch.traffic.capture import open_captures

CAPTURE = build.pcap([(1, 0, b"x")])


def names(*inputs: str | Path) -> list[str]:
    stream = open_captures(inputs)
    build.read_all(stream)
    return [Path(report.name).name for report in stream.report.files]


def test_folder_is_searched_for_captures_by_content(tmp_path: Path) -> None:
    below = tmp_path / "deep" / "er"
    below.mkdir(parents=True)
    (tmp_path / "b.dat").write_bytes(CAPTURE)
    (tmp_path / "a").write_bytes(gzip.compress(CAPTURE, mtime=0))
    (below / "c.pcapng").write_bytes(build.section())
    (tmp_path / "notes.pcap").write_text("not a capture")
    (tmp_path / "text.pcap").write_bytes(b"\n\r\r\nline ends of a text")
    (tmp_path / "empty.pcap").touch()
    os.mkfifo(tmp_path / "pipe.pcap")  # opening it would wait for ever
    assert sorted(names(tmp_path)) == ["a", "b.dat", "c.pcapng"]


def test_pattern_and_duplicates(tmp_path: Path) -> None:
    for name in ("b.pcap", "a.pcap", "other"):
        (tmp_path / name).write_bytes(CAPTURE)
    (tmp_path / "link.pcap").symlink_to(tmp_path / "a.pcap")
    assert names(f"{tmp_path}/*.pcap", tmp_path / "b.pcap", tmp_path) == [
        "a.pcap",
        "b.pcap",
        "other",
    ]


def test_name_with_pattern_characters_is_a_name_first(tmp_path: Path) -> None:
    (tmp_path / "a[1].pcap").write_bytes(CAPTURE)
    assert names(tmp_path / "a[1].pcap") == ["a[1].pcap"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"\xd4\xc3", "not a capture"),
        (b"hello, world, this is text", "not a capture"),
        (b"snoop\0\0\0\0\0\0\2\0\0\0\4", "not a pcap capture but a snoop capture"),
        (b"GMBU\0\0\0\0\0\0\0\0\0\0\0\0\0\0", "not a pcap capture but a Network Monitor 2 capture"),
        (gzip.compress(gzip.compress(CAPTURE, mtime=0), mtime=0), "gzip within compressed data"),
        (gzip.compress(b"text in gzip", mtime=0), "not a capture"),
        (gzip.compress(CAPTURE, mtime=0)[:11], "gzip data cut after 11 bytes"),
        (b"\x1f\x8bnonsense that is no gzip", "gzip data damaged"),
        (b"\x28\xb5\x2f\xfdnonsense that is no zstd", "zstd data damaged"),
    ],
)
def test_what_is_no_capture(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.pcap"
    path.write_bytes(content)
    good = tmp_path / "good.pcap"
    good.write_bytes(CAPTURE)
    for inputs in ([path], [good, path]):
        with pytest.raises(CaptureError, match=message) as caught:
            open_captures(inputs)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


def test_missing_things(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match=r"nothing\.pcap: cannot open: No such file"):
        open_captures([tmp_path / "nothing.pcap"])
    with pytest.raises(CaptureError, match="no file matches"):
        open_captures([f"{tmp_path}/*.pcap"])
    with pytest.raises(CaptureError, match="no capture in this folder"):
        open_captures([tmp_path])
    with pytest.raises(CaptureError, match="no capture was named"):
        open_captures([])


def test_capture_without_packets_is_fine(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(build.pcap([]))
    stream = open_captures([tmp_path / "a"])
    assert build.read_all(stream) == []
    assert stream.report.files[0].first_ns is None
    assert stream.report.faults == []


def test_file_that_changes_after_the_check_is_a_fault_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(CAPTURE)
    (tmp_path / "b").write_bytes(CAPTURE)
    stream = open_captures([tmp_path / "a", tmp_path / "b"])
    (tmp_path / "a").unlink()
    assert len(build.read_all(stream)) == 1
    assert [report.fault for report in stream.report.files if report.fault] == [
        "cannot open: No such file or directory"
    ]


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_no_file_stays_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        packets = [(i, 0, bytes(1000)) for i in range(1000)]
        (tmp_path / name).write_bytes(build.pcap(packets))
    before = open_files()
    stream = open_captures([tmp_path])
    assert open_files() == before
    with pytest.raises(KeyboardInterrupt), stream:
        next(iter(stream))
        assert open_files() == before + 3
        raise KeyboardInterrupt
    assert open_files() == before
    with pytest.raises(CaptureError):
        open_captures([tmp_path / "a", tmp_path / "missing"])
    assert open_files() == before


class Listener:
    def __init__(self) -> None:
        self.total: float | None = -1.0
        self.done = 0.0
        self.notes: list[str] = []

    def start(self, task: str, total: float | None = None) -> None:
        self.total = total

    def advance(self, amount: float = 1.0) -> None:
        self.done += amount

    def note(self, message: str) -> None:
        self.notes.append(message)


def test_progress_counts_the_bytes_of_the_files_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(gzip.compress(build.pcap([(i, 0, b"abc") for i in range(5000)])))
    (tmp_path / "b").write_bytes(build.pcap([(i, 0, b"abc") for i in range(50_000)])[:-1])
    listener = Listener()
    build.read_all(open_captures([tmp_path], progress=listener))
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert listener.total == size
    assert listener.done == size
    assert len(listener.notes) == 1
    assert listener.notes[0].startswith(f"{tmp_path}/b: cut short")


def test_total_is_unknown_with_a_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(CAPTURE)
    monkeypatch.setattr(sys, "stdin", Stdin(io.BytesIO(CAPTURE)))
    listener = Listener()
    assert len(build.read_all(open_captures([tmp_path, "-"], progress=listener))) == 2
    assert listener.total is None
    assert listener.done == 2 * len(CAPTURE)


@pytest.mark.parametrize("kind", [str, Path])
def test_one_capture_needs_no_list(tmp_path: Path, kind: type) -> None:
    path = tmp_path / "n3.pcap"
    path.write_bytes(CAPTURE)
    stream = open_captures(kind(path))
    assert len(build.read_all(stream)) == 1
    assert [report.name for report in stream.report.files] == [str(path)]
