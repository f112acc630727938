"""Where a sensor keeps things, and what its inputs are called."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from veilwatch.sensor.config import SensorConfig


@dataclass(frozen=True, slots=True)
class StatePaths:
    """Paths within the state folder.

    Attributes
    ----------
    config
        The configuration that names the folder.
    """

    config: SensorConfig

    @property
    def spool(self) -> Path:
        """Events that wait for sinks."""
        return self.config.sensor.state / "spool.db"

    @property
    def socket(self) -> Path:
        """Where the scoring process takes tables."""
        return self.config.sensor.state / "judge.socket"

    @property
    def read_log(self) -> Path:
        """Which files of a folder were read."""
        return self.config.sensor.state / "read.jsonl"

    @property
    def status(self) -> Path:
        """What the sensor last said of itself."""
        return self.config.sensor.state / "status.json"

    @property
    def written(self) -> list[Path]:
        """Files that every run writes: their times tell how late it was."""
        return [self.status, self.spool, self.config.sensor.state / "veilwatch.db"]

    @property
    def inputs(self) -> list[str]:
        """Interfaces, or the folder: what the column `source` counts."""
        capture = self.config.capture
        if capture.folder is not None:
            return [str(capture.folder)]
        return list(capture.interfaces)
