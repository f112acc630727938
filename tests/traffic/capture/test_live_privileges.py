"""A process ends with the one that started it, whenever that is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import ROOT

PATIENCE_S = 30.0

PARENT = """
import multiprocessing, sys, time
from tests.traffic.capture.test_live_privileges import child
if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=child, args=sys.argv[1:])
    process.start()
    time.sleep(600)
"""


def child(folder: str, when: str) -> None:
    """Say who we are, wait until the parent is gone or is watched, and live on."""
    from veilwatch.traffic.capture.live.privileges import end_with_parent

    place = Path(folder)
    if when == "after":
        end_with_parent(signal.SIGTERM)
    (place / "pid.new").write_text(str(os.getpid()))
    (place / "pid.new").rename(place / "pid")
    if when == "before":
        wait_for(place / "gone")
        end_with_parent(signal.SIGTERM)
    time.sleep(600)


def wait_for(path: Path) -> None:
    until = time.monotonic() + PATIENCE_S
    while not path.exists():
        assert time.monotonic() < until, path
        time.sleep(0.02)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_child_ends_with_a_parent_that_is_killed(when: str, tmp_path: Path) -> None:
    words = [sys.executable, "-c", PARENT, str(tmp_path), when]
    parent = subprocess.Popen(words, cwd=ROOT)
    wait_for(tmp_path / "pid")
    pid = int((tmp_path / "pid").read_text())
    os.kill(pid, 0)
    parent.kill()
    parent.wait()
    (tmp_path / "gone").touch()
    until = time.monotonic() + PATIENCE_S
    try:
        while is_alive(pid):
            assert time.monotonic() < until, "the child lives on"
            time.sleep(0.05)
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
