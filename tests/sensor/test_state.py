"""The state folder: closed to others, and one sensor's alone."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from veilwatch.errors import VeilwatchError
from veilwatch.sensor.state import hold_place, hold_state, private_folder


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_folder_is_ours_alone(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "state"
    assert not private_folder(folder)
    assert mode(folder) == 0o700


@pytest.mark.parametrize(
    ("before", "after"),
    [(0o755, 0o750), (0o777, 0o750), (0o750, 0o750), (0o700, 0o700), (0o701, 0o700)],
)
def test_others_lose_their_rights_and_a_group_may_only_read(
    tmp_path: Path, before: int, after: int
) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    folder.chmod(before)
    assert private_folder(folder) is (before != after)
    assert mode(folder) == after


def test_a_file_in_its_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(VeilwatchError, match="state"):
        private_folder(tmp_path / "state")


HOLDER = """
import sys, time
from pathlib import Path
from veilwatch.sensor.state import hold_state
with hold_state(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_sensor_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDER, folder], stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    try:
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(VeilwatchError, match=f"another sensor.*process {other.pid}"),
            hold_state(folder),
        ):
            pass
    finally:
        other.kill()
        other.wait()
        other.stdout.close()
    with hold_state(folder):  # the kernel gave the lock back
        assert (folder / "lock").read_text() == f"{os.getpid()}\n"
    assert mode(folder / "lock") == 0o600


def test_a_place_is_waited_for(tmp_path: Path) -> None:
    entered, leave = threading.Event(), threading.Event()

    def before() -> None:
        with hold_place(tmp_path, "judge", lambda: False):
            entered.set()
            leave.wait(30)

    thread = threading.Thread(target=before)
    thread.start()
    assert entered.wait(30)
    asked = []

    def waiting() -> bool:
        asked.append(time.monotonic())
        if len(asked) == 2:
            leave.set()
        return False

    with hold_place(tmp_path, "judge", waiting):
        assert len(asked) >= 2
    thread.join()


def test_who_is_told_to_end_does_not_wait(tmp_path: Path) -> None:
    with hold_place(tmp_path, "judge", lambda: False), hold_place(tmp_path, "judge", lambda: True):
        pass
