"""What we write, read back by tshark, by scapy and by ourselves."""

from __future__ import annotations

import io
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from scapy.utils import RawPcapNgReader, RawPcapReader

from tests.traffic.capture import build
from veilwatch.errors import OutputError
from veilwatch.files import PendingFile
from veilwatch.schema.packets import MAX_CAPTURED
from veilwatch.traffic.capture import Direction, Interface, PcapngWriter, PcapWriter, open_captures
from veilwatch.traffic.capture.clock import MAX_TIME_NS

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


def fields(path: Path, *names: str) -> list[list[str]]:
    """What tshark says of each packet."""
    if not shutil.which("tshark"):
        pytest.skip("tshark is not installed")
    asked = [part for name in names for part in ("-e", name)]
    done = subprocess.run(
        ["tshark", "-n", "-r", path, "-T", "fields", *asked],
        capture_output=True,
        text=True,
        check=True,
    )
    return [line.split("\t") for line in done.stdout.splitlines()]


def test_several_interfaces_in_one_file(tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    n3 = Interface(1, "n3", "towards the radio", 2000)
    n6 = Interface(101, "n6")
    with PcapngWriter(path, comment=["one", "two"]) as writer:
        writer.write(1, b"x" * 60, interface=n3, direction=Direction.INBOUND, comment="c")
        writer.write(2, b"\x45" + bytes(19), interface=n6, direction=Direction.OUTBOUND)
        writer.write(3, memoryview(b"x" * 61), 1500, interface=n3)
        assert writer.packets == 3
        writer.flush()
        assert writer.size == sum(p.stat().st_size for p in tmp_path.iterdir())
    stream = open_captures([path])
    records = build.read_all(stream)
    assert [(r.ts_ns, r.link, r.interface, r.length) for r in records] == [
        (1, 1, 0, 60), (2, 101, 1, 20), (3, 1, 0, 1500)
    ]  # fmt: skip
    report = stream.report.files[0]
    assert report.interfaces == [1, 101] and report.comments == ["one", "two"]
    names = ["frame.interface_name", "frame.interface_description", "frame.packet_flags_direction"]
    assert fields(path, *names, "frame.comment") == [
        ["n3", "towards the radio", "0x00000001", "c"],
        ["n6", "", "0x00000002", ""],
        ["n3", "towards the radio", "", ""],
    ]
    with RawPcapNgReader(str(path)) as packets:
        metas = [meta for _, meta in packets]
    assert [meta.linktype for meta in metas] == [1, 101, 1]


def test_statistics_stand_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    idle = Interface(1, "idle")
    with PcapngWriter(path, interface_name="n3") as writer:
        for ts_ns, frame in PACKETS:
            writer.write(ts_ns, frame)
        writer.statistics(None, received=1, dropped=0)
        writer.statistics(None, received=2**40 + 50, dropped=2**33)
        writer.statistics(idle, received=0, dropped=0)
        with pytest.raises(ValueError, match="range"):
            writer.statistics(None, received=-1, dropped=0)
    stream = open_captures([path])
    assert len(build.read_all(stream)) == len(PACKETS)
    assert stream.report.files[0].skipped_blocks == 2
    assert stream.report.files[0].interfaces == [1, 1]
    data = path.read_bytes()
    first, last = PACKETS[0][0], PACKETS[-1][0]
    expected = build.block(
        "<",
        5,
        (0).to_bytes(4, "little")
        + halves(last)
        + build.option("<", 2, halves(first))
        + build.option("<", 3, halves(last))
        + build.option("<", 4, (2**40 + 50).to_bytes(8, "little"))
        + build.option("<", 5, (2**33).to_bytes(8, "little"))
        + build.option("<", 0, b""),
    )
    assert expected in data
    if shutil.which("capinfos"):
        about = subprocess.run(["capinfos", path], capture_output=True, text=True, check=True)
        assert "Number of stat entries = 1" in about.stdout


def halves(ts_ns: int) -> bytes:
    """A time as pcapng writes it: the upper 32 bits first."""
    return (ts_ns >> 32).to_bytes(4, "little") + (ts_ns & 0xFFFFFFFF).to_bytes(4, "little")


def test_an_interface_is_described_only_where_it_is_used(tmp_path: Path) -> None:
    with PcapngWriter(tmp_path / "a", link=113) as writer:
        pass
    assert len(build.read_all(open_captures([tmp_path / "a"]))) == 0
    with PcapngWriter(tmp_path / "b", link=113) as writer:
        writer.write(1, b"", interface=Interface(1))
    stream = open_captures([tmp_path / "b"])
    build.read_all(stream)
    assert stream.report.files[0].interfaces == [1]


@pytest.mark.parametrize("writer_class", WRITERS)
def test_a_suspended_writer_goes_on(
    tmp_path: Path, writer_class: type[PcapngWriter] | type[PcapWriter]
) -> None:
    with writer_class(tmp_path / "a") as turns, writer_class(tmp_path / "b") as straight:
        for ts_ns, frame in PACKETS:
            turns.suspend()
            turns.write(ts_ns, frame)
            straight.write(ts_ns, frame)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_pcap_refuses_what_it_cannot_say(tmp_path: Path) -> None:
    with PcapWriter(tmp_path / "a", link=113) as writer:
        writer.write(1, b"x", interface=Interface(113, "n3"), direction=Direction.INBOUND)
        writer.statistics(None, received=1, dropped=0)
        with pytest.raises(OutputError, match=r"a pcap holds one link type: 1 .* \(write pcapng\)"):
            writer.write(2, b"y", interface=Interface(1))
        with pytest.raises(OutputError, match="2106"):
            writer.write(2**32 * 10**9, b"y")
        writer.write(2**32 * 10**9 - 1, b"z")
    records = build.read_all(open_captures([tmp_path / "a"]))
    assert [(r.ts_ns, r.frame) for r in records] == [(1, b"x"), (2**32 * 10**9 - 1, b"z")]


@pytest.mark.parametrize("values", [{"link": 65_536}, {"link": -1}, {"snap_length": 2**32}])
def test_interfaces_that_cannot_be(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="out of range"):
        Interface(**values)


def test_too_many_interfaces_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("veilwatch.traffic.capture.writer.MAX_U16", 3)
    writer = PcapngWriter(io.BytesIO())
    for link in range(3):
        writer.write(1, b"", interface=Interface(link))
    writer.write(1, b"", interface=Interface(2))
    with pytest.raises(OutputError, match="more than 3 interfaces"):
        writer.write(1, b"", interface=Interface(3))


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
