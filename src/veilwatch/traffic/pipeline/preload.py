"""Loading ahead what is imported late, for a process that becomes a user who cannot read us.

A clone under a home of mode 0700 is read by its owner and by root. What root imports after it has
become somebody else is not there: libraries import parts of themselves when these are first needed,
also to print an error.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import pwd
import stat
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Final

PACKAGES: Final = (
    *("rich", "encodings", "numba.core", "numba.np", "numba.cpython", "polars"),
    *("pydantic", "typer", "multiprocessing", "concurrent.futures", "pyarrow.parquet", "traceback"),
    *("veilwatch.schema", "veilwatch.traffic", "veilwatch.export", "veilwatch.sinks"),
)
"""What is loaded whole: the packages that work on an interface, and what they import late."""

LEFT_OUT: Final = (
    *("__main__", "_win32", "_windows", "windows", ".mbcs", ".oem", ".tests", ".testing"),
    *("polars.ml", "polars.io.cloud", "polars.io.database", "polars.io.delta"),
    *("polars.io.iceberg", "polars.io.spreadsheet", "polars.io.clipboard", "tbbpool"),
    *("pretty_annotate", "veilwatch.sinks.kafka", "pydantic.v1", "mypy", "hypothesis"),
)
"""Parts of names that are not: for other systems, for tests, or slow to load and not used."""


def load_modules() -> None:
    """Import everything that may be wanted later; a second or two."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for package in PACKAGES:
            with suppress(Exception):  # a part of a library that does not load is none we need
                module = importlib.import_module(package)
                for found in pkgutil.walk_packages(
                    getattr(module, "__path__", ()), f"{package}.", onerror=lambda name: None
                ):
                    if not any(part in found.name for part in LEFT_OUT):
                        with suppress(Exception):
                            importlib.import_module(found.name)


def unreadable_for(user: str | None) -> Path | None:
    """Return what keeps a user from reading this installation, None where nothing does.

    Parameters
    ----------
    user
        Name of the user; None for whoever we are.
    """
    try:
        entry = pwd.getpwnam(user) if user else None
    except KeyError:
        return None  # who drops privileges says that there is no such user
    if entry is None or entry.pw_uid in (0, os.geteuid()):
        return None
    groups = set(os.getgrouplist(entry.pw_name, entry.pw_gid))
    places = {Path(__file__).resolve().parents[2], *(Path(p).absolute() for p in sys.path if p)}
    for place in sorted(places):
        for folder in (*reversed(place.parents), place):
            try:
                status = folder.stat()
            except OSError:
                break
            if not _may_enter(status, entry.pw_uid, groups):
                return folder
    return None


def _may_enter(status: os.stat_result, uid: int, groups: set[int]) -> bool:
    if status.st_uid == uid:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid in groups:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)
