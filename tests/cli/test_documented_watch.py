"""The pages' sensors: each block of commands is run as printed, by a shell, while it watches."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from tests.conftest import ROOT
from tests.sensor.field import until

pytestmark = pytest.mark.slow

LONGEST_S: Final = 240.0
"""How long a sensor may take on a machine that has much else to do; else it takes ten seconds."""

WHOLE: Final = "everything else stored"
"""How the last line of a sensor's log ends that ended well."""


def block(page: str, start: str) -> list[str]:
    """Return the commands of the shell blocks of a page that follow a heading or a sentence."""
    text = (ROOT / page).read_text(encoding="utf-8")
    section = re.split(r"^## ", text.partition(start)[2], maxsplit=1, flags=re.M)[0]
    blocks = re.findall(r"^```sh\n(.*?)^```", section, re.M | re.S)
    lines = "".join(blocks).splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


def shell(command: str) -> str:
    """Run one line of a page; return what it printed."""
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=LONGEST_S, check=False
    )
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


def finds(command: str, text: str) -> bool:
    """Whether a command prints a text."""
    return text in shell(command)


class Watching:
    """A sensor that a line of a page has started."""

    def __init__(self, command: str, state: Path) -> None:
        self._log, self._state = Path("watch.log"), state
        with self._log.open("w") as log:
            self._process = subprocess.Popen(["bash", "-c", f"exec {command}"], stderr=log)

    def log(self) -> list[dict[str, str]]:
        """Return its log, which is a JSON object a line."""
        lines = self._log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def says(self, name: str) -> Any:
        """Return what its status says; it must not have ended."""
        assert self._process.poll() is None, self._log.read_text()
        file = self._state / "status.json"
        return json.loads(file.read_text())[name] if file.exists() else None

    def incidents(self) -> int:
        """Return how many are open."""
        return int(self.says("children")["judge"].get("incidents", 0))

    def end(self) -> list[dict[str, str]]:
        """Have it end; return its log."""
        self._process.terminate()
        assert self._process.wait(90) == 0, self._log.read_text()
        return self.log()

    def kill(self) -> None:
        """Leave nothing running."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


@pytest.fixture
def place(emulation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `.venv`, a model and a capture, and `veilwatch` in the path."""
    monkeypatch.chdir(tmp_path)
    program = tmp_path / ".venv" / "bin" / "veilwatch"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m veilwatch "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    # Another sensor of this machine may have the port.
    monkeypatch.setenv("VEILWATCH_METRICS__LISTEN", "127.0.0.1:0")
    monkeypatch.delenv("VEILWATCH_STORE", raising=False)
    shutil.copy(emulation / "field" / "n3.pcapng", tmp_path / "n3.pcapng")
    for name in ("MODEL", "model"):
        (tmp_path / name).symlink_to(emulation / "model")
    return tmp_path


def test_the_trial_of_operations(place: Path) -> None:
    """A sensor on a folder, from nothing to an incident, with the lines of the page alone."""
    lines = block("docs/operations.md", "## Without systemd, for a trial")
    watch = next(k for k, line in enumerate(lines) if " watch " in line)
    for line in lines[:watch]:
        shell(line)
    sensor = Watching(lines[watch], place / "trial" / "state")
    try:
        until(lambda: sensor.says("ready"), LONGEST_S)
        put = [line for line in lines[watch + 1 :] if line.startswith(("cp ", "mv "))]
        look = [line for line in lines[watch + 1 :] if line not in put]
        assert len(put) == 2 and len(look) == 2
        for line in put:
            shell(line)
        until(sensor.incidents, LONGEST_S)
        assert sensor.says("children")["judge"]["emulated_model"]
        for line in look:  # up to a subscriber of the demo
            until(partial(finds, line, "10.45."), LONGEST_S, line)
        log = sensor.end()
    finally:
        sensor.kill()
    assert log[-1]["event"] == "ended" and WHOLE in log[-1]["left"]
    # Who reads these alerts has to know what the model learned from; said once.
    (told,) = [line for line in log if "trained on emulated traffic" in line["event"]]
    assert told["level"] == "warning"


def test_the_mirror_port_of_the_readme(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The block of README, with a folder chosen instead of the mirror port."""
    # Lines that look into the store are run by test_documented.py as well, without a sensor.
    init, check, esm, watch, listing, *_ = block("README.md", "wants to be told as it happens")
    assert " init " in init and " check " in check and " esm check " in esm and " watch " in watch
    assert listing.endswith("incidents list")
    (place / "drop").mkdir()
    shell(init)
    file = place / "sensor.toml"
    text = file.read_text()
    for old, new in (
        ('interfaces = ["eth1"]', 'folder = "drop"'),
        ('path = "/etc/veilwatch/model"', 'path = "model"'),
        ('# state = "/var/lib/veilwatch"', 'state = "state"'),
    ):
        assert text.count(f"\n{old}") == 1, old
        text = text.replace(f"\n{old}", f"\n{new}")
    file.write_text(text)
    assert "trained on emulated traffic" in shell(check)
    sensor = Watching(watch, place / "state")
    try:
        until(lambda: sensor.says("ready"), LONGEST_S)
        (place / "n3.pcapng").rename(place / "drop" / "n3.pcapng")
        until(sensor.incidents, LONGEST_S)
        # By default it is the state folder of a sensor; this one was put elsewhere.
        monkeypatch.setenv("VEILWATCH_STORE", str(place / "state" / "veilwatch.db"))
        until(partial(finds, listing, "10.45."), LONGEST_S, listing)
        sensor.end()
    finally:
        sensor.kill()
