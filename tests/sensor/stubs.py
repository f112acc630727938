"""Stand-ins for what a process of the sensor has around it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from veilwatch.sensor.config import SensorConfig
from veilwatch.sensor.load import load_config


def stand_in(part: object) -> Any:
    """Return a stand-in, for a parameter whose type asks for the real thing.

    That one argument is not checked then; the others of the call are.
    """
    return part


class StubHeart:
    """A heart without a parent; `beats` is how many it has before it is told to stop."""

    def __init__(self, beats: float = float("inf")) -> None:
        self.stopping = False
        self.told = False
        self.said: dict[str, Any] = {}
        self._left = beats

    def beat(self, status: Callable[[], dict[str, Any]] = dict) -> None:
        self.said |= status()
        self._left -= 1
        self.stopping = self.stopping or self._left <= 0

    def say(self, status: dict[str, Any]) -> None:
        self.said |= status

    def settled(self) -> None:
        pass

    def busy(self) -> AbstractContextManager[None]:
        return nullcontext()

    def take_reload(self) -> bool:
        told, self.told = self.told, False
        return told


def write_config(folder: Path, text: str = "") -> Path:
    """Write a configuration whose sensor watches a folder; return its file."""
    for name in ("state", "drop"):
        (folder / name).mkdir(mode=0o700, exist_ok=True)
    path = folder / "sensor.toml"
    path.write_text(
        '[sensor]\nname = "ward"\nstate = "state"\n[capture]\nfolder = "drop"\n'
        f'[model]\npath = "model"\n[metrics]\nlisten = "127.0.0.1:0"\n{text}'
    )
    return path


def make_config(folder: Path, text: str = "") -> SensorConfig:
    """Return such a configuration."""
    return load_config(write_config(folder, text)).config
