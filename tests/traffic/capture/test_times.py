"""Times that run back, cannot be right, or overlap within one file: read in order, and said."""

from __future__ import annotations

import io
import random
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from tests.traffic.capture import build
from tests.traffic.capture.reference import Record
from tests.traffic.capture.test_source import Stdin
from veilwatch.schema.captures import FileReport
from veilwatch.traffic.capture import open_captures, sections
from veilwatch.traffic.capture.sections import MAX_PARTS

NS = 10**9
YEAR = 365 * 86_400
MERGED = "section that begins before the one in front of it ends: put in order"
AS_IT_COMES = (
    "section that begins before the one in front of it ends: only plain files are put in order"
)


def read(path: Path, data: bytes) -> tuple[list[Record], FileReport]:
    path.write_bytes(data)
    stream = open_captures([path])
    return build.read_all(stream), stream.report.files[0]


def pcap(seconds: list[int]) -> bytes:
    return build.pcap([(second, 0, b"%d" % i) for i, second in enumerate(seconds)])


def section(seconds: list[float], mark: bytes = b"x", order: str = "<") -> bytes:
    packets = [
        build.enhanced(round(s * 10**6), mark + b"%d" % i, order) for i, s in enumerate(seconds)
    ]
    return build.section(order) + build.interface(order) + b"".join(packets)


def test_time_that_runs_back_is_counted(tmp_path: Path) -> None:
    _, report = read(tmp_path / "a", pcap([100, 101, 99, 102, 103, 98, 98, 104]))
    assert (report.time_back, report.time_back_most_ns, report.time_back_first) == (2, 5 * NS, 3)
    assert report.bad_stamps == 0
    assert report.notes == ["time ran back 2 times, by 5.000000 s at most, first at packet 3"]


@pytest.mark.parametrize("bad", [0, 4_102_444_800])
@pytest.mark.parametrize("where", [0, 1, 2, 7, 19, 20])
def test_a_bad_stamp_is_named_and_no_time_of_the_file(tmp_path: Path, where: int, bad: int) -> None:
    good = [1_700_000_000 + k for k in range(20)]
    _, report = read(tmp_path / "a", pcap([*good[:where], bad, *good[where:]]))
    assert (report.bad_stamps, report.bad_stamp_first, report.bad_stamp_ns) == (
        1,
        where + 1,
        bad * NS,
    )
    assert (report.first_ns, report.last_ns) == (good[0] * NS, good[-1] * NS)
    assert report.time_back == 0
    (note,) = report.notes
    assert (
        f"number {where + 1} of {'1970-01-01' if bad == 0 else '2100-01-01'} 00:00:00 UTC" in note
    )


@pytest.mark.parametrize("jump", [YEAR, -YEAR, -3600])
def test_a_clock_that_was_set_has_no_bad_stamps(tmp_path: Path, jump: int) -> None:
    first = [1_700_000_000 + k for k in range(10)]
    _, report = read(tmp_path / "a", pcap([*first, *(second + jump for second in first)]))
    assert report.bad_stamps == 0
    assert report.time_back == (jump < 0)
    assert report.last_ns is not None and report.first_ns is not None
    assert report.last_ns - report.first_ns == (abs(jump) + 9) * NS


def test_strays_at_the_edges_of_blocks(tmp_path: Path) -> None:
    seconds = [1_700_000_000 + k // 100 for k in range(5000)]
    for at in (1022, 1023, 1024, 1025, 2047, 2048, 4999):
        seconds[at] = 0
    records, report = read(tmp_path / "a", pcap(seconds))
    assert len(records) == 5000
    assert (report.bad_stamps, report.bad_stamp_first, report.time_back) == (7, 1023, 0)


@pytest.mark.parametrize("bad", [0, 4_102_444_800])
@pytest.mark.parametrize("where", [0, 1, 500, 998])
def test_a_bad_stamp_in_one_file_moves_no_other_packet(
    tmp_path: Path, where: int, bad: int
) -> None:
    one = [1_700_000_000 + 2 * k for k in range(1000)]
    one[where] = bad
    (tmp_path / "a").write_bytes(pcap(one))
    (tmp_path / "b").write_bytes(pcap([1_700_000_001 + 2 * k for k in range(1000)]))
    records = build.read_all(open_captures([tmp_path / "a", tmp_path / "b"]))
    times = [record.ts_ns for record in records if record.ts_ns != bad * NS]
    assert len(times) == 1999
    assert times == sorted(times)


def test_sections_that_overlap_are_read_in_time_order(tmp_path: Path) -> None:
    data = section([100, 102, 104], b"a") + section([101, 103, 105], b"b", ">")
    records, report = read(tmp_path / "a", data)
    assert [record.frame for record in records] == [b"a0", b"b0", b"a1", b"b1", b"a2", b"b2"]
    assert sorted(record.number for record in records) == [1, 2, 3, 4, 5, 6]
    assert [record.number for record in records if record.frame[:1] == b"b"] == [4, 5, 6]
    assert (report.packets, report.time_back, report.fault) == (6, 0, "")
    assert (report.odd, report.bytes) == ({MERGED: 1}, len(data))
    assert (report.first_ns, report.last_ns) == (100 * NS, 105 * NS)


def test_sections_in_turn_are_one_part_however_many(tmp_path: Path) -> None:
    data = b"".join(section([10 * k, 10 * k + 5]) for k in range(200))
    records, report = read(tmp_path / "a", data)
    assert [record.ts_ns for record in records] == [5 * k * NS for k in range(400)]
    assert report.odd == {}


def test_runs_of_sections(tmp_path: Path) -> None:
    """Two recorders' rotated files, one after the other, with empty sections among them."""
    run = b"".join(section([10 * k, 10 * k + 5]) + build.section() for k in range(20))
    records, report = read(tmp_path / "a", run + run)
    assert [record.ts_ns for record in records] == sorted(
        5 * k * NS for k in range(40) for _ in "ab"
    )
    assert report.odd == {MERGED: 1}
    assert sorted(record.number for record in records) == list(range(1, 81))


def test_a_cut_in_the_last_section_loses_no_other_packet(tmp_path: Path) -> None:
    data = section([100, 102, 104], b"a") + section([101, 103, 105], b"b")
    records, report = read(tmp_path / "a", data[:-5])
    assert [record.frame for record in records] == [b"a0", b"b0", b"a1", b"b1", b"a2"]
    assert report.fault.startswith("cut short")


def test_a_pipe_and_a_compressed_file_are_read_as_they_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = section([100, 102, 104], b"a") + section([101, 103, 105], b"b")
    monkeypatch.setattr(sys, "stdin", Stdin(io.BytesIO(data)))
    stream = open_captures(["-"])
    assert [record.frame[:1] for record in build.read_all(stream)] == [b"a"] * 3 + [b"b"] * 3
    assert stream.report.files[0].odd == {AS_IT_COMES: 1}
    assert stream.report.files[0].time_back == 1


def test_more_parts_than_are_read_side_by_side(tmp_path: Path) -> None:
    data = b"".join(section([1000 - k]) for k in range(MAX_PARTS + 1))
    records, report = read(tmp_path / "a", data)
    assert len(records) == MAX_PARTS + 1
    assert report.odd == {AS_IT_COMES: MAX_PARTS}


def test_packets_that_hold_a_section_header_are_no_sections(tmp_path: Path) -> None:
    inside = build.section() + build.interface()
    data = build.section() + build.interface()
    data += build.enhanced(10**6, inside) + build.enhanced(5 * 10**5, inside)
    records, report = read(tmp_path / "a", data)
    assert [record.frame for record in records] == [inside, inside]
    assert (report.odd, report.time_back) == ({}, 1)


@pytest.mark.parametrize("chunk", [13, 64, 100])
def test_the_search_misses_no_header_at_the_edge_of_a_chunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(sections, "_CHUNK", chunk)
    for pad in range(0, 120, 4):
        first = section([100, 102]) + build.block("<", 5, bytes(pad))
        records, _ = read(tmp_path / "a", first + section([101, 103]))
        assert [record.ts_ns // NS for record in records] == [100, 101, 102, 103]


@examples(60)
@given(
    st.lists(st.lists(st.integers(0, 50), max_size=6), min_size=1, max_size=5), st.integers(0, 9)
)
def test_any_sections_in_order_within_come_out_in_order(
    tmp_path_factory: pytest.TempPathFactory, times: list[list[int]], seed: int
) -> None:
    order = random.Random(seed).choice("<>")
    data = b"".join(
        section(sorted(map(float, part)), b"%d:" % i, order) for i, part in enumerate(times)
    )
    records, report = read(tmp_path_factory.mktemp("a") / "a", data)
    assert [record.ts_ns // NS for record in records] == sorted(s for part in times for s in part)
    assert sorted(record.number for record in records) == list(range(1, len(records) + 1))
    assert report.packets == len(records)
