"""Files that appear whole or not at all, also when many of them take turns."""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from veilwatch.errors import OutputError
from veilwatch.files import PendingFile, replacing


@pytest.fixture
def small_disk() -> Iterator[None]:
    """No file of this process may grow beyond 64 KiB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_suspended_file_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    pending = PendingFile(path)
    for part in (b"one ", b"two ", b"three"):
        pending.write(part)
        pending.suspend()
        pending.suspend()
    assert path.read_bytes() == b"old"
    pending.commit()
    pending.commit()
    pending.abandon()
    assert path.read_bytes() == b"one two three"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ValueError, match="no longer"):
        pending.write(b"more")


def test_what_is_flushed_can_be_read_by_others(tmp_path: Path) -> None:
    pending = PendingFile(tmp_path / "a")
    pending.write(b"seen")
    pending.flush()
    (hidden,) = tmp_path.iterdir()
    assert hidden.name.startswith(".a.") and hidden.read_bytes() == b"seen"
    pending.abandon()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suspended", [False, True])
def test_an_abandoned_file_leaves_what_stood_there(tmp_path: Path, suspended: bool) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    pending = PendingFile(path)
    pending.write(b"new")
    if suspended:
        pending.suspend()
    pending.abandon()
    pending.commit()
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("last", ["write", "flush", "suspend", "commit"])
def test_no_room_is_one_clear_error(tmp_path: Path, small_disk: None, last: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    pending = PendingFile(path)
    with pytest.raises(OutputError, match="a: cannot write: File too large"):
        if last == "write":
            pending.write(bytes(100_000))
        else:
            pending.write(bytes(65_000))
            pending.write(bytes(1000))  # waits in the buffer
            getattr(pending, last)()
    pending.abandon()
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_no_room_while_replacing(tmp_path: Path, small_disk: None) -> None:
    with pytest.raises(OutputError, match="cannot write"), replacing(tmp_path / "a") as stream:
        stream.write(bytes(100_000))
    assert list(tmp_path.iterdir()) == []


def test_rights_are_those_of_any_new_file(tmp_path: Path) -> None:
    usual = tmp_path / "usual"
    usual.touch()
    PendingFile(tmp_path / "a").commit()
    assert (tmp_path / "a").stat().st_mode == usual.stat().st_mode


def test_the_umask_is_kept_to_and_never_changed(tmp_path: Path) -> None:
    """While files are committed another thread's files have the rights that they should have."""
    before = os.umask(0o027)
    stop = threading.Event()
    modes: set[int] = set()

    def make_files() -> None:
        number = 0
        while not stop.is_set():
            path = tmp_path / f"other-{number % 50}"
            path.unlink(missing_ok=True)
            path.touch(0o666)
            modes.add(path.stat().st_mode & 0o777)
            number += 1

    beside = threading.Thread(target=make_files)
    beside.start()
    try:
        for number in range(200):
            with replacing(tmp_path / f"{number % 5}") as stream:
                stream.write(b"x")
        assert (tmp_path / "0").stat().st_mode & 0o777 == 0o640
    finally:
        stop.set()
        beside.join()
        os.umask(before)
    assert modes == {0o640}
