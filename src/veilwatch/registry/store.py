"""Writing a model folder, and reading one without believing it."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from veilwatch.detectors import DETECTORS, Detector
from veilwatch.detectors.evidence import log_odds, probability
from veilwatch.errors import ModelError
from veilwatch.features import compute_features, feature_schema
from veilwatch.files import make_folder, output_error, write_text
from veilwatch.registry.manifest import FORMAT, ModelManifest
from veilwatch.schema.features import FeatureFrame
from veilwatch.schema.flows import FlowTable

MANIFEST: Final = "model.json"

MAX_MANIFEST_BYTES: Final = 64 * 1024 * 1024
"""Largest manifest read: a quarter of a million training captures take 40 MB."""

MAX_MEMBERS: Final = 64
"""Most detectors whose scores one model averages."""


@dataclass(frozen=True, slots=True)
class Model:
    """A trained model: detectors whose log-odds are averaged, and its manifest.

    Attributes
    ----------
    members
        One detector for each training fold.
    manifest
        What the model is.
    """

    members: Sequence[Detector]
    manifest: ModelManifest

    def features(self, table: FlowTable) -> FeatureFrame:
        """Compute the features that the model was trained on."""
        card = self.manifest.features
        return compute_features(table, card.sets, shortcuts=card.shortcuts)

    def score(self, features: FeatureFrame) -> npt.NDArray[np.float64]:
        """Return the score of each flow in 0…1, shape (flows,)."""
        return mean_score(self.members, features)

    def explain(self, features: FeatureFrame) -> npt.NDArray[np.float64]:
        """Return what each feature adds to the log-odds, shape (flows, features)."""
        parts = [member.explain(features) for member in self.members]
        return np.asarray(np.mean(parts, axis=0))


def mean_score(members: Sequence[Detector], features: FeatureFrame) -> npt.NDArray[np.float64]:
    """Average detectors in log-odds; shape (flows,)."""
    odds = [log_odds(member.predict_proba(features)) for member in members]
    return probability(np.mean(odds, axis=0))


def save_model(folder: Path, members: Sequence[Detector], manifest: ModelManifest) -> Path:
    """Write a model folder whole or not at all; an older model there is replaced.

    Parameters
    ----------
    manifest
        Its `files` are filled in here.

    Raises
    ------
    OutputError
        If the place cannot be written to.
    ModelError
        If `folder` holds something that is not a model.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / MANIFEST).is_file():
        raise ModelError(
            "the folder holds something that is not a model",
            where=folder,
            hint="name an empty or new folder",
        )
    make_folder(folder.parent)
    try:
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise output_error(folder, error) from error
    try:
        files = {}
        for name, member in zip(manifest.members, members, strict=True):
            (scratch / name).mkdir()
            for file in member.save(scratch / name):
                files[f"{name}/{file}"] = _sha256(scratch / name / file)
        document = manifest.model_copy(update={"files": files})
        write_text(scratch / MANIFEST, document.model_dump_json(indent=1) + "\n")
        scratch.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        scratch.rename(folder)
    except OSError as error:
        raise output_error(folder, error) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def load_model(folder: Path) -> Model:
    """Read a model folder.

    Raises
    ------
    ModelError
        If it is missing, damaged, of another format, or trained on another feature schema.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise ModelError(
            "no model here", where=folder, hint="train one with veilwatch train --out DIR"
        )
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise ModelError("the manifest is too large to be one", where=path)
        manifest = ModelManifest.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        reason = (
            f"{error.error_count()} wrong fields" if isinstance(error, ValidationError) else error
        )
        raise ModelError(
            f"cannot read the manifest: {reason}", where=path, hint="train the model anew"
        ) from error
    _check(folder, manifest)
    card = manifest.features
    schema = feature_schema(card.sets, shortcuts=card.shortcuts)
    if schema.hash != card.hash:
        raise ModelError(
            f"the model was trained on feature schema {card.hash}, this version has {schema.hash}",
            where=path,
            hint="train the model anew with this version",
        )
    detector = DETECTORS[manifest.detector]
    return Model([detector.load(folder / name, schema) for name in manifest.members], manifest)


def _check(folder: Path, manifest: ModelManifest) -> None:
    """Refuse a manifest that this version cannot serve, and files that were changed."""
    path = folder / MANIFEST
    if manifest.format != FORMAT:
        raise ModelError(f"unknown model format {manifest.format}", where=path)
    if manifest.detector not in DETECTORS:
        raise ModelError(f"unknown detector {manifest.detector!r}", where=path)
    if not 0 < len(manifest.members) <= MAX_MEMBERS:
        raise ModelError(f"{len(manifest.members)} members", where=path)
    for name in (*manifest.members, *manifest.files):
        if name.startswith("/") or ".." in Path(name).parts:
            raise ModelError(f"the manifest points outside its folder: {name!r}", where=path)
    for name, expected in manifest.files.items():
        file = folder / name
        if not file.is_file() or _sha256(file) != expected:
            raise ModelError(
                "the file is missing or was changed after training",
                where=file,
                hint="train the model anew or restore it from a backup",
            )


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
