"""Writing files whole or not at all, and deleting them with all of their bytes.

A full disk, Ctrl-C or a crash leaves no half file behind.
"""

from __future__ import annotations

import errno
import os
import re
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

from veilwatch.errors import OutputError

BOXED_MODEL: Final = Path(__file__).parent / "boxed_model"
"""Folder of the model that ships with the package (`veilwatch.learning.models.boxed`)."""

ADVICE: Final = {
    errno.ENOSPC: "free some space or name another place",
    errno.EDQUOT: "your share of the disk is used up: free some space or name another place",
    errno.EFBIG: "a limit on the size of files was reached: raise it or name another place",
    errno.EACCES: "you may not write there: name another place, or have the right given to you",
    errno.EPERM: "you may not write there: name another place, or have the right given to you",
    errno.EROFS: "that file system is read-only: name another place",
    errno.ENOENT: "there is no such folder: name another place",
    errno.ENOTDIR: "a part of that path is no folder: name another place",
    errno.EISDIR: "that is a folder: name a file in it",
    errno.ENAMETOOLONG: "name a shorter one",
    errno.EIO: "the disk reports an error: look at the system's log",
}
"""What to do about a failed write, by its cause."""

_STREAMS: Final = re.compile(r"/dev/(stdin|stdout|stderr|fd/\d+)|/proc/(self|\d+)/fd/\d+")


def is_device(path: Path) -> bool:
    """Whether a path is a pipe, a device or an open stream: it takes bytes, and is not replaced."""
    if _STREAMS.fullmatch(str(path)):
        return True
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def output_error(path: Path, error: OSError) -> OutputError:
    """Turn a failed write into the error that the user sees."""
    return OutputError(
        f"cannot write: {error.strerror or error}",
        where=path,
        hint=ADVICE.get(error.errno or 0, "name another place"),
    )


def current_umask() -> int:
    """Return the process's umask without changing it, as other threads make files meanwhile.

    Linux tells it in /proc (proc(5)). Elsewhere what it was when this module was imported counts.
    """
    with suppress(OSError, ValueError), Path("/proc/self/status").open("rb") as lines:
        for line in lines:
            if line.startswith(b"Umask:"):
                return int(line.split()[1], 8)
    return _UMASK_AT_IMPORT


def _read_umask() -> int:
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


_UMASK_AT_IMPORT: Final = _read_umask()


class PendingFile:
    """A file that grows beside its place and is put there when it is whole.

    Whoever writes many at a time can `suspend` some, so that they take no descriptor; the next
    write opens them again at their end.

    Parameters
    ----------
    path
        Where the file is to appear. What stands there stays untouched until `commit`.

    Raises
    ------
    OutputError
        If the folder cannot be written to or the disk is full, here or later.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        except OSError as error:
            raise output_error(path, error) from error
        self._temporary = Path(name)
        self._stream: IO[bytes] | None = os.fdopen(handle, "wb")
        self._over = False

    @property
    def stream(self) -> IO[bytes]:
        """The stream to write to, at the end of what was written."""
        if self._stream is None:
            if self._over:
                raise ValueError(f"{self.path} is no longer written to")
            self._stream = self._temporary.open("ab")
        return self._stream

    def write(self, data: bytes) -> None:
        """Append `data`; a file that cannot take it is given up."""
        try:
            self.stream.write(data)
        except OSError as error:
            self.abandon()
            raise output_error(self.path, error) from error

    def flush(self) -> None:
        """Hand what was written to the system: another process can read it."""
        try:
            if self._stream is not None:
                self._stream.flush()
        except OSError as error:
            self.abandon()
            raise output_error(self.path, error) from error

    def suspend(self) -> None:
        """Close the stream until the next write."""
        self.flush()
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def commit(self) -> None:
        """Put the file in its place, on disk; harmless when done twice, or after `abandon`."""
        if self._over:
            return
        try:
            stream = self.stream
            stream.flush()
            # By its descriptor: under its name another file may lie by now.
            os.fchmod(stream.fileno(), 0o666 & ~current_umask())
            os.fsync(stream.fileno())
            stream.close()
            self._temporary.replace(self.path)
        except OSError as error:
            self.abandon()
            raise output_error(self.path, error) from error
        self._over, self._stream = True, None

    def abandon(self) -> None:
        """Remove what was written; harmless when done twice, or after `commit`."""
        if self._over:
            return
        self._over = True
        if self._stream is not None:
            with suppress(OSError):  # what is still buffered may find no room
                self._stream.close()
            self._stream = None
        with suppress(FileNotFoundError):
            self._temporary.unlink()


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary neighbour of `path` for writing and rename it into place at the end.

    Whatever stood at `path` stays untouched until the new content is complete and on disk. A pipe
    or a device is written to as it is.

    Raises
    ------
    OutputError
        If the folder cannot be written to or the disk is full.
    """
    if is_device(path):
        try:
            with path.open("wb") as device:
                yield device
        except BrokenPipeError:
            raise
        except OSError as error:
            raise output_error(path, error) from error
        return
    pending = PendingFile(path)
    try:
        yield pending.stream
        pending.commit()
    except OSError as error:
        raise output_error(path, error) from error
    finally:
        pending.abandon()


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, whole or not at all."""
    with replacing(path) as stream:
        # A name of a file that is no UTF-8 is no reason to lose a report.
        stream.write(text.encode("utf-8", "backslashreplace"))


def scrub(database: sqlite3.Connection) -> bool:
    """Write an SQLite file anew, so that nothing of deleted rows stands in it or in its log.

    Parameters
    ----------
    database
        In WAL mode and in no transaction.

    Returns
    -------
    bool
        Whether the log is empty: whoever still reads an older state keeps it from that.
    """
    # Deleting with zeros is not enough: of rows that were changed or had moved there are remains.
    database.execute("VACUUM")
    busy, *_ = database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not busy


def make_folder(path: Path) -> Path:
    """Create the output folder `path`, or say clearly why that is impossible."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise output_error(path, error) from error
    return path
