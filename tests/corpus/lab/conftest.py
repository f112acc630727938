"""A small lab, built once for all tests of this folder."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from veilwatch.corpus.lab import build_lab, field_capture


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifest of the whole corpus at a small scale."""
    return build_lab(tmp_path_factory.mktemp("lab"), seed=3, scale=0.1)


@pytest.fixture(scope="session")
def field(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A field capture of a few subscribers."""
    path = tmp_path_factory.mktemp("field") / "field.pcapng"
    field_capture(path, seed=5, subscribers=12, infected=3, scale=0.5)
    return path


def tshark(path: Path, *arguments: str) -> list[list[str]]:
    """Run tshark over a capture and return the fields asked for, one list a packet."""
    program = shutil.which("tshark")
    if program is None:
        pytest.skip("tshark is not installed")
    done = subprocess.run(
        [program, "-n", "-r", str(path), *arguments], capture_output=True, text=True, check=True
    )
    return [line.split("\t") for line in done.stdout.splitlines()]
