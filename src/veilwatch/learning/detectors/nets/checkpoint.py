"""The state of a training between epochs, on disk: arrays in NumPy's own format, no pickle."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from veilwatch.files import replacing
from veilwatch.learning.detectors.base import TrainingSet
from veilwatch.learning.detectors.nets.plan import Plan

FORMAT: Final = 1
"""Raised whenever training changes in a way that an older state cannot go on with."""

MAX_BYTES: Final = 512 * 1024 * 1024
"""Largest state read: MobileNetV2 at its full width takes 40 MB, optimiser and best included."""

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where the state of one training lies.

    Attributes
    ----------
    path
        The file; its name holds a hash over everything that the training depends on, so that no
        state of other data or settings is ever found.
    """

    path: Path

    def load(self) -> Arrays | None:
        """Return the state, None where there is none or it is damaged: training then begins."""
        try:
            if self.path.stat().st_size > MAX_BYTES:
                return None
            with zipfile.ZipFile(self.path) as archive:
                unpacked = sum(item.file_size for item in archive.infolist())
            if unpacked > MAX_BYTES:
                return None
            with np.load(self.path, allow_pickle=False) as archive:
                return dict(archive)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            return None

    def store(self, arrays: Arrays) -> None:
        """Write the state whole or not at all.

        Raises
        ------
        OutputError
            If the folder cannot be written to.
        """
        with replacing(self.path) as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]


def checkpoint_of(
    folder: Path,
    name: str,
    training: TrainingSet,
    parameters: Mapping[str, Any],
    plan: Plan,
    seed: int,
    versions: list[Any],
) -> Checkpoint:
    """Return the place of a training's state.

    Parameters
    ----------
    versions
        Whatever else the result depends on: frameworks, device, threads.
    """
    settings = [FORMAT, name, dict(parameters), asdict(plan), seed, versions]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    digest.update(training.features.schema.hash.encode())
    for part in (training.features.values, training.malicious, training.group, training.weight):
        digest.update(str(part.shape).encode())
        digest.update(np.ascontiguousarray(part).data)
    return Checkpoint(folder / f"{name}-{digest.hexdigest()[:24]}.npz")
