"""The state folder: its rights, and that only one sensor works on it."""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from veilwatch.errors import VeilwatchError
from veilwatch.files import make_folder, output_error

LOOSE: Final = stat.S_IWGRP | stat.S_IRWXO
"""Rights that are taken from a state folder: nobody else may write there, as whoever can put a
socket or a file there speaks for the sensor, and only a group of the owner's choice may read."""

WAIT_S: Final = 0.2

END_IT: Final = "end it, or name another folder under sensor.state"
"""What a second sensor can do."""


def private_folder(path: Path) -> bool:
    """Make the state folder with mode 0700, or take from one that exists what others may do.

    Returns
    -------
    bool
        Whether rights were taken.

    Raises
    ------
    VeilwatchError
        If it cannot be made or written to, or is another user's and open to others.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & LOOSE:
            path.chmod(mode & ~LOOSE)
    except PermissionError as error:
        raise VeilwatchError(
            f"cannot have the state folder: {error.strerror}",
            where=path,
            hint="it must belong to the sensor's user and be closed to others: chmod 700",
        ) from error
    except OSError as error:
        raise output_error(path, error) from error
    make_folder(path)
    return bool(mode & LOOSE)


@contextmanager
def hold_state(folder: Path, *, hint: str = END_IT) -> Iterator[None]:
    """Be the only sensor that works on a state folder, until the block ends or the process does.

    A folder that is not there is made with mode 0700.

    Parameters
    ----------
    hint
        What to do where another one works on it.

    Raises
    ------
    VeilwatchError
        If another one does, or the folder cannot be made.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(folder, error) from error
    descriptor = _open(folder / "lock")
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            number = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "?"
            raise VeilwatchError(
                f"another sensor works on it (process {number})",
                where=folder,
                hint=hint,
            ) from error
        # Only for the message above: the lock itself ends with the process that holds it.
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except OSError:  # a full disk keeps no sensor from working
            pass
        yield
    finally:
        os.close(descriptor)


@contextmanager
def hold_place(folder: Path, name: str, waiting: Callable[[], bool]) -> Iterator[None]:
    """Wait until the process that had this place before is gone, then have it.

    A parent that was killed leaves children that finish what they have; its successor's may not
    write beside them.

    Parameters
    ----------
    name
        Of the place.
    waiting
        Called again and again meanwhile; with True the place is entered without waiting on, for a
        process that is told to end itself.
    """
    descriptor = _open(folder / f"{name}.lock")
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if waiting():
                    break
                time.sleep(WAIT_S)
        yield
    finally:
        os.close(descriptor)


def check_folder(folder: Path) -> None:
    """Refuse a state folder that is not there.

    Raises
    ------
    VeilwatchError
        If there is none.
    """
    if not folder.is_dir():
        raise VeilwatchError(
            "no state folder here", where=folder, hint="the sensor's configuration names it"
        )


@contextmanager
def hold_still(folder: Path) -> Iterator[None]:
    """Keep every sensor off a state folder that is there, until the block ends.

    Raises
    ------
    VeilwatchError
        If a sensor works on it, or what is left of one that was killed, or there is no folder.
    """
    check_folder(folder)

    def refuse() -> bool:
        raise VeilwatchError(
            "a process of a sensor that was killed still works on it",
            where=folder,
            hint="wait a minute",
        )

    with hold_state(folder, hint="stop the sensor first"), hold_place(folder, "judge", refuse):
        yield


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise output_error(path, error) from error
