"""Flows of one person are taken out of the archive: file by file, and nobody else's."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest
from polars.testing import assert_frame_equal

from tests.conftest import ROOT
from tests.detection.alerting.samples import SECOND, START_NS
from tests.report import factory
from veilwatch.detection.alerting.person import Person
from veilwatch.errors import OutputError, VeilwatchError
from veilwatch.export.flow_writer import ROW_GROUP
from veilwatch.store import ArchiveLimits, FlowArchive, ForgottenFlows, forget_flows

HOUR_NS = 3600 * SECOND
NO_LIMIT = ArchiveLimits(days=None, max_bytes=None, keep_free=0)
HOST = "10.45.0.7"
SUBSCRIBER = "s-" + "a" * 16


def frame(*rows: dict[str, Any]) -> pl.DataFrame:
    """Return flows with some of every kind of column that a flow table has."""
    usual = {
        "src_ip": "10.45.0.70",
        "dst_ip": "203.0.113.9",
        "outer_src_ip": "",
        "outer_dst_ip": "",
        "subscriber": "",
        "gap": float("nan"),
        "known": None,
        "alpn": ["h2"],
        "seq": [1, -2],
    }
    schema: dict[str, pl.DataType | type[pl.DataType]] = {
        **dict.fromkeys(list(usual)[:5], pl.String),
        "gap": pl.Float32,
        "known": pl.Boolean,
        "alpn": pl.List(pl.String),
        "seq": pl.Array(pl.Int16, 2),
        "number": pl.Int64,
    }
    return pl.DataFrame([{**usual, "number": n, **row} for n, row in enumerate(rows)], schema)


def written(folder: Path, *frames: pl.DataFrame) -> list[Path]:
    """Write an archive with a file for each frame, and return the files."""
    with FlowArchive(folder, NO_LIMIT) as archive:
        for hour, flows in enumerate(frames):
            archive.write(flows, START_NS + hour * HOUR_NS)
    return archive.files()


def state(folder: Path) -> dict[str, tuple[bytes, int, int]]:
    return {
        path.name: (path.read_bytes(), path.stat().st_ino, path.stat().st_mtime_ns)
        for path in folder.iterdir()
    }


def test_flows_at_either_end_go_and_other_rows_and_files_stay(tmp_path: Path) -> None:
    mixed = frame(
        {},
        {"src_ip": HOST},
        {"dst_ip": HOST},
        {"outer_src_ip": HOST},
        {"outer_dst_ip": HOST},
        {"src_ip": "110.45.0.7", "dst_ip": "10.45.0.77"},
        {"subscriber": HOST},
        {"src_ip": None, "dst_ip": None, "outer_src_ip": None, "outer_dst_ip": None},
    )
    first, second, third = written(
        tmp_path, mixed, frame({}, {"dst_ip": "10.45.0.1"}), frame({"src_ip": HOST})
    )
    before, schema = state(tmp_path), pq.read_schema(first)
    expected = ForgottenFlows(flows=5, files=2)
    assert forget_flows(tmp_path, Person(host=HOST), dry_run=True) == expected
    assert state(tmp_path) == before
    assert forget_flows(tmp_path, Person(host=HOST)) == expected
    kept = [0, 5, 6, 7]
    assert_frame_equal(pl.read_parquet(first), mixed[kept])
    assert pq.read_schema(first).equals(schema, check_metadata=True)
    assert first.stat().st_mode == second.stat().st_mode
    assert state(tmp_path)[second.name] == before[second.name]
    assert not third.exists()
    assert not list(tmp_path.glob(".*"))
    assert forget_flows(tmp_path, Person(host=HOST)) == ForgottenFlows()


def test_a_flow_table_as_the_sensor_writes_it(tmp_path: Path) -> None:
    flows = factory.scene(infected_hosts=2, benign_hosts=2, flows_per_host=30).scores.flows
    host = flows["src_ip"][0]
    (path,) = written(tmp_path, flows)
    schema = pq.read_schema(path)
    flows = pl.read_parquet(path)
    rest = flows.filter((pl.col("src_ip") != host) & (pl.col("dst_ip") != host))
    assert 0 < rest.height < flows.height
    assert forget_flows(tmp_path, Person(host=host)).flows == flows.height - rest.height
    assert_frame_equal(pl.read_parquet(path), rest)
    assert pq.read_schema(path).equals(schema, check_metadata=True)


def test_flows_of_a_subscriber(tmp_path: Path) -> None:
    other = "s-" + "b" * 16
    flows = frame(
        {"subscriber": SUBSCRIBER}, {"subscriber": other}, {}, {"subscriber": None},
        {"src_ip": SUBSCRIBER},
    )  # fmt: skip
    (path,) = written(tmp_path, flows)
    assert forget_flows(tmp_path, Person(subscriber=SUBSCRIBER)).flows == 1
    assert_frame_equal(pl.read_parquet(path), flows[1:])


def test_an_ipv6_address_in_another_spelling(tmp_path: Path) -> None:
    (path,) = written(tmp_path, frame({"src_ip": "fd00::7"}, {"src_ip": "fd00::70"}))
    assert forget_flows(tmp_path, Person(host="FD00:0::0007")).flows == 1
    assert pl.read_parquet(path)["src_ip"].to_list() == ["fd00::70"]


def test_several_row_groups(tmp_path: Path) -> None:
    rows = ROW_GROUP + 1000
    flows = frame({}, {"src_ip": HOST})[[0, 1] * (rows // 2)].with_columns(
        number=pl.int_range(pl.len())
    )
    (path,) = written(tmp_path, flows)
    assert pq.ParquetFile(path).num_row_groups > 1
    assert forget_flows(tmp_path, Person(host=HOST)).flows == rows // 2
    assert_frame_equal(pl.read_parquet(path), flows.filter(pl.col("src_ip") != HOST))


def test_files_of_other_columns_and_of_none(tmp_path: Path) -> None:
    flows = frame({"src_ip": HOST}, {}).drop("outer_src_ip", "outer_dst_ip")
    old, other = written(tmp_path, flows, pl.DataFrame({"flow_id": [1]}))
    pq.write_table(pl.DataFrame().to_arrow(), tmp_path / "flows-20260601T23Z-0001.parquet")
    assert forget_flows(tmp_path, Person(host=HOST)) == ForgottenFlows(flows=1, files=1)
    assert_frame_equal(pl.read_parquet(old), flows[1:])
    assert pl.read_parquet(other)["flow_id"].to_list() == [1]


def test_unfinished_files_go_and_files_of_others_stay(tmp_path: Path) -> None:
    written(tmp_path, frame({}))
    (tmp_path / ".flows-20260601T08Z-0009.parquet.abc").write_bytes(b"half " + HOST.encode())
    for name in ("notes.txt", "flows-x.parquet", "flows-20261399T99Z-0001.parquet"):
        (tmp_path / name).write_text(HOST)
    expected = ForgottenFlows(unfinished=1)
    assert forget_flows(tmp_path, Person(host=HOST), dry_run=True) == expected
    assert forget_flows(tmp_path, Person(host=HOST)) == expected
    assert not list(tmp_path.glob(".*")) and len(list(tmp_path.iterdir())) == 4


def test_a_folder_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    assert forget_flows(tmp_path / "none", Person(host=HOST)) == ForgottenFlows()
    assert not (tmp_path / "none").exists()


def test_a_file_that_cannot_be_read_is_named_and_left(tmp_path: Path) -> None:
    first, second, third = written(tmp_path, *[frame({"src_ip": HOST}, {})] * 3)
    second.write_bytes(b"PAR1 no PAR1")
    with pytest.raises(VeilwatchError, match=f"{second.name}.*cannot be read.*run this again"):
        forget_flows(tmp_path, Person(host=HOST))
    assert second.read_bytes() == b"PAR1 no PAR1"
    second.unlink()
    assert forget_flows(tmp_path, Person(host=HOST)) == ForgottenFlows(flows=1, files=1)
    assert pl.read_parquet(first).height == pl.read_parquet(third).height == 1


def test_a_damaged_column_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    """Addresses can be read, the rest cannot: nothing of it may be lost in silence."""
    (path,) = written(tmp_path, frame({"src_ip": HOST}, {}))
    columns = pq.ParquetFile(path).metadata.row_group(0)
    last = columns.column(columns.num_columns - 1)
    assert last.path_in_schema == "number"
    data = bytearray(path.read_bytes())
    start, size = last.dictionary_page_offset, last.total_compressed_size
    data[start : start + size] = b"\xff" * size
    path.write_bytes(data)
    with pytest.raises(VeilwatchError, match="cannot be read"):
        forget_flows(tmp_path, Person(host=HOST))
    assert path.read_bytes() == data and not list(tmp_path.glob(".*"))


def test_a_file_that_cannot_be_written_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = written(tmp_path, frame({"src_ip": HOST}, {}))
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        forget_flows(tmp_path, Person(host=HOST))
    assert path.read_bytes() == before and not list(tmp_path.glob(".*"))


def test_the_archive_goes_on_afterwards(tmp_path: Path) -> None:
    written(tmp_path, frame({"src_ip": HOST}), frame({}, {"src_ip": HOST}))
    forget_flows(tmp_path, Person(host=HOST))
    with FlowArchive(tmp_path, ArchiveLimits(days=1, max_bytes=None, keep_free=0)) as archive:
        archive.write(frame({}), START_NS)
        archive.write(frame({}), START_NS + HOUR_NS)
        archive.close()
        assert [path.name for path in archive.files()] == [
            "flows-20260601T08Z-0001.parquet",
            "flows-20260601T09Z-0001.parquet",
            "flows-20260601T09Z-0002.parquet",
        ]
        archive.tick(START_NS + 60 * HOUR_NS)
        assert archive.files() == [] and archive.counts.files_expired == 3


KILLED = """
import sys
from pathlib import Path
from veilwatch.detection.alerting.person import Person
from veilwatch.store import forget_flows
print("ready", flush=True)
forget_flows(Path(sys.argv[1]), Person(host=sys.argv[2]))
"""


@pytest.mark.parametrize("pause_s", [0.0, 0.05, 0.15])
def test_killed_in_the_middle_leaves_the_old_file_or_the_new_one(
    tmp_path: Path, pause_s: float
) -> None:
    flows = frame({"src_ip": HOST}, {})[[0, 1] * 2000]
    files = written(tmp_path, *[flows] * 30)
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path), HOST],
        stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(pause_s)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert {pl.read_parquet(path).height for path in files} <= {2000, 4000}
    forget_flows(tmp_path, Person(host=HOST))
    assert {pl.read_parquet(path).height for path in files} == {2000}
    assert not list(tmp_path.glob(".*"))
