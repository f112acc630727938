"""Lines appended to files, whole or not at all: one file, or one a day that is deleted by age."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import ClassVar, Final

from veilwatch.errors import VeilwatchError
from veilwatch.sinks.address import Address
from veilwatch.sinks.base import DeliveryLog, EncodedEvent, Sink

KEEP_DAYS: Final = 30
"""Days for which daily files are kept unless the URL says otherwise."""

MAX_KEEP_DAYS: Final = 3650
"""Longest time that can be asked for; what is to be kept longer belongs into an archive."""

FILE_MODE: Final = 0o644
"""Readers run under accounts of their own."""

_DAY: Final = r"\d{4}-\d\d-\d\d"


class LineSink(Sink):
    """Appends a line for each event to a file.

    A path that ends in `SUFFIX` is one file, which something else rotates: it is opened anew for
    each batch, so that it may be renamed at any time. Any other path is a folder with a file a
    day, of which those older than `keep-days` are deleted.
    """

    PREFIX: ClassVar[str]
    SUFFIX: ClassVar[str]
    ZONE: ClassVar[timezone] = UTC
    KEEP: ClassVar[int] = KEEP_DAYS
    CREATE: ClassVar[bool] = True
    PARAMETERS: ClassVar[Mapping[str, str]] = {
        "keep-days": "days after which daily files are deleted"
    }

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        if address.host or not address.path.startswith("/"):
            raise VeilwatchError(
                "a file's URL has three slashes and an absolute path",
                where=address.shown,
                hint=f"{address.scheme}:///var/log/veilwatch",
            )
        self.path = Path(address.path)
        self._keep = address.number("keep-days", self.KEEP, 1, MAX_KEEP_DAYS)

    def file(self, now: datetime | None = None) -> Path:
        """Return the file that lines go to, now or at another time."""
        if self.path.suffix == self.SUFFIX:
            return self.path
        day = (now or datetime.now(UTC)).astimezone(self.ZONE)
        return self.path / f"{self.PREFIX}{day:%Y-%m-%d}{self.SUFFIX}"

    def deliver(self, encoded: Sequence[EncodedEvent], log: DeliveryLog) -> None:
        """Append, and say so when the lines are on disk."""
        file = self.file()
        if self.CREATE:
            file.parent.mkdir(exist_ok=True)  # one folder: a path that is wrong higher up shows
        handle = open_regular(file)
        written = []
        try:
            _end_torn_line(handle)
            try:
                for item in encoded:
                    _append(handle, item.body + b"\n")
                    written.append(item.event.event_id)
            finally:
                os.fsync(handle)
                for event_id in written:
                    log.delivered(event_id)
        finally:
            os.close(handle)
        if file != self.path:
            self._delete_old()

    def _delete_old(self) -> None:
        # Names are made from this sink's own pattern: nobody else's file matches.
        pattern = re.compile(re.escape(self.PREFIX) + f"({_DAY})" + re.escape(self.SUFFIX))
        last = datetime.now(UTC).astimezone(self.ZONE) - timedelta(days=self._keep)
        for path in self.path.iterdir():
            match = pattern.fullmatch(path.name)
            if match and match[1] < f"{last:%Y-%m-%d}":
                with suppress(OSError):  # deleted by another, or tomorrow
                    path.unlink()


def open_regular(file: Path) -> int:
    """Open a file to append to, made where there is none; never through a link.

    Whoever may write in the folder could lay a link there, and have lines written to any file that
    is ours to write, or a pipe that nobody reads.

    Raises
    ------
    OSError
        If it cannot be opened, or is a link or no file.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        handle = os.open(file, flags, FILE_MODE)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "it is a link: name the file itself") from error
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is no file")
    return handle


def _append(handle: int, line: bytes) -> None:
    """Write a whole line at once; what a full disk cuts is taken back."""
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        before = os.fstat(handle).st_size
        written = os.write(handle, line)
        if written < len(line):
            os.ftruncate(handle, before)
            raise OSError(errno.ENOSPC, "no room for a whole line")
    finally:
        fcntl.flock(handle, fcntl.LOCK_UN)


def _end_torn_line(handle: int) -> None:
    """End a line that a power failure cut, so that the next one is whole."""
    size = os.fstat(handle).st_size
    if size and os.pread(handle, 1, size - 1) != b"\n":
        os.write(handle, b"\n")
