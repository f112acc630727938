"""What we write, read back by tshark, by scapy and by ourselves."""

from __future__ import annotations

import io
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from scapy.utils import RawPcapNgReader, RawPcapReader

from tests.capture import build
from veilwatch.capture import PcapngWriter, PcapWriter, open_captures
from veilwatch.capture.clock import MAX_TIME_NS
from veilwatch.errors import OutputError
from veilwatch.files import PendingFile
from veilwatch.schema.packets import MAX_CAPTURED

RANDOM = random.Random(3)
PACKETS = [
    (1_700_000_000_123_456_789 + i * 1_000_003, RANDOM.randbytes(RANDOM.randrange(14, 90)))
    for i in range(50)
]
WRITERS = [PcapngWriter, PcapWriter]


@pytest.mark.parametrize("writer_class", WRITERS)
def test_what_is_written_is_read_back(
    tmp_path: Path, writer_class: type[PcapngWriter] | type[PcapWriter]
) -> None:
    path = tmp_path / "new" / "a.cap"
    with writer_class(path, link=113) as writer:
        for ts_ns, frame in PACKETS:
            writer.write(ts_ns, frame, 1500)
        writer.write(0, b"")
        writer.write(1, bytes(MAX_CAPTURED))
    stream = open_captures([path])
    records = build.read_all(stream)
    assert [(r.ts_ns, r.frame, r.length, r.link) for r in records[:-2]] == [
        (ts_ns, frame, 1500, 113) for ts_ns, frame in PACKETS
    ]
    assert [len(record.frame) for record in records[-2:]] == [0, MAX_CAPTURED]
    assert stream.report.files[0].fault == ""


def test_comments_reach_the_report_and_tshark(tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    with PcapngWriter(path, comment="emulated 模擬", interface_name="n3") as writer:
        for ts_ns, frame in PACKETS:
            writer.write(ts_ns, frame, comment="wrapped")
    stream = open_captures([path])
    build.read_all(stream)
    assert stream.report.files[0].comments == ["emulated 模擬"]
    if not shutil.which("tshark"):
        pytest.skip("tshark is not installed")
    fields = ["frame.time_epoch", "frame.len", "frame.comment", "frame.interface_name"]
    asked = [part for field in fields for part in ("-e", field)]
    done = subprocess.run(
        ["tshark", "-n", "-r", path, "-T", "fields", *asked],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [
        f"{ts_ns // 10**9}.{ts_ns % 10**9:09d}\t{len(frame)}\twrapped\tn3"
        for ts_ns, frame in PACKETS
    ]
    about = subprocess.run(["capinfos", path], capture_output=True, text=True, check=True).stdout
    assert "Capture application: Veilwatch" in about
    assert "emulated 模擬" in about


def test_scapy_reads_both(tmp_path: Path) -> None:
    for writer_class in WRITERS:
        with writer_class(tmp_path / "a") as writer:
            for ts_ns, frame in PACKETS:
                writer.write(ts_ns, frame, 2000)
        reader = RawPcapReader if writer_class is PcapWriter else RawPcapNgReader
        with reader(str(tmp_path / "a")) as packets:
            for (ts_ns, frame), (data, meta) in zip(PACKETS, packets, strict=True):
                assert (data, meta.wirelen) == (frame, 2000)
                if writer_class is PcapWriter:
                    assert (meta.sec, meta.usec) == divmod(ts_ns, 10**9)
                else:
                    assert (meta.tshigh << 32) + meta.tslow == ts_ns


def test_stream_target_stays_open() -> None:
    target = io.BytesIO()
    with PcapWriter(target) as writer:
        writer.write(1, b"abc")
    assert target.getvalue()[-3:] == b"abc"


@pytest.mark.parametrize("writer_class", WRITERS)
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_interrupted_writer_leaves_the_old_file(
    tmp_path: Path,
    writer_class: type[PcapngWriter] | type[PcapWriter],
    error: type[BaseException],
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(error), writer_class(path) as writer:
        writer.write(1, b"abc")
        raise error
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


class FullDisk(io.BytesIO):
    name = "disk"

    def write(self, data: object) -> int:
        raise OSError(28, "No space left on device")


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OutputError, match="disk: cannot write: No space left on device"):
        PcapWriter(FullDisk())
    path = tmp_path / "a"
    path.write_bytes(b"old")
    writer = PcapngWriter(path)
    assert isinstance(writer._target, PendingFile)
    monkeypatch.setattr(writer._target.stream, "write", FullDisk().write, raising=False)
    with pytest.raises(OutputError, match=r"a: cannot write: No space left on device"):
        writer.write(1, b"abc")
    writer.close()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        PcapngWriter(tmp_path / "file" / "a")


@pytest.mark.parametrize(
    ("ts_ns", "frame", "length"),
    [(-1, b"", None), (MAX_TIME_NS + 1, b"", None), (1, bytes(MAX_CAPTURED + 1), None),
     (1, b"", -1), (1, b"", 2**32)],
)  # fmt: skip
@pytest.mark.parametrize("writer_class", WRITERS)
def test_packets_that_could_not_be_read_again_are_refused(
    writer_class: type[PcapngWriter] | type[PcapWriter],
    ts_ns: int,
    frame: bytes,
    length: int | None,
) -> None:
    with writer_class(io.BytesIO()) as writer, pytest.raises(ValueError, match=r"range|longer"):
        writer.write(ts_ns, frame, length)
