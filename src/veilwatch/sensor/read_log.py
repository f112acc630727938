"""Which capture files of a folder were read: remembered across restarts."""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from veilwatch.errors import OutputError

MAX_READ: Final = 200_000
"""Most files that are remembered: twice what is looked at in a folder (`folder.MAX_FILES`), as
those that were read and moved away count as well."""

MAX_BEGUN: Final = 1000
"""Most files remembered that broke off their reader."""


class Seen(NamedTuple):
    """By what a file is known."""

    name: str
    size: int
    inode: int


class ReadLog:
    """Which files were read, one JSON line each, in a file that only grows while we run.

    Beside it lies a small file of what was begun and not brought to an end: it may be what ends the
    process.

    Raises
    ------
    OutputError
        If it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._begun_path = path.with_name(f"{path.name}.begun")
        self._known: OrderedDict[Seen, None] = OrderedDict()
        self._by_name: dict[str, Seen] = {}
        try:
            for seen, _ in _lines(path):
                self._add(seen)
            self._tries = OrderedDict(_lines(self._begun_path))
            path.parent.mkdir(parents=True, exist_ok=True)
            # Written anew, so that it holds no more than is known.
            _replace(path, "".join(map(_line, self._known)))
            self._stream = path.open("a", encoding="ascii")
        except OSError as error:
            raise OutputError(
                f"cannot remember what was read: {error.strerror or error}", where=path
            ) from error

    def __contains__(self, seen: Seen) -> bool:
        return seen in self._known

    def add(self, seen: Seen) -> None:
        """Remember a file for good; a full disk makes it be read again after a restart."""
        self._add(seen)
        with suppress(OSError):
            self._stream.write(_line(seen))
            self._stream.flush()
            os.fsync(self._stream.fileno())
        self._note(seen, 0)

    def tries(self, seen: Seen) -> int:
        """Return how often a file was begun and not brought to an end."""
        return self._tries.get(seen, 0)

    def begin(self, seen: Seen) -> None:
        """Remember that a file is being read now: it may end the process."""
        self._note(seen, self.tries(seen) + 1)

    def interrupted(self, seen: Seen) -> None:
        """Take back a begin: the process is told to end amid the file, which is not its fault."""
        self._note(seen, self.tries(seen) - 1)

    def has_grown(self, seen: Seen) -> bool:
        """Tell whether the file was read when it was shorter."""
        old = self._by_name.get(seen.name)
        return old is not None and old.inode == seen.inode and old.size < seen.size

    def close(self) -> None:
        """Close the file."""
        with suppress(OSError):
            self._stream.close()

    def _note(self, seen: Seen, tries: int) -> None:
        self._tries.pop(seen, None)
        if tries > 0:
            self._tries[seen] = tries
            while len(self._tries) > MAX_BEGUN:
                self._tries.popitem(last=False)
        with suppress(OSError):  # a full disk: what ends the process does so once more
            _replace(self._begun_path, "".join(_line(*begun) for begun in self._tries.items()))

    def _add(self, seen: Seen) -> None:
        self._known[seen] = None
        self._by_name[seen.name] = seen
        while len(self._known) > MAX_READ:
            old, _ = self._known.popitem(last=False)
            if self._by_name.get(old.name) == old:
                del self._by_name[old.name]


def _lines(path: Path) -> Iterator[tuple[Seen, int]]:
    """Yield the files that a log names, and how often they were begun."""
    for line in path.read_bytes().splitlines() if path.exists() else ():
        with suppress(ValueError, TypeError, KeyError):  # a line that a crash cut
            said = json.loads(line)
            seen = Seen(str(said["name"]), int(said["size"]), int(said["inode"]))
            yield seen, int(said.get("tries", 0))


def _replace(path: Path, text: str) -> None:
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(text, encoding="ascii")
    fresh.replace(path)


def _line(seen: Seen, tries: int = 0) -> str:
    # ASCII: a name on disk is any bytes, and those that are no UTF-8 stand in ours as half
    # surrogates, which JSON can escape and UTF-8 cannot say.
    return json.dumps(seen._asdict() | ({"tries": tries} if tries else {})) + "\n"
