"""A folder is private if nobody else can change it, or what its path means."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from veilwatch.private import why_not_private


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    folder = tmp_path / "a" / "b" / "cache"
    folder.mkdir(parents=True)
    folder.chmod(0o700)
    return folder


def test_a_folder_of_ours_below_sticky_ones(cache: Path) -> None:
    assert why_not_private(cache) == ""
    cache.parent.parent.chmod(0o1777)
    assert why_not_private(cache) == ""


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o720, 0o702])
def test_others_may_write_to_it(cache: Path, mode: int) -> None:
    cache.chmod(mode)
    assert why_not_private(cache) == f"others may write to {cache}"


def test_others_may_write_above_it(cache: Path) -> None:
    cache.parent.parent.chmod(0o777)
    assert "others may write to" in why_not_private(cache)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_it_or_what_is_above_belongs_to_somebody_else(cache: Path) -> None:
    os.chown(cache, 12345, 12345)
    assert why_not_private(cache) == f"{cache} belongs to user 12345"
    os.chown(cache, 0, 0)
    os.chown(cache.parent, 12345, 12345)
    assert why_not_private(cache) == f"{cache.parent} belongs to user 12345"


def test_links_are_followed_step_by_step(cache: Path, tmp_path: Path) -> None:
    open_to_all = tmp_path / "shared"
    open_to_all.mkdir()
    (open_to_all / "link").symlink_to(cache)
    (tmp_path / "first").symlink_to("shared/link")
    assert why_not_private(tmp_path / "first") == ""
    assert why_not_private(tmp_path / "shared" / ".." / "first") == ""
    open_to_all.chmod(0o777)
    assert "others may write to" in why_not_private(tmp_path / "first")
    (tmp_path / "loop").symlink_to("loop")
    assert why_not_private(tmp_path / "loop") != ""
    assert "No such file" in why_not_private(tmp_path / "none")


def test_a_shared_cache_is_not_used_and_that_is_said(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    done = subprocess.run(
        [sys.executable, "-m", "veilwatch", "doctor"],
        env={**os.environ, "VEILWATCH_CACHE": str(shared)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"not kept: others may write to {shared}" in done.stdout
    assert not list(shared.glob("kernels-*/*"))
