"""The cache of compiled kernels."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from veilwatch import jit


def test_the_hash_covers_every_file_of_the_rooms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("flow/a.py", "capture/live/ring.py", "cli/verb.py", "hashing.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("before")
    monkeypatch.setattr(jit, "__file__", str(tmp_path / "jit.py"))
    seen = {jit.source_hash()}
    for name in ("flow/a.py", "capture/live/ring.py", "hashing.py"):
        (tmp_path / name).write_text("after")
        seen.add(jit.source_hash())
    assert len(seen) == 4
    (tmp_path / "cli/verb.py").write_text("after")
    assert jit.source_hash() in seen


def test_another_installation_of_the_same_sources_compiles_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hashing.py").write_text("same")
    monkeypatch.setattr(jit, "__file__", str(tmp_path / "jit.py"))
    before = jit.installation_hash()
    assert jit.installation_hash() == before
    os.utime(tmp_path / "hashing.py", ns=(1, 1))
    assert jit.installation_hash() != before
