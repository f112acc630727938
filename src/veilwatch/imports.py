"""Making libraries leave out what they would load beside themselves."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from types import ModuleType


class _Hiding(MetaPathFinder):
    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> None:
        """Refuse what is hidden; leave all else to the finders that follow."""
        if name in self._names:
            raise ModuleNotFoundError(f"{name} is left out", name=name)


@contextmanager
def hidden(*names: str) -> Iterator[None]:
    """Let imports of modules that are not loaded yet fail while the block runs.

    For what a library asks for, does without where it is missing, and takes longer to load than
    itself. It goes without it for the rest of the process then: for the command line, which knows
    what its process does, and not for those who import us.

    Examples
    --------
    >>> with hidden("this"):
    ...     import this
    Traceback (most recent call last):
        ...
    ModuleNotFoundError: this is left out
    """
    finder = _Hiding(names)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
