"""The archive: whole files by hour, the oldest go first, a full disk stops nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.detection.alerting.samples import SECOND, START_NS
from tests.examples import examples
from veilwatch.errors import VeilwatchError
from veilwatch.store import ArchiveLimits, FlowArchive

HOUR_NS = 3600 * SECOND
NO_LIMIT = ArchiveLimits(days=None, max_bytes=None, keep_free=0)


def frame(rows: int, *, seed: int = 0) -> pl.DataFrame:
    """Return rows that do not compress."""
    draw = np.random.default_rng(seed)
    return pl.DataFrame({"flow_id": draw.integers(0, 2**53, rows)})


def held(folder: Path) -> int:
    return sum(pl.read_parquet(path).height for path in folder.glob("*.parquet"))


def test_a_file_for_each_hour(tmp_path: Path) -> None:
    with FlowArchive(tmp_path, NO_LIMIT) as archive:
        for hour in (0, 0, 1, 1, 3):
            archive.write(frame(10), START_NS + hour * HOUR_NS)
        archive.write(frame(0), START_NS + 9 * HOUR_NS)
        assert len(archive.files()) == 2
    assert [path.name for path in archive.files()] == [
        "flows-20260601T08Z-0001.parquet",
        "flows-20260601T09Z-0001.parquet",
        "flows-20260601T11Z-0001.parquet",
    ]
    assert held(tmp_path) == archive.counts.flows_written == 50
    assert archive.counts.files_written == 3


def test_an_hour_that_is_over_is_closed_without_another_flow(tmp_path: Path) -> None:
    archive = FlowArchive(tmp_path, NO_LIMIT)
    archive.write(frame(10), START_NS)
    archive.tick(START_NS + 60 * SECOND)
    assert archive.files() == []
    archive.tick(START_NS + HOUR_NS)
    assert held(tmp_path) == 10


def test_a_large_file_is_closed_and_the_hour_goes_on(tmp_path: Path) -> None:
    limits = ArchiveLimits(days=None, max_bytes=None, keep_free=0, file_bytes=1000)
    with FlowArchive(tmp_path, limits) as archive:
        for n in range(3):
            archive.write(frame(40_000, seed=n), START_NS)
    assert [path.name[-12:-8] for path in archive.files()] == ["0001", "0002", "0003"]
    with FlowArchive(tmp_path, limits) as archive:
        archive.write(frame(1), START_NS)
    assert archive.files()[-1].name.endswith("0004.parquet")
    assert held(tmp_path) == 120_001


def test_other_columns_begin_another_file(tmp_path: Path) -> None:
    with FlowArchive(tmp_path, NO_LIMIT) as archive:
        archive.write(frame(1), START_NS)
        archive.write(frame(1).with_columns(x=1), START_NS)
    assert [pl.read_parquet(path).width for path in archive.files()] == [1, 2]


def test_age_and_size_remove_the_oldest(tmp_path: Path) -> None:
    archive = FlowArchive(tmp_path, ArchiveLimits(days=1, max_bytes=None, keep_free=0))
    for hour in range(30):
        archive.write(frame(100, seed=hour), START_NS + hour * HOUR_NS)
    archive.tick(START_NS + 30 * HOUR_NS)
    assert len(archive.files()) == 24 and archive.counts.files_expired == 6
    size = archive.bytes_used()
    small = FlowArchive(tmp_path, ArchiveLimits(days=None, max_bytes=size // 2, keep_free=0))
    small.tick(START_NS + 30 * HOUR_NS)
    assert size * 0.4 < small.bytes_used() <= size // 2
    assert small.files() == archive.files()[-len(small.files()) :]


YEARS_NS = 365 * 24 * HOUR_NS


@pytest.mark.parametrize("named", [-9 * YEARS_NS, 74 * YEARS_NS])
def test_a_file_that_is_named_after_its_packets_ages_by_when_it_was_recorded(
    named: int, tmp_path: Path
) -> None:
    with FlowArchive(tmp_path, NO_LIMIT) as older_release:
        older_release.write(frame(10), START_NS + named)
    (path,) = older_release.files()
    os.utime(path, ns=(START_NS, START_NS))
    archive = FlowArchive(tmp_path, ArchiveLimits(days=1, max_bytes=None, keep_free=0))
    archive.write(frame(10), START_NS)
    archive.tick(START_NS + 24 * HOUR_NS)
    assert path in archive.files() and archive.counts.files_expired == 0
    archive.tick(START_NS + 25 * HOUR_NS)
    assert path not in archive.files()


def test_a_younger_file_before_an_older_one_does_not_keep_it(tmp_path: Path) -> None:
    with FlowArchive(tmp_path, NO_LIMIT) as archive:
        for hour in (-1000, 0):
            archive.write(frame(10), START_NS + hour * HOUR_NS)
    late = START_NS + 30 * HOUR_NS
    first, second = archive.files()
    os.utime(first, ns=(late, late))
    os.utime(second, ns=(START_NS, START_NS))
    FlowArchive(tmp_path, ArchiveLimits(days=1, max_bytes=None, keep_free=0)).tick(late)
    assert archive.files() == [first]


def test_a_clock_that_was_ahead_keeps_no_file(tmp_path: Path) -> None:
    with FlowArchive(tmp_path, NO_LIMIT) as archive:
        archive.write(frame(10), START_NS)
    (path,) = archive.files()
    ahead = START_NS + 74 * YEARS_NS
    os.utime(path, ns=(ahead, ahead))
    FlowArchive(tmp_path, ArchiveLimits(days=1, max_bytes=None, keep_free=0)).tick(
        START_NS + 26 * HOUR_NS
    )
    assert archive.files() == []


@examples(30)
@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 50)), max_size=25),
    st.integers(0, 4000),
)
def test_every_flow_is_accounted_for(
    tmp_path_factory: pytest.TempPathFactory, batches: list[tuple[int, int]], free: int
) -> None:
    """Whatever comes in which hour and however little space there is."""
    folder = tmp_path_factory.mktemp("archive")

    def space(_: Path) -> int:
        return free - sum(path.stat().st_size for path in folder.glob("*.parquet"))

    limits = ArchiveLimits(days=None, max_bytes=None, keep_free=1500)
    with FlowArchive(folder, limits, free_bytes=space) as archive:
        for hour, rows in batches:
            archive.write(frame(rows), START_NS + hour * HOUR_NS)
    counts = archive.counts
    assert counts.flows_written + counts.flows_lost == sum(rows for _, rows in batches)
    assert len(archive.files()) == counts.files_written - counts.files_dropped
    assert not list(folder.glob(".*"))


def test_a_nearly_full_disk_costs_the_oldest_files(tmp_path: Path) -> None:
    free = [10_000]
    limits = ArchiveLimits(days=None, max_bytes=None, keep_free=1000)
    archive = FlowArchive(tmp_path, limits, free_bytes=lambda _: free[0])
    for hour in range(5):
        archive.write(frame(10), START_NS + hour * HOUR_NS)
    free[0] = 0
    archive.tick(START_NS + 4 * HOUR_NS)
    assert (archive.files(), archive.counts.files_dropped) == ([], 4)
    assert archive.counts.last_fault == "the disk is nearly full"
    free[0] = 10_000
    archive.close()
    assert held(tmp_path) == 10


def test_a_full_disk_never_raises_and_is_counted(small_disk: Callable[[int], Path]) -> None:
    disk = small_disk(2048)
    folder = disk / "flows"
    limits = ArchiveLimits(days=None, max_bytes=None, keep_free=0)
    archive = FlowArchive(folder, limits)
    for hour in range(6):  # each 270 KB
        archive.write(frame(33_000, seed=hour), START_NS + hour * HOUR_NS)
    archive.tick(START_NS + 6 * HOUR_NS)
    assert archive.counts.flows_written == 6 * 33_000
    filler = disk / "filler"
    try:
        with filler.open("wb", buffering=0) as stream:
            while True:
                stream.write(b"x" * 4096)
    except OSError:
        pass
    # Another 270 KB takes the room of two of the oldest files, then of all, then there is none.
    for hour in range(6, 12):
        archive.write(frame(33_000, seed=hour), START_NS + hour * HOUR_NS)
    archive.tick(START_NS + 12 * HOUR_NS)
    counts = archive.counts
    assert counts.files_dropped > 0 and counts.bytes_dropped > 0 and counts.last_fault
    assert counts.flows_written + counts.flows_lost == 12 * 33_000
    assert held(folder) % 33_000 == 0
    filler.unlink()
    before = counts.flows_written
    archive.write(frame(33_000, seed=99), START_NS + 20 * HOUR_NS)
    archive.close()
    assert counts.flows_written == before + 33_000
    assert not list(folder.glob(".*"))


def test_a_single_batch_that_fits_nowhere_is_lost_and_counted(
    small_disk: Callable[[int], Path],
) -> None:
    folder = small_disk(128) / "flows"
    archive = FlowArchive(folder, NO_LIMIT)
    archive.write(frame(33_000), START_NS)
    assert archive.counts.flows_lost == 33_000
    archive.write(frame(10), START_NS)
    archive.close()
    assert (archive.counts.flows_written, held(folder)) == (10, 10)


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    names = ["notes.txt", "flows-20261399T99Z-0001.parquet", "flows-x.parquet"]
    for name in names:
        (tmp_path / name).write_text("mine")
    limits = ArchiveLimits(days=1, max_bytes=1, keep_free=2**60)
    with FlowArchive(tmp_path, limits) as archive:
        archive.tick(START_NS)
        assert archive.files() == []
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


def test_a_folder_that_goes_away_comes_back(tmp_path: Path) -> None:
    folder = tmp_path / "flows"
    archive = FlowArchive(folder, NO_LIMIT)
    folder.rmdir()
    archive.tick(START_NS)
    archive.write(frame(5), START_NS)
    archive.close()
    assert held(folder) == 5


def test_limits_are_checked(tmp_path: Path) -> None:
    with pytest.raises(VeilwatchError):
        FlowArchive(tmp_path, ArchiveLimits(file_bytes=0))


KILLED = """
import sys
from pathlib import Path
from tests.store.test_archive import frame
from veilwatch.store import ArchiveLimits, FlowArchive
archive = FlowArchive(Path(sys.argv[1]), ArchiveLimits(days=None, max_bytes=None, file_bytes=1000))
for n in range(10**6):
    archive.write(frame(33_000, seed=n), 0)
    print(n, flush=True)
"""


def test_killed_in_the_middle_leaves_whole_files(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for _ in range(3):
        process.stdout.readline()
    time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert held(tmp_path) >= 3 * 33_000  # each one can be read
    (tmp_path / ".flows-19700101T00Z-0009.parquet.abc").write_bytes(b"half")
    archive = FlowArchive(tmp_path, NO_LIMIT)
    assert not list(tmp_path.glob(".flows*"))
    archive.write(frame(1), 0)
    archive.close()
    assert held(tmp_path) % 33_000 == 1
