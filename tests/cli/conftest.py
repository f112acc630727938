"""One small run of the demo for all tests of the verbs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import pytest

from tests.cli.helpers import veilwatch_process

LONGEST_S = 900.0
"""How long another process may take to make it."""

SCALE: Final = "0.15"
"""Factor on its traffic: as little as still has infections that are found."""


@pytest.fixture(scope="session")
def emulation(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A small run of the demo: lab, model, results; made once for all processes of a test run."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "demo"
    done = folder.with_suffix(".done")
    try:
        folder.mkdir()
    except FileExistsError:
        deadline = time.monotonic() + LONGEST_S
        while not done.exists():
            assert time.monotonic() < deadline, "the demo of another process did not end"
            time.sleep(0.2)
        assert done.read_text() == "", done.read_text()
        return folder
    # Training the networks that are compared takes four fifths of the demo's time.
    result = veilwatch_process("demo", "--out", folder, "--scale", SCALE, "--no-comparison")
    done.write_text("" if result.returncode == 0 else result.stderr or "it failed")
    assert result.returncode == 0, result.stderr
    assert "report.html" in result.stdout
    assert "emulated" in result.stdout.lower()
    return folder
