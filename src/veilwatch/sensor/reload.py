"""What of a configuration takes effect while the sensor runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from veilwatch.sensor.config import SensorConfig
from veilwatch.sensor.load import load_config

RELOADED: Final = ("alerts", "model", "windows")
"""Sections of the configuration that SIGHUP reads anew; others are what processes are built of."""


def reread(
    config: SensorConfig, file: Path | None, overrides: tuple[str, ...]
) -> tuple[SensorConfig, list[str]]:
    """Read a configuration anew.

    Parameters
    ----------
    config
        What is in effect.
    file, overrides
        Where it came from; without a file nothing can have changed.

    Returns
    -------
    SensorConfig, list of str
        What is in effect from now on, and the keys that changed and wait for the next start.

    Raises
    ------
    VeilwatchError
        If the file cannot be read.
    """
    if file is None:
        return config, []
    fresh = load_config(file, environment=os.environ, overrides=overrides).config
    merged = config.model_copy(update={section: getattr(fresh, section) for section in RELOADED})
    later = [
        f"{section}.{key}"
        for section, model in fresh
        for key, value in model
        if value != getattr(getattr(merged, section), key)
    ]
    return merged, later
