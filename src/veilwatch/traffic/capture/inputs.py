"""From what the user names to a list of captures, checked before anything is read."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Final

from veilwatch.errors import CaptureError
from veilwatch.progress import SILENT, Progress
from veilwatch.traffic.capture.magic import HINT, NotACapture, recognise
from veilwatch.traffic.capture.source import STDIN, can_reopen, open_source
from veilwatch.traffic.capture.window import Window

MAX_FILES: Final = 100_000
"""Most files of one run: what a day of a capture each second gives. More is a mistaken folder."""

SHOWN_OTHERS: Final = 5
"""Files that are no captures named of a folder; the others are counted."""


Captures = str | Path | Sequence[str | Path]
"""One capture or several: what every function that reads captures takes."""


def as_names(named: Captures) -> list[str]:
    """Return the names of captures; one name is no sequence of letters."""
    return [str(name) for name in ([named] if isinstance(named, str | PathLike) else named)]


class Input:
    """One capture: closed until its turn comes, unless it can be opened only once.

    Attributes
    ----------
    name
        As the user gave it, or found below the folder that the user gave.
    size
        Bytes of the file itself, None for a pipe.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.size: int | None = None
        self._kept: tuple[Window, str] | None = None

    def check(self) -> None:
        """Look at the first bytes.

        Raises
        ------
        CaptureError
            If it cannot be opened; `NotACapture` if it is something else.
        """
        window, kind = self.open()
        if can_reopen(self.name):
            window.close()
            self.size = Path(self.name).stat().st_size
        else:
            self._kept = window, kind

    def open(self, progress: Progress = SILENT) -> tuple[Window, str]:
        """Return the window at the start of the capture, which tells `progress`, and its format.

        Raises
        ------
        CaptureError
            As `check` does.
        """
        if self._kept is not None:
            (window, kind), self._kept = self._kept, None
            window.tell(progress)
            return window, kind
        window = Window(open_source(self.name), progress)
        try:
            return window, recognise(window, self.name)
        except BaseException:
            window.close()
            raise

    def close(self) -> None:
        """Close what `check` kept open."""
        if self._kept is not None:
            self._kept[0].close()


def find_inputs(named: Captures, progress: Progress = SILENT) -> list[Input]:
    """Return every capture that the user named, each once, all checked.

    Raises
    ------
    CaptureError
        If nothing is named, a name leads to nothing, a file that was named is no capture, or a
        folder holds none.
    """
    names = as_names(named)
    if not names:
        raise CaptureError("no capture was named", hint="name a file, a folder or - for a pipe")
    found: dict[str, Input] = {}
    try:
        for name in names:
            if name != STDIN and Path(name).is_dir():
                _search(name, found, progress)
            else:
                for match in _match(name):
                    _claim(match, found)
    except BaseException:
        for opened in found.values():
            opened.close()
        raise
    return list(found.values())


def _claim(name: str, found: dict[str, Input]) -> None:
    """Check the capture `name` and add it, unless it was found under another name already."""
    identity = name if name == STDIN else os.path.realpath(name)
    if identity in found:
        return
    if len(found) == MAX_FILES:
        raise CaptureError(f"more than {MAX_FILES:,} captures", hint="name fewer of them")
    candidate = Input(name)
    candidate.check()
    found[identity] = candidate


def _match(name: str) -> list[str]:
    """Return the files that a pattern matches, or the name itself."""
    if name == STDIN or Path(name).exists() or not glob.has_magic(name):
        return [name]
    found = glob.glob(name, recursive=True)  # noqa: PTH207 - a pattern may be absolute
    matches = sorted(match for match in found if Path(match).is_file())
    if not matches:
        raise CaptureError("no file matches", where=name, hint="check the pattern")
    return matches


def _search(folder: str, found: dict[str, Input], progress: Progress) -> None:
    """Add every capture below `folder`, and say which other files lie among them."""
    captures = others = 0
    names: list[str] = []
    for path in _files_below(folder):
        try:
            _claim(path, found)
            captures += 1
        except NotACapture:
            others += 1
            if others <= SHOWN_OTHERS:
                names.append(os.path.relpath(path, folder))
    said = ", ".join(names) + (f" and {others - len(names):,} more" if others > len(names) else "")
    if not captures:
        seen = f", only {said}" if others else ""
        raise CaptureError(f"no capture in this folder{seen}", where=folder, hint=HINT)
    if others:
        count = (
            "1 file is no capture and was"
            if others == 1
            else (f"{others:,} files are no captures and were")
        )
        progress.note(f"{folder}: {count} left out: {said}")


def _files_below(folder: str) -> Iterator[str]:
    for parent, folders, files in os.walk(folder):
        folders.sort()
        for file in sorted(files):
            path = os.path.join(parent, file)  # noqa: PTH118 - the name as the user began it
            if Path(path).is_file():
                yield path
