"""The cache of compiled kernels."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numba
import pytest

from veilwatch import jit

TABLE = "traffic/flow/a.py"
KERNEL = "traffic/hashing.py"


def _write(root: Path, texts: Mapping[str, str]) -> None:
    for name, text in texts.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    jit.source_hash.cache_clear()


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installation of other sources."""
    jit.source_hash.cache_clear()
    monkeypatch.setattr(jit, "__file__", str(tmp_path / "jit.py"))
    yield tmp_path
    jit.source_hash.cache_clear()


def test_tables_are_kept_by_the_code_that_shapes_them(elsewhere: Path) -> None:
    _write(elsewhere, {TABLE: "a = 1", "schema/flows.py": "b = 1", "cli/verb.py": "c = 1"})
    seen = {jit.source_hash()}
    for name in (TABLE, "schema/flows.py"):
        _write(elsewhere, {name: "a = 2"})
        seen.add(jit.source_hash())
    assert len(seen) == 3
    _write(
        elsewhere,
        {
            "cli/verb.py": "c = 2",
            **{name: "d = 1" for name in jit.OUTSIDE_TABLES if name.endswith(".py")},
        },
    )
    assert jit.source_hash() in seen


def test_other_words_make_no_other_tables(elsewhere: Path) -> None:
    _write(elsewhere, {TABLE: 'def f():\n    """One."""\n    return 1\n'})
    before = jit.source_hash()
    _write(elsewhere, {TABLE: '"""A module."""\ndef f():\n    """Two."""\n    return 1  # why\n'})
    assert jit.source_hash() == before
    _write(elsewhere, {TABLE: "def f():\n    return 2\n"})
    assert jit.source_hash() != before


def test_nothing_that_shapes_a_table_comes_from_outside() -> None:
    root = Path(jit.__file__).parent
    outside = {root / name for name in jit.OUTSIDE_TABLES}
    assert all(path.exists() for path in outside)
    taken = [
        f"{path.relative_to(root)} takes {module}"
        for path in jit.table_sources()
        if path.name != "__init__.py"
        for node in ast.walk(ast.parse(path.read_text()))
        for module in _imported(node)
        if module.startswith("veilwatch.")
        and outside.intersection(
            (
                (file := root.joinpath(*module.split(".")[1:])).with_suffix(".py"),
                file,
                *file.parents,
            )
        )
    ]
    assert not taken


def test_another_installation_of_the_same_sources_compiles_for_itself(elsewhere: Path) -> None:
    _write(elsewhere, {KERNEL: "from veilwatch.jit import kernel"})
    before = jit.installation_hash()
    assert jit.installation_hash() == before
    os.utime(elsewhere / KERNEL, ns=(1, 1))
    assert jit.installation_hash() != before


def test_what_compiles_nothing_leaves_the_compiled_kernels_alone(elsewhere: Path) -> None:
    kernel = "from veilwatch.jit import kernel\n"
    _write(
        elsewhere,
        {KERNEL: kernel, "traffic/capture/rotate.py": "# files", "schema/flows.py": "# dtypes"},
    )
    before = jit.kernel_hash()
    _write(elsewhere, {"traffic/capture/rotate.py": "# other words"})
    assert jit.kernel_hash() == before
    for name in (KERNEL, "schema/flows.py"):
        _write(elsewhere, {name: kernel + "# after"})
        assert jit.kernel_hash() != before
        before = jit.kernel_hash()


def test_named_tuples_of_others_keep_their_names_in_machine_code() -> None:
    class Point(NamedTuple):
        x: int
        y: float

    class Ours(NamedTuple):
        x: int
        y: float

    Ours.__module__ = "veilwatch.traffic.flow.state"
    theirs = numba.typeof(Point(1, 2.0))
    assert theirs.mangling_args == numba.types.Type.mangling_args.fget(theirs)
    assert numba.typeof(Ours(1, 2.0)).mangling_args == ("Ours", (numba.int64, numba.float64))


def test_kernels_take_nothing_from_files_outside_their_hash() -> None:
    root = Path(jit.__file__).parent
    covered = set(jit.kernel_sources()) | {root / "errors.py", root / "jit.py"}
    # What Python around the kernels uses, which compiled code never sees.
    python_only = {
        "veilwatch.schema.captures",
        "veilwatch.schema.features",
        "veilwatch.schema.text",
        "veilwatch.traffic.capture.account",
        "veilwatch.traffic.capture.part",
        "veilwatch.traffic.capture.window",
    }
    outside = []
    for path in jit.kernel_sources():
        if not _has_kernels(path):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            for module in _imported(node) - python_only:
                file = root.joinpath(*module.split(".")[1:]).with_suffix(".py")
                if file.is_file() and file not in covered:
                    outside.append(f"{path.relative_to(root)} takes {module}")
    assert not outside


def _imported(node: ast.AST) -> set[str]:
    """Return the modules that a statement may import: `from a import b` may name a.b too."""
    if not isinstance(node, ast.ImportFrom):
        return set()
    return {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}


def _has_kernels(path: Path) -> bool:
    text = path.read_text()
    return any(f"@{name}" in text for name in ("kernel", "inline_kernel", "inner_kernel"))
