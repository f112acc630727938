"""What a verb writes: never over what is there unasked, and said when it is broken off."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from veilwatch.errors import OutputError
from veilwatch.files import is_device

STDOUT: Final = Path("-")
"""Name of standard output."""

Force = Annotated[bool, typer.Option("--force", help="Replace outputs that exist.")]

NOTHING: Final = "nothing was written"


def output_option(metavar: str, help_text: str, *others: str) -> Any:
    """Return `--output`, `-o`, as every verb has it; `others` are further spellings."""
    return typer.Option("--output", "-o", *others, metavar=metavar, help=help_text)


def check_output(*paths: Path | None, force: bool) -> None:
    """Refuse to write over what is there, before any work is done.

    Standard output, pipes and devices take what they are given.

    Raises
    ------
    OutputError
        If one of the files exists and `force` does not allow to replace it, or is a folder.
    """
    for path in paths:
        if path is None or path == STDOUT or is_device(path):
            continue
        if path.is_dir():
            raise OutputError("is a folder", where=path, hint="name a file in it")
        if not force and (path.exists() or path.is_symlink()):
            raise OutputError("exists already", where=path, hint="--force replaces it")


def check_folder(folder: Path, *names: str, force: bool) -> None:
    """Refuse a folder that holds one of the files that are about to be written into it."""
    if folder.exists() and not folder.is_dir():
        raise OutputError("is no folder", where=folder, hint="name another")
    check_output(*(folder / name for name in names), force=force)


def suffix_of(path: Path, known: tuple[str, ...]) -> str:
    """Return which of some suffixes a file to write has.

    Raises
    ------
    OutputError
        If it has none of them.
    """
    suffix = path.suffix.lower()
    if suffix not in known:
        raise OutputError(
            f"cannot write {suffix or 'a file without suffix'}",
            where=path,
            hint=f"known: {', '.join(known)}",
        )
    return suffix


_left: list[Callable[[], str]] = []


@contextmanager
def leaving(*outputs: Path, kept: str = "") -> Iterator[None]:
    """Remember what a run leaves when it is interrupted within the block.

    Parameters
    ----------
    outputs
        Files that appear whole when they are done; what of them is there is named.
    kept
        What else stays, and what it is good for.
    """
    before = {path: _stamp(path) for path in outputs if path != STDOUT}

    def say() -> str:
        done = [str(path) for path, stamp in before.items() if _stamp(path) not in (stamp, None)]
        words = [f"written: {', '.join(done)}"] if done else [NOTHING] if before else []
        return "; ".join([*words, kept] if kept else words or [NOTHING])

    _left.append(say)
    try:
        yield
    except KeyboardInterrupt:
        raise  # whoever ends the run asks what it left
    except BaseException:
        _left.remove(say)  # an error says for itself what it means
        raise
    _left.remove(say)


def left() -> str:
    """Return what an interrupted run left behind."""
    said = [say() for say in _left]
    _left.clear()
    return "; ".join(said) or NOTHING


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_mtime_ns, about.st_ino
