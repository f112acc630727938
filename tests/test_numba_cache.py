"""The cache of compiled kernels is theirs alone."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numba
import pytest

from tests.conftest import ROOT
from veilwatch.numba_cache import KernelCache

CODE = "def double(value):\n    return 2 * value\n"


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("kernels_of_a_test", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "kernels_of_a_test.py"
    path.write_text(CODE)
    return path


def compiled(source: Path, folder: Path | None) -> Any:
    function = load(source).double
    kernel = numba.njit(function)
    kernel._cache = KernelCache(function, lambda: folder)
    assert kernel(21) == 42
    return kernel


def hits(kernel: Any) -> int:
    return sum(kernel.stats.cache_hits.values())


def test_a_kernel_is_kept_in_the_folder_and_taken_from_it(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    folder.mkdir()
    assert hits(compiled(source, folder)) == 0
    assert len(list(folder.rglob("*.nbi"))) == len(list(folder.rglob("*.nbc"))) == 1
    assert hits(compiled(source, folder)) == 1
    # Where Numba keeps them unless told otherwise, beside the bytecode of Python.
    assert not list(tmp_path.glob("__pycache__/*.nb?"))


def test_a_changed_source_is_compiled_anew(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    folder.mkdir()
    compiled(source, folder)
    source.write_text(CODE.replace("2 * value", "value + value"))
    os.utime(source, ns=(1, 1))
    assert hits(compiled(source, folder)) == 0


def test_without_a_folder_nothing_is_kept(source: Path, tmp_path: Path) -> None:
    assert hits(compiled(source, None)) == 0
    assert hits(compiled(source, None)) == 0
    assert not list(tmp_path.rglob("*.nb?"))


def test_the_folder_is_asked_for_at_the_first_call(source: Path) -> None:
    asked: list[int] = []
    function = load(source).double
    kernel = numba.njit(function)
    kernel._cache = KernelCache(function, lambda: asked.append(1))
    assert not asked
    assert kernel(1) == 2 and kernel(1.5) == 3
    assert asked == [1]


def test_kernels_of_others_stay_where_they_belong(tmp_path: Path) -> None:
    """A program's own kernels and settings, beside ours in one process."""
    (tmp_path / "theirs.py").write_text(
        "import numba\n@numba.njit(cache=True)\ndef half(value):\n    return value / 2\n"
    )
    (tmp_path / "ours.py").write_text(
        "from veilwatch.jit import kernel\n@kernel\ndef double(value):\n    return 2 * value\n"
    )
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import numba\nbefore = numba.config.CACHE_DIR\n"
        "import ours, theirs\n"
        "assert ours.double(21) == 42 and theirs.half(2) == 1\n"
        "assert numba.config.CACHE_DIR == before\n"
    )
    ours, others = tmp_path / "cache", tmp_path / "others"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env={
            "PYTHONPATH": str(ROOT / "src"),
            "VEILWATCH_CACHE": str(ours),
            "NUMBA_CACHE_DIR": str(others),
            # Numba would ask this one for a place.
            "NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [path.name[:11] for path in ours.rglob("*.nbi")] == ["ours.double"]
    assert [path.name[:11] for path in others.rglob("*.nbi")] == ["theirs.half"]
