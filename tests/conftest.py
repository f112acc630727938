"""Fixtures that more than one room's tests use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def find_corpus() -> Path | None:
    """Return the folder of real captures, or None where this machine has none."""
    named = os.environ.get("VEILWATCH_CORPUS")
    folder = Path(named) if named else ROOT.parent / "shared" / "corpus"
    return folder if (folder / "MANIFEST.csv").is_file() else None


@pytest.fixture(scope="session")
def corpus_path() -> Path:
    """The folder of real captures; the test is skipped where it is absent."""
    folder = find_corpus()
    if folder is None:
        pytest.skip("no folder of real captures (set VEILWATCH_CORPUS)")
    return folder
