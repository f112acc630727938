"""A capture as a row of files: none lost, none twice, each whole."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from tests.traffic.capture import build
from veilwatch.errors import OutputError
from veilwatch.traffic.capture import (
    CaptureWriter,
    PcapngWriter,
    PcapWriter,
    RotatingWriter,
    Rotation,
    open_captures,
)
from veilwatch.traffic.capture import rotate as rotate_module
from veilwatch.traffic.capture.clock import MAX_TIME_NS

NS = 10**9
T0 = 1_700_000_000  # 2023-11-14 22:13:20 UTC


def times(path: Path) -> list[int]:
    return [record.ts_ns for record in build.read_all(open_captures([path]))]


def rotating(folder: Path, rotation: Rotation, *, form: str = "pcapng") -> RotatingWriter:
    def start(path: Path) -> CaptureWriter:
        return PcapWriter(path) if form == "pcap" else PcapngWriter(path, comment="part")

    return RotatingWriter(folder / f"n3.{form}", start, rotation)


@pytest.mark.parametrize("form", ["pcap", "pcapng"])
def test_by_size(tmp_path: Path, form: str) -> None:
    with rotating(tmp_path, Rotation(max_bytes=1000), form=form) as writer:
        for k in range(50):
            writer.write(T0 * NS + k, bytes(100))
        writer.write(T0 * NS + 50, bytes(5000))  # longer than a file may be, has one to itself
        writer.write(T0 * NS + 51, b"")
    paths = sorted(tmp_path.iterdir())
    assert [path for path, _ in writer.finished] == paths
    assert paths[0].name == f"n3_00001_20231114T221320Z.{form}"
    sizes = [path.stat().st_size for path in paths]
    assert max(sizes[:-2]) <= 1000 < sizes[-2]
    assert min(sizes[:-3]) > 1000 - 2 * 164
    found = [times(path) for path in paths]
    assert [ts_ns for part in found for ts_ns in part] == [T0 * NS + k for k in range(52)]
    assert [count for _, count in writer.finished] == [len(part) for part in found]


def test_by_time_at_multiples(tmp_path: Path) -> None:
    seconds = [0, 5, 39.9, 40, 40, 99.999999999, 100, 99.5, 101, 400]
    with rotating(tmp_path, Rotation(seconds=60)) as writer:
        for second in seconds:
            writer.write(T0 * NS + round(second * NS), b"frame")
    paths = sorted(tmp_path.iterdir())
    assert [path.name.split("_")[2][9:15] for path in paths] == ["221320", "221400", "221500",
                                                                 "222000"]  # fmt: skip
    # Late packets stay where they came.
    assert [[t / NS - T0 for t in times(path)] for path in paths] == [
        [0, 5, pytest.approx(39.9)], [40, 40, pytest.approx(100)], [100, 99.5, 101], [400],
    ]  # fmt: skip


def test_a_clock_set_back_begins_a_file(tmp_path: Path) -> None:
    with rotating(tmp_path, Rotation(seconds=10)) as writer:
        for second in (T0, T0 - 86_400, MAX_TIME_NS // NS, 0):
            writer.write(second * NS, b"frame")
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "n3_00001_20231114T221320Z.pcapng",
        "n3_00002_20231113T221320Z.pcapng",
        "n3_00003_21160220T235338Z.pcapng",
        "n3_00004_19700101T000000Z.pcapng",
    ]


def test_only_own_files_are_removed(tmp_path: Path) -> None:
    old = tmp_path / "n3_00000_20230101T000000Z.pcapng"
    old.touch()
    with rotating(tmp_path, Rotation(seconds=1, keep=2)) as writer:
        for second in range(5):
            writer.write((T0 + second) * NS, b"frame")
            assert len(list(tmp_path.glob("n3_0000[1-9]*"))) <= 2
            if second == 3:  # somebody else was quicker
                writer.finished[0][0].unlink()
    assert [path.name[:8] for path in sorted(tmp_path.iterdir())] == [
        "n3_00000", "n3_00004", "n3_00005"
    ]  # fmt: skip


def test_the_file_in_progress_is_a_flushed_neighbour(tmp_path: Path) -> None:
    writer = rotating(tmp_path, Rotation(seconds=60))
    assert list(tmp_path.iterdir()) == []
    writer.write(T0 * NS, b"first frame")
    writer.write((T0 + 1) * NS, b"second frame")
    (hidden,) = tmp_path.iterdir()
    assert hidden.name.startswith(".n3_00001") and b"first frame" in hidden.read_bytes()
    writer.suspend()
    writer.write((T0 + 1) * NS, b"third frame")
    writer.flush()
    assert len(times(hidden)) == 3
    writer.close()
    assert [path.name for path in tmp_path.iterdir()] == ["n3_00001_20231114T221320Z.pcapng"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interruption_leaves_whole_files_only(
    tmp_path: Path, error: type[BaseException]
) -> None:
    with pytest.raises(error), rotating(tmp_path, Rotation(seconds=1)) as writer:
        for second in range(3):
            writer.write((T0 + second) * NS, b"frame")
        raise error
    assert [len(times(path)) for path in sorted(tmp_path.iterdir())] == [1, 1]


def test_an_interruption_while_a_file_is_put_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), rotating(tmp_path, Rotation(seconds=1)) as writer:
        writer.write(T0 * NS, b"frame")
        writer.write((T0 + 1) * NS, b"frame")
        monkeypatch.setattr("os.fsync", interrupted)
        writer.write((T0 + 2) * NS, b"frame")
    assert [len(times(path)) for path in sorted(tmp_path.iterdir())] == [1]


def test_statistics_go_into_the_file_in_progress(tmp_path: Path) -> None:
    with rotating(tmp_path, Rotation(seconds=1)) as writer:
        writer.statistics(None, received=1, dropped=0)
        writer.write(T0 * NS, b"frame")
        writer.write((T0 + 1) * NS, b"frame")
        writer.statistics(None, received=5, dropped=3)
    skipped = []
    for path in sorted(tmp_path.iterdir()):
        stream = open_captures([path])
        build.read_all(stream)
        skipped.append(stream.report.files[0].skipped_blocks)
    assert skipped == [0, 1]


def test_a_time_that_jumps_to_and_fro_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotate_module, "MAX_ROTATIONS", 7)
    with (
        pytest.raises(OutputError, match=r"more than 7 files .*\(rotate less often\)"),
        rotating(tmp_path, Rotation(seconds=1)) as writer,
    ):
        for k in range(100):
            writer.write((T0 + 100 * (k % 2)) * NS, b"frame")
    assert len(list(tmp_path.iterdir())) == 7


def test_never_is_no_rotation() -> None:
    assert not Rotation() and not Rotation(keep=3)
    assert Rotation(seconds=1) and Rotation(max_bytes=1)
    with pytest.raises(ValueError, match="negative"):
        Rotation(seconds=-1)


@examples(40)
@given(
    packets=st.lists(
        st.tuples(st.integers(0, 2**62 - 1) | st.integers(0, 30 * NS), st.integers(0, 400)),
        max_size=40,
    ),
    max_bytes=st.integers(0, 1500),
    seconds=st.integers(0, 40),
)
def test_nothing_is_lost_or_twice(
    packets: list[tuple[int, int]], max_bytes: int, seconds: int
) -> None:
    rotation = Rotation(max_bytes=max_bytes, seconds=seconds)
    with tempfile.TemporaryDirectory() as folder:
        with rotating(Path(folder), rotation) as writer:
            for ts_ns, length in packets:
                writer.write(ts_ns, bytes(length))
        found = []
        for path in sorted(Path(folder).iterdir()):
            records = build.read_all(open_captures([path]))
            found += [(record.ts_ns, record.length) for record in records]
            assert not max_bytes or len(records) == 1 or path.stat().st_size <= max_bytes + 32
    assert found == packets


def test_tshark_reads_every_part(tmp_path: Path) -> None:
    if not shutil.which("tshark"):
        pytest.skip("tshark is not installed")
    with rotating(tmp_path, Rotation(seconds=1)) as writer:
        for k in range(9):
            writer.write(T0 * NS + k * NS // 3, bytes(60))
    for path in tmp_path.iterdir():
        done = subprocess.run(["tshark", "-n", "-r", path], capture_output=True, check=True)
        assert len(done.stdout.splitlines()) == 3
