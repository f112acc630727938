"""One small run of the demo for all tests of the verbs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.helpers import veilwatch


@pytest.fixture(scope="session")
def emulation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run of the demo: lab, model, results."""
    folder = tmp_path_factory.mktemp("demo")
    result = veilwatch("demo", "--out", folder, "--scale", "0.15")
    assert result.returncode == 0, result.stderr
    assert "report.html" in result.stdout
    assert "emulated" in result.stdout.lower()
    return folder
