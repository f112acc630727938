"""Detectors by name, each imported when it is first asked for."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from importlib import import_module
from importlib.metadata import EntryPoint

from veilwatch import plugins
from veilwatch.errors import PluginError
from veilwatch.learning.detectors.base import Detector


class DetectorTable(MutableMapping[str, type[Detector]]):
    """A dictionary of detectors: our own, and those that other packages bring.

    Their libraries take seconds to load, and a run needs one of them. Other packages are looked for
    only when a name is asked for that is none of ours, or all names are. A package cannot replace
    one of our own.

    Parameters
    ----------
    classes
        Class of each detector by its name, which is also that of its module in this package.
    """

    def __init__(self, **classes: str) -> None:
        self._classes = classes
        self._loaded: dict[str, type[Detector]] = {}

    def __getitem__(self, name: str) -> type[Detector]:
        if name not in self._loaded:
            self._loaded[name] = self._own(name) if name in self._classes else self._other(name)
        return self._loaded[name]

    def __setitem__(self, name: str, detector: type[Detector]) -> None:
        self._classes[name], self._loaded[name] = detector.__name__, detector

    def __delitem__(self, name: str) -> None:
        del self._classes[name]
        self._loaded.pop(name, None)

    def __contains__(self, name: object) -> bool:
        return name in self._classes or name in _installed()

    def __iter__(self) -> Iterator[str]:
        yield from self._classes
        yield from (name for name in _installed() if name not in self._classes)

    def __len__(self) -> int:
        return len(self._classes.keys() | _installed().keys())

    def code_version(self, name: str) -> str:
        """Return what tells the code of an installed detector from an older one, '' for our own."""
        installed = name not in self._classes and name in _installed()
        return plugins.version_of(_installed()[name]) if installed else ""

    def _own(self, name: str) -> type[Detector]:
        module = import_module(f"veilwatch.learning.detectors.{name}")
        kind: type[Detector] = getattr(module, self._classes[name])
        return kind

    def _other(self, name: str) -> type[Detector]:
        entry = _installed()[name]
        kind: type[Detector] = plugins.load(entry)
        # The protocol's members can be looked for in a class as well as in an object of it.
        if not (isinstance(kind, type) and _has_members(kind) and kind.name == name):
            raise PluginError(
                f"{entry.value} is no detector of the name {name!r}",
                hint="veilwatch.check_detector says what it has to do",
            )
        return kind


def _has_members(kind: object) -> bool:
    return isinstance(kind, Detector)


def _installed() -> dict[str, EntryPoint]:
    return plugins.plugins(plugins.DETECTORS)
