"""Detectors and sinks of other packages, found by their entry points.

A package names them in its metadata, and nothing of it is imported until one is asked for:

    [project.entry-points."veilwatch.detectors"]
    centroid = "package.module:CentroidDetector"

What is installed beside Veilwatch runs with its rights, as any dependency does.
"""

from __future__ import annotations

import hashlib
import inspect
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Final

from veilwatch.errors import PluginError

DETECTORS: Final = "veilwatch.detectors"
SINKS: Final = "veilwatch.sinks"
"""Groups of entry points."""


@lru_cache(maxsize=2)
def plugins(group: str) -> dict[str, EntryPoint]:
    """Return the installed plugins of a group by their names; looked for once in a process.

    Raises
    ------
    PluginError
        If two packages give one name: which is meant cannot be told.
    """
    found: dict[str, EntryPoint] = {}
    for entry in sorted(entry_points(group=group), key=lambda entry: entry.name):
        other = found.setdefault(entry.name, entry)
        if other.value != entry.value:
            both = f"{package_of(other)} and {package_of(entry)}"
            raise PluginError(
                f"{entry.name!r} of {group} is given by two packages, {both}",
                hint="remove one of the packages",
            )
    return found


def load(entry: EntryPoint) -> Any:
    """Import what an entry point names.

    Raises
    ------
    PluginError
        If that fails, whatever the plugin's code raises.
    """
    try:
        return entry.load()
    except Exception as error:
        raise PluginError(
            f"plugin {entry.name!r} cannot be loaded: {type(error).__name__}: {error}",
            where=package_of(entry),
            hint="install a version that fits, or remove it",
        ) from error


def version_of(entry: EntryPoint) -> str:
    """Return what tells a plugin's code from an older one: package, version, hash of its source."""
    loaded = load(entry)
    try:
        source = Path(inspect.getfile(loaded)).read_bytes()
    except (OSError, TypeError):  # compiled, or in an archive
        source = b""
    return f"{package_of(entry)} {hashlib.sha256(source).hexdigest()}"


def package_of(entry: EntryPoint) -> str:
    """Return the package that an entry point belongs to."""
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value
