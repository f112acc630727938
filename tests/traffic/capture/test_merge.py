"""Several captures as one in time order."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from tests.traffic.capture import build
from tests.traffic.capture.test_source import Stdin
from veilwatch.errors import CaptureError
from veilwatch.schema.packets import BLOCK_RECORDS, RECORD_DTYPE, RawBlock
from veilwatch.traffic.capture import merge as merge_module
from veilwatch.traffic.capture import open_captures
from veilwatch.traffic.capture.merge import Waiting, merge


def blocks_of(times: list[list[int]], source: int) -> list[RawBlock]:
    """Blocks with these packet times; each frame is its source and running number."""
    out = []
    number = 0
    for block in times:
        frames = []
        records = np.zeros(len(block), RECORD_DTYPE)
        at = 3
        for i, time in enumerate(block):
            number += 1
            frame = b"%d:%d" % (source, number)
            frames.append(b"hdr" + frame)
            records[i]["ts_ns"], records[i]["number"], records[i]["source"] = time, number, source
            records[i]["offset"], records[i]["captured"] = at, len(frame)
            at += len(frame) + 3
        out.append(RawBlock(np.frombuffer(b"".join(frames), np.uint8).copy(), records))
    return out


def reusing(times: list[list[int]], source: int) -> Iterator[RawBlock]:
    """Hand out blocks as a reader does: the block before becomes rubbish."""
    for block in blocks_of(times, source):
        yield block
        block.buffer[:] = 0
        block.records["ts_ns"] = -1


def clocked(captures: list[list[list[int]]]) -> list[tuple[int, int, bytes]]:
    """Clock, time and frame of every record: the latest time so far of its own capture."""
    out = []
    for source, times in enumerate(captures):
        clock = number = 0
        for block in times:
            for time in block:
                clock, number = max(clock, time), number + 1
                out.append((clock, time, b"%d:%d" % (source, number)))
    return out


TIMES = st.lists(st.lists(st.integers(0, 60), min_size=1, max_size=6), min_size=1, max_size=5)


@examples(500)
@given(st.lists(TIMES, min_size=1, max_size=5), st.booleans())
def test_merged_clocks_never_go_back_and_each_capture_keeps_its_order(
    captures: list[list[list[int]]], in_order: bool
) -> None:
    if in_order:
        for times in captures:
            flat = iter(sorted(time for block in times for time in block))
            times[:] = [[next(flat) for _ in block] for block in times]
    waiting = [
        Waiting(times[0][0], partial(reusing, times, source))
        for source, times in enumerate(captures)
    ]
    got = []
    for block in merge(waiting):
        for record in block.records:
            start, captured = int(record["offset"]), int(record["captured"])
            frame = block.buffer[start : start + captured].tobytes()
            got.append((int(record["ts_ns"]), frame))
    wanted = clocked(captures)
    assert sorted(got) == sorted((time, frame) for _, time, frame in wanted)
    for source in range(len(captures)):  # each capture keeps its order
        prefix = b"%d:" % source
        numbers = [int(frame.split(b":")[1]) for _, frame in got if frame.startswith(prefix)]
        assert numbers == sorted(numbers)
    clocks = {frame: clock for clock, _, frame in wanted}
    order = [clocks[frame] for _, frame in got]
    assert order == sorted(order)


def test_files_of_all_kinds_in_time_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "odd").write_bytes(build.pcap([(i, 0, b"%d" % i) for i in range(1, 6000, 2)]))
    even = build.section() + build.interface(resolution=0)
    even += b"".join(build.enhanced(i, b"%d" % i) for i in range(0, 4000, 2))
    monkeypatch.setattr(sys, "stdin", Stdin(io.BytesIO(even)))
    later = build.pcap([(i, 0, b"%d" % i) for i in range(4000, 9000, 2)], order=">")
    (tmp_path / "later").write_bytes(later)
    (tmp_path / "empty").write_bytes(build.pcap([]))
    stream = open_captures([tmp_path / "later", "-", tmp_path])
    records = build.read_all(stream)
    wanted = sorted([*range(6000), *range(6000, 9000, 2)])
    assert [record.frame for record in records] == [b"%d" % i for i in wanted]
    assert [record.ts_ns for record in records] == [i * 10**9 for i in wanted]
    assert {Path(report.name).name: report.packets for report in stream.report.files} == {
        "odd": 3000,
        "-": 2000,
        "later": 2500,
        "empty": 0,
    }


def test_source_points_to_the_report_of_its_file(tmp_path: Path) -> None:
    for name, start in (("b", 100), ("a", 300), ("c", 200)):
        (tmp_path / name).write_bytes(build.pcap([(start + i, 0, name.encode()) for i in range(9)]))
    with open_captures([tmp_path]) as stream:
        for block in stream:
            frames = [record.frame.decode() for record in build.rows(block)]
            for frame, source in zip(frames, block.records["source"], strict=True):
                assert Path(stream.report.files[source].name).name == frame
    assert [Path(report.name).name for report in stream.report.files] == ["b", "c", "a"]


def test_captures_that_do_not_overlap_are_opened_in_turn_and_not_copied(tmp_path: Path) -> None:
    for i in range(3):
        packets = [(1000 * i + j, 0, b"x") for j in range(10)]
        (tmp_path / f"{i}").write_bytes(build.pcap(packets))
    opened = []
    offsets = []
    with open_captures([tmp_path]) as stream:
        for block in stream:
            opened.append(len(stream.report.files))
            offsets.append(int(block.records["offset"][0]))
    assert opened == [1, 2, 3]
    assert offsets == [40, 40, 40]  # where the bytes lie in the file: nobody moved them


def test_blocks_stay_small_when_many_captures_overlap(tmp_path: Path) -> None:
    for i in range(5):
        packets = [(j, i, b"x") for j in range(BLOCK_RECORDS)]
        (tmp_path / f"{i}").write_bytes(build.pcap(packets))
    records = build.read_all(open_captures([tmp_path]))  # `rows` checks the size of each block
    assert [record.ts_ns for record in records] == sorted(record.ts_ns for record in records)
    assert len(records) == 5 * BLOCK_RECORDS


def test_too_many_captures_at_one_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge_module, "MAX_OVERLAP", 3)
    for i in range(4):
        (tmp_path / f"{i}").write_bytes(build.pcap([(1, 0, b""), (5, 0, b"")]))
    with pytest.raises(CaptureError, match="more than 3 captures overlap in time"):
        build.read_all(open_captures([tmp_path]))
