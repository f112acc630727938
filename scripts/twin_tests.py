"""Hold every module to a test file of its own, its twin; modules without one are listed.

`src/veilwatch/store/query.py` is tested by `tests/store/test_query.py`; a file may take folders
into its name (`tests/traffic/capture/test_live_ring.py` for `traffic/capture/live/ring.py`). The
list (`tests/without_twin.txt`) only gets shorter: who writes a twin, renames or deletes a module
takes its line out, which `--prune` does.
"""

from __future__ import annotations

import sys
from pathlib import Path, PurePosixPath
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
LIST: Final = PurePosixPath("tests/without_twin.txt")
NOT_TESTED: Final = {"__init__.py", "__main__.py"}
"""Files that hold names of other modules, and no code to test."""


def modules(root: Path) -> list[PurePosixPath]:
    """Return every module, relative to the package."""
    package = root / "src" / "veilwatch"
    found = (path for path in package.rglob("*.py") if path.name not in NOT_TESTED)
    return sorted(PurePosixPath(path.relative_to(package)) for path in found)


def twins(module: PurePosixPath) -> list[PurePosixPath]:
    """Return the files that may be a module's twin, the one in its own folder first.

    Examples
    --------
    >>> [str(path) for path in twins(PurePosixPath("a/b/c.py"))]
    ['tests/a/b/test_c.py', 'tests/a/test_b_c.py', 'tests/test_a_b_c.py']
    """
    parts = module.parts
    return [
        PurePosixPath("tests", *parts[:depth], "test_" + "_".join(parts[depth:]))
        for depth in range(len(parts) - 1, -1, -1)
    ]


def has_twin(root: Path, module: PurePosixPath) -> bool:
    """Whether a module has a test file of its own."""
    return any((root / twin).is_file() for twin in twins(module))


def listed(root: Path) -> list[str]:
    """Return the modules of the list."""
    lines = (root / LIST).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def faults(root: Path) -> list[str]:
    """Return what is wrong with twins and list, one line each."""
    alone = {str(module) for module in modules(root) if not has_twin(root, module)}
    named = listed(root)
    missing = sorted(alone.difference(named))
    stale = [name for name in named if name not in alone]
    twice = sorted({name for name in named if named.count(name) > 1})
    return [
        *(f"{name}: write {twins(PurePosixPath(name))[0]}" for name in missing),
        *(f"{name}: has its twin or is gone; take it out of {LIST}" for name in stale),
        *(f"{name}: stands twice in {LIST}" for name in twice),
    ]


def prune(root: Path) -> None:
    """Take out of the list what has its twin or is gone."""
    alone = {str(module) for module in modules(root) if not has_twin(root, module)}
    lines = (root / LIST).read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if not line or line.startswith("#") or line in alone]
    (root / LIST).write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def main() -> int:
    """Print what is wrong; return the exit code."""
    if sys.argv[1:] == ["--prune"]:
        prune(ROOT)
    found = faults(ROOT)
    print("\n".join(found) or f"{len(listed(ROOT))} modules have no test file of their own")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
