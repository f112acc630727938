"""The archive is given up while memory is short, and what is lost then is counted."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest

from tests.report.factory import flow_frame
from tests.sensor.stubs import stand_in
from veilwatch.sensor.archiving import Archiving
from veilwatch.sensor.memory_monitor import Level
from veilwatch.store import ArchiveLimits, FlowArchive

NOW_NS = 1_780_303_200 * 10**9


class Rig:
    """An archive whose memory is as the test says."""

    def __init__(self, folder: Path | None) -> None:
        self.notes: list[str] = []
        self.level = Level.WELL
        self.archive = FlowArchive(folder, ArchiveLimits(keep_free=0)) if folder else None
        monitor = SimpleNamespace(level=lambda: self.level)
        self.archiving = Archiving(self.archive, stand_in(monitor), self.notes.append)

    def look(self, level: Level) -> None:
        self.level = level
        self.archiving.look_at_memory()


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path / "flows")


def archived(folder: Path) -> int:
    return sum(pl.read_parquet(path).height for path in folder.glob("flows-*.parquet"))


def test_flows_are_archived_while_there_is_memory(rig: Rig, tmp_path: Path) -> None:
    rig.archiving.write(flow_frame(3), NOW_NS)
    rig.look(Level.TIGHT)
    assert archived(tmp_path / "flows") == 3  # what is in memory is let go of at once
    rig.archiving.write(flow_frame(4), NOW_NS)
    rig.look(Level.SHORT)
    rig.archiving.write(flow_frame(5), NOW_NS)
    assert rig.archiving.status() == {"archive_lost": 9, "archive_dropped": 0, "memory": 2}
    rig.look(Level.WELL)
    rig.archiving.write(flow_frame(2), NOW_NS)
    rig.archiving.close()
    assert archived(tmp_path / "flows") == 5


def test_people_are_told_once_each_way(rig: Rig) -> None:
    for level in (Level.WELL, Level.TIGHT, Level.SHORT, Level.TIGHT, Level.WELL, Level.WELL):
        rig.look(level)
    assert [note.partition(":")[0] for note in rig.notes] == [
        "memory is short",
        "there is memory again",
    ]


def test_a_sensor_without_an_archive_loses_nothing() -> None:
    rig = Rig(None)
    rig.look(Level.SHORT)
    rig.archiving.write(flow_frame(3), NOW_NS)
    rig.archiving.tick(NOW_NS)
    rig.archiving.close()
    assert rig.archiving.status() == {"archive_lost": 0, "archive_dropped": 0, "memory": 2}


def test_the_hour_of_a_file_ends_without_flows(rig: Rig, tmp_path: Path) -> None:
    rig.archiving.write(flow_frame(3), NOW_NS)
    rig.archiving.tick(NOW_NS + 3600 * 10**9)
    assert archived(tmp_path / "flows") == 3
