"""Print the tests of what was changed since a branch: those of each changed module's twin folder.

A test file stands for itself, a module for its twin, or for its package's tests where it has none;
a fixture or a helper of tests for the folder that it lies in. `make check` runs what is printed.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Final

from scripts.twin_tests import ROOT, twins

PACKAGE: Final = ("src", "veilwatch")


def changed(base: str) -> list[str]:
    """Return files that differ from where `base` was left, committed or not."""

    def git(*words: str) -> str:
        command = ["git", *words]  # with names of files and of a branch, and no shell
        return subprocess.run(  # noqa: S603
            command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
        ).stdout

    fork = git("merge-base", base, "HEAD").strip()
    names = git("diff", "--name-only", "-z", fork) + git(
        "ls-files", "--others", "--exclude-standard", "-z"
    )
    return sorted({name for name in names.split("\0") if name})


def tests_of(name: str, root: Path) -> PurePosixPath | None:
    """Return the tests of a changed file, None where it has none of its own.

    Examples
    --------
    >>> str(tests_of("tests/store/samples.py", ROOT))
    'tests/store'
    >>> str(tests_of("docs/store.md", ROOT))
    'tests/test_docs.py'
    """
    path = PurePosixPath(name)
    if path.suffix == ".md":
        return PurePosixPath("tests/test_docs.py")
    if path.suffix != ".py":
        return None
    if path.parts[0] == "tests":
        own = path if path.name.startswith("test_") else path.parent
        # What all tests share is tested by all, which is `make test`.
        return own if own.parent.name else None
    if path.parts[:2] != PACKAGE:
        return None
    module = PurePosixPath(*path.parts[2:])
    packages = [PurePosixPath("tests", *folder.parts) for folder in module.parents if folder.name]
    return next((place for place in (*twins(module), *packages) if (root / place).exists()), None)


def chosen(names: Iterable[str], root: Path) -> list[str]:
    """Return files and folders of tests, none within another."""
    found = {place for name in names if (place := tests_of(name, root)) and (root / place).exists()}
    return sorted(str(place) for place in found if not found.intersection(place.parents))


def main() -> None:
    """Print what to run, one path a line."""
    for place in chosen(changed(*sys.argv[1:2] or ["main"]), ROOT):
        print(place)


if __name__ == "__main__":
    main()
