"""Which files were read is remembered across restarts, whatever a crash left of the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from veilwatch.errors import OutputError
from veilwatch.sensor import read_log
from veilwatch.sensor.read_log import ReadLog, Seen

ONE, TWO = Seen("one.pcap", 100, 1), Seen("two\udcff\n.pcap", 200, 2)


def reopened(log: ReadLog, path: Path) -> ReadLog:
    log.close()
    return ReadLog(path)


def test_what_was_read_is_known_after_a_restart(tmp_path: Path) -> None:
    log = ReadLog(tmp_path / "read.jsonl")
    log.add(ONE)
    log.add(TWO)
    after = reopened(log, tmp_path / "read.jsonl")
    assert ONE in after and TWO in after
    assert ONE._replace(size=101) not in after


def test_a_line_that_a_crash_cut_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "read.jsonl"
    log = ReadLog(path)
    log.add(ONE)
    with path.open("a") as lines:
        lines.write('[]\n{"name": "half')
    after = reopened(log, path)
    assert ONE in after
    after.add(TWO)
    assert TWO in reopened(after, path)


def test_growth_is_told_from_another_file_of_the_name(tmp_path: Path) -> None:
    log = ReadLog(tmp_path / "read.jsonl")
    log.add(ONE)
    assert log.has_grown(ONE._replace(size=101))
    assert not log.has_grown(ONE._replace(size=99))
    assert not log.has_grown(ONE._replace(size=101, inode=9))
    assert not log.has_grown(TWO)


def test_tries_are_counted_across_restarts_until_the_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "read.jsonl"
    log = ReadLog(path)
    log.begin(ONE)
    after = reopened(log, path)
    after.begin(ONE)
    assert after.tries(ONE) == 2
    after.interrupted(ONE)
    assert reopened(after, path).tries(ONE) == 1
    after = ReadLog(path)
    after.add(ONE)
    assert reopened(after, path).tries(ONE) == 0


def test_both_lists_are_bounded_and_forget_the_oldest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_log, "MAX_READ", 3)
    monkeypatch.setattr(read_log, "MAX_BEGUN", 2)
    path = tmp_path / "read.jsonl"
    log = ReadLog(path)
    files = [Seen(f"{number}.pcap", 1, number) for number in range(5)]
    for seen in files:
        log.begin(seen)
    assert [log.tries(seen) for seen in files] == [0, 0, 0, 1, 1]
    for seen in files:
        log.add(seen)
    after = reopened(log, path)
    assert [seen in after for seen in files] == [False, False, True, True, True]
    assert len(path.read_text().splitlines()) == 3


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "read.jsonl").mkdir()
    with pytest.raises(OutputError, match="cannot remember what was read"):
        ReadLog(tmp_path / "read.jsonl")
