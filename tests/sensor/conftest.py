"""A model for sensors of tests, made once, and a folder for each sensor."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sensor.field import make_field


@pytest.fixture(scope="session")
def field(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with captures and a model of them, for reading."""
    folder = tmp_path_factory.mktemp("field")
    make_field(folder)
    return folder


@pytest.fixture
def place(field: Path, tmp_path: Path) -> Path:
    """A folder for one sensor, with its model and a folder to watch."""
    (tmp_path / "model").symlink_to(field / "model")
    (tmp_path / "corpus").symlink_to(field / "corpus")
    (tmp_path / "drop").mkdir()
    (tmp_path / "out").mkdir()
    return tmp_path
