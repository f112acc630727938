"""What of a configuration that is read anew takes effect, and what is named as waiting."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sensor.stubs import make_config, write_config
from veilwatch.errors import VeilwatchError
from veilwatch.sensor.reload import RELOADED, reread


def test_a_configuration_without_a_file_stays(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    assert reread(config, None, ()) == (config, [])


def test_nothing_changed_is_nothing_to_wait_for(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    assert reread(config, tmp_path / "sensor.toml", ()) == (config, [])


def test_some_sections_change_and_others_wait(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    path = write_config(
        tmp_path,
        "[alerts]\ndedup_s = 7\n[windows]\nevery_s = 33\n[flow]\nmax_flows = 4096\n"
        "[store]\nretention_days = 3\n",
    )
    found, later = reread(config, path, ())
    assert (found.alerts.dedup_s, found.windows.every_s) == (7, 33)
    assert sorted(later) == ["flow.max_flows", "store.retention_days"]
    assert found.flow == config.flow and found.store == config.store
    assert {"alerts", "windows"} <= set(RELOADED)


def test_what_the_command_line_says_still_counts(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    path = write_config(tmp_path, "[alerts]\ndedup_s = 7\n")
    found, later = reread(config, path, ("alerts.dedup_s=9",))
    assert found.alerts.dedup_s == 9 and later == []


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    with pytest.raises(VeilwatchError):
        reread(config, tmp_path / "nowhere.toml", ())
