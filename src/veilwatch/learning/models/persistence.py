"""Writing a model folder, and reading one without believing it."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from veilwatch.errors import ModelError, VeilwatchError
from veilwatch.files import make_folder, output_error, write_text
from veilwatch.learning.detectors import DETECTORS, Detector
from veilwatch.learning.detectors.family import FEATURE_SETS, FamilyModel
from veilwatch.learning.features import feature_schema
from veilwatch.learning.models.manifest import FORMAT, FeatureCard, ModelManifest
from veilwatch.learning.models.model import CHANNEL_DETECTOR, WINDOW_DETECTOR, Model
from veilwatch.schema.features import FeatureSchema

MANIFEST: Final = "model.json"

MEMBER: Final = re.compile(r"(member|window|channel|host)-\d{1,3}", re.ASCII)
"""What the folder of a detector is called; no such name leaves the model's folder."""

FAMILY: Final = "family"
"""What the folder of the trees that name families is called, in a model that has them."""

MAX_MANIFEST_BYTES: Final = 64 * 1024 * 1024
"""Largest manifest read: a quarter of a million training captures take 40 MB."""

MAX_MEMBERS: Final = 64
"""Most detectors whose scores one model averages."""


def save_model(folder: Path, model: Model) -> Path:
    """Write a model folder whole or not at all; an older model there is replaced.

    Parameters
    ----------
    model
        Its manifest names the folder of each member; the manifest's `files` are filled in here.

    Raises
    ------
    OutputError
        If the place cannot be written to; an older model there is unharmed.
    ModelError
        If `folder` is a file, or holds something that is not part of a model.
    """
    folder = folder.resolve()  # a link to the current model keeps pointing at it
    _refuse_strangers(folder)
    make_folder(folder.parent)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as name:
            made, older = Path(name) / "made", Path(name) / "older"
            made.mkdir()
            _write(made, model)
            _exchange(made, folder, older)
    except OSError as error:
        raise output_error(folder, error) from error
    return folder


def _refuse_strangers(folder: Path) -> None:
    """Refuse to replace what is not a model, or what lies beside one: somebody may want it."""
    if not folder.exists():
        return
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError as error:
        raise output_error(folder, error) from error
    strangers = [
        name for name in names if name not in (MANIFEST, FAMILY) and not MEMBER.fullmatch(name)
    ]
    if strangers or (names and MANIFEST not in names):
        raise ModelError(
            "the folder holds something that is not a model",
            where=folder / min(strangers, default=""),
            hint="name an empty or new folder",
        )


def _write(folder: Path, model: Model) -> None:
    manifest, families = model.manifest, model.families
    if (families is None) != (manifest.families is None):
        raise ValueError("the manifest and the model disagree about families")
    parts: list[Detector | FamilyModel] = [
        *(*model.members, *model.windows, *model.channels, *model.hosts),
        *([families] if families else []),
    ]
    files = {}
    for name, part in zip(_folders(manifest), parts, strict=True):
        (folder / name).mkdir()
        for file in part.save(folder / name):
            files[f"{name}/{file}"] = _sha256(folder / name / file)
    document = manifest.model_copy(update={"files": files})
    write_text(folder / MANIFEST, document.model_dump_json(indent=1) + "\n")


def _folders(manifest: ModelManifest) -> list[str]:
    """Return the folders that a model consists of, in the order of its parts."""
    return [
        *(name for names in _members(manifest) for name in names),
        *([FAMILY] if manifest.families else []),
    ]


def _members(manifest: ModelManifest) -> list[list[str]]:
    """Return the folders of the detectors of each kind."""
    card = manifest.hosts
    more = [card.windows.members, card.channels.members, card.members] if card else []
    return [manifest.members, *more]


def _exchange(made: Path, folder: Path, older: Path) -> None:
    """Put `made` where `folder` is; if that fails, `folder` is as it was."""
    if not folder.exists():
        made.rename(folder)
        return
    try:
        folder.rename(older)
        made.rename(folder)
    except BaseException:
        if not folder.exists():
            older.rename(folder)
        raise


def check_model(folder: Path) -> ModelManifest:
    """Return the manifest of a model folder that can be served, without loading a detector.

    Raises
    ------
    ModelError
        If it is missing, damaged, of another format, or trained on another feature schema.
    """
    path = folder / MANIFEST
    try:
        manifest = _read_manifest(path)
        _check_files(folder, manifest)
    except OSError as error:
        raise ModelError(
            f"cannot read: {error.strerror or error}", where=error.filename or path
        ) from error
    # By its features: asking the detector would load its library.
    unit = _card_schema(manifest.features, path).unit
    if card := manifest.hosts:
        if unit != "flow":
            raise ModelError(
                f"{manifest.detector} does not judge flows, and has windows", where=path
            )
        for features in (card.windows.features, card.channels.features, card.features):
            _card_schema(features, path)
    if manifest.families:
        _schema(FEATURE_SETS, False, manifest.families.features, path)
    return manifest


def load_model(folder: Path) -> Model:
    """Read a model folder.

    Raises
    ------
    ModelError
        As `check_model`, or if a file of a detector cannot be read.
    """
    manifest, path = check_model(folder), folder / MANIFEST
    members = _load(folder, manifest.detector, manifest.features, manifest.members)
    windows: list[Detector] = []
    channels: list[Detector] = []
    hosts: list[Detector] = []
    if card := manifest.hosts:
        windows = _load(folder, WINDOW_DETECTOR, card.windows.features, card.windows.members)
        channels = _load(folder, CHANNEL_DETECTOR, card.channels.features, card.channels.members)
        schema = _card_schema(card.features, path)
        # Here, so that whoever only checks a model loads no library of trees.
        from veilwatch.learning.detectors.host import HostDetector

        hosts = [HostDetector.load(folder / name, schema) for name in card.members]
    families = None
    if names := manifest.families:
        schema = _schema(FEATURE_SETS, False, names.features, path)
        families = FamilyModel.load(folder / FAMILY, schema, names.names)
    return Model(members, manifest, families, windows, channels, hosts)


def _load(folder: Path, detector: str, card: FeatureCard, names: Sequence[str]) -> list[Detector]:
    schema = _card_schema(card, folder / MANIFEST)
    return [DETECTORS[detector].load(folder / name, schema) for name in names]


def _card_schema(card: FeatureCard, path: Path) -> FeatureSchema:
    return _schema(card.sets, card.shortcuts, card.hash, path)


def _read_manifest(path: Path) -> ModelManifest:
    """Read a manifest that this version can serve."""
    if not path.is_file():
        raise ModelError(
            "no model here", where=path.parent, hint="train one with veilwatch train --out DIR"
        )
    if path.stat().st_size > MAX_MANIFEST_BYTES:
        raise ModelError("the manifest is too large to be one", where=path)
    try:
        manifest = ModelManifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, fault["loc"]))
        raise ModelError(
            f"cannot read the manifest: {field or 'JSON'}: {fault['msg']}",
            where=path,
            hint="train the model anew",
        ) from error
    if manifest.format != FORMAT:
        raise ModelError(
            f"unknown model format {manifest.format}",
            where=path,
            hint="train the model anew with this version",
        )
    if manifest.detector not in DETECTORS:
        raise ModelError(
            f"unknown detector {manifest.detector!r}",
            where=path,
            hint=f"this version has: {', '.join(DETECTORS)}",
        )
    for names in _members(manifest):
        if not 0 < len(names) <= MAX_MEMBERS:
            raise ModelError(f"{len(names)} members, a model has 1 to {MAX_MEMBERS}", where=path)
    return manifest


def _check_files(folder: Path, manifest: ModelManifest) -> None:
    """Refuse a folder that does not hold exactly the files that were written into it."""
    for name in (name for names in _members(manifest) for name in names):
        if not MEMBER.fullmatch(name):
            raise ModelError(f"{name!r} cannot be a member", where=folder / MANIFEST)
    for name in _folders(manifest):
        part = folder / name
        if part.is_symlink() or not part.is_dir():
            raise _changed(folder, name)
    found = {
        file.relative_to(folder).as_posix(): file
        for name in _folders(manifest)
        for file in (folder / name).iterdir()
    }
    for name in sorted(found.keys() | manifest.files.keys()):
        file, expected = found.get(name), manifest.files.get(name)
        # A link or a device could show another content to whoever reads it next.
        if file is None or file.is_symlink() or not file.is_file() or _sha256(file) != expected:
            raise _changed(folder, name)


def _changed(folder: Path, name: str) -> ModelError:
    return ModelError(
        f"{name!r} is missing, or was changed after training",
        where=folder,
        hint="train the model anew or restore it from a backup",
    )


def _schema(sets: Sequence[str], shortcuts: bool, trained_on: str, path: Path) -> FeatureSchema:
    """Return this version's schema of the model's feature sets, if it is still the same."""
    try:
        schema = feature_schema(sets, shortcuts=shortcuts)
    except VeilwatchError as error:
        raise ModelError(
            error.what, where=path, hint="train the model anew with this version"
        ) from error
    if schema.hash != trained_on:
        raise ModelError(
            f"the model was trained on feature schema {trained_on}, this version has {schema.hash}",
            where=path,
            hint="train the model anew with this version",
        )
    return schema


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
