"""Detectors by name, each imported when it is first asked for."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from importlib import import_module

from veilwatch.learning.detectors.base import Detector


class DetectorTable(MutableMapping[str, type[Detector]]):
    """A dictionary of detectors. Their libraries take seconds to load, and a run needs one of them.

    Parameters
    ----------
    classes
        Class of each detector by its name, which is also that of its file in this room.
    """

    def __init__(self, **classes: str) -> None:
        self._classes = classes
        self._loaded: dict[str, type[Detector]] = {}

    def __getitem__(self, name: str) -> type[Detector]:
        if name not in self._loaded:
            kind = self._classes[name]
            self._loaded[name] = getattr(
                import_module(f"veilwatch.learning.detectors.{name}"), kind
            )
        return self._loaded[name]

    def __setitem__(self, name: str, detector: type[Detector]) -> None:
        self._classes[name], self._loaded[name] = detector.__name__, detector

    def __delitem__(self, name: str) -> None:
        del self._classes[name]
        self._loaded.pop(name, None)

    def __contains__(self, name: object) -> bool:
        return name in self._classes

    def __iter__(self) -> Iterator[str]:
        return iter(self._classes)

    def __len__(self) -> int:
        return len(self._classes)
