"""The cache of compiled kernels."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import pytest

from veilwatch import jit


def test_the_hash_covers_every_file_of_the_rooms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("flow/a.py", "traffic/capture/live/ring.py", "cli/verb.py", *jit.SOURCE_FILES):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("before")
    monkeypatch.setattr(jit, "__file__", str(tmp_path / "jit.py"))
    seen = {jit.source_hash()}
    for name in ("flow/a.py", "traffic/capture/live/ring.py", *jit.SOURCE_FILES):
        (tmp_path / name).write_text("after")
        seen.add(jit.source_hash())
    assert len(seen) == 3 + len(jit.SOURCE_FILES)
    (tmp_path / "cli/verb.py").write_text("after")
    assert jit.source_hash() in seen


def test_another_installation_of_the_same_sources_compiles_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in jit.SOURCE_FILES:
        (tmp_path / name).write_text("from veilwatch.jit import kernel")
    monkeypatch.setattr(jit, "__file__", str(tmp_path / "jit.py"))
    before = jit.installation_hash()
    assert jit.installation_hash() == before
    os.utime(tmp_path / "traffic/hashing.py", ns=(1, 1))
    assert jit.installation_hash() != before


def test_what_compiles_nothing_leaves_the_compiled_kernels_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = "from veilwatch.jit import kernel\n"
    for name, text in (
        ("traffic/flow/kernel.py", kernel),
        ("traffic/capture/rotate.py", "# files"),
        ("schema/flows.py", "# dtypes"),
        *((name, kernel) for name in jit.SOURCE_FILES),
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(jit, "__file__", str(tmp_path / "jit.py"))
    before = jit.kernel_hash()
    (tmp_path / "traffic/capture/rotate.py").write_text("# other words")
    assert jit.kernel_hash() == before
    for name in ("traffic/flow/kernel.py", "schema/flows.py", *jit.SOURCE_FILES):
        (tmp_path / name).write_text(kernel + "# after")
        assert jit.kernel_hash() != before
        before = jit.kernel_hash()


def test_kernels_take_nothing_from_files_outside_their_hash() -> None:
    root = Path(jit.__file__).parent
    covered = set(jit.kernel_sources()) | {root / "errors.py", root / "jit.py"}
    # The readers around the kernels, which compiled code never sees.
    python_only = {
        "veilwatch.traffic.capture.account",
        "veilwatch.traffic.capture.part",
        "veilwatch.traffic.capture.window",
    }
    outside = []
    for path in jit.kernel_sources():
        if root / jit.DTYPE_ROOM in path.parents or not _has_kernels(path):
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
