"""The model as this site uses it: with the thresholds that were learned here."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from veilwatch.detection.alerting.site import apply_site
from veilwatch.detection.scoring.unit import check_unit
from veilwatch.errors import ModelError
from veilwatch.learning.models import Model, ModelManifest, check_model, load_model
from veilwatch.learning.models.persistence import MANIFEST
from veilwatch.sensor import settings
from veilwatch.sensor.config import SensorConfig

EMULATED: Final = (
    "the model was trained on emulated traffic: it shows that the chain works, and not what it "
    "finds in real traffic"
)
"""What people are told of such a model, where it is put to use."""


def model_identity(folder: Path) -> str:
    """Return what tells one model from every other: a hash of its manifest, which has all others.

    Raises
    ------
    ModelError
        If there is no manifest.
    """
    try:
        return hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise ModelError(
            f"cannot read: {error.strerror or error}", where=folder / MANIFEST
        ) from error


def load_site_model(config: SensorConfig) -> Model:
    """Return the configured model with the thresholds of the site, if there are any.

    Raises
    ------
    VeilwatchError
        If model or thresholds cannot be read, or do not belong together.
    """
    model = load_model(config.model.folder)
    return replace(model, manifest=_of_site(model.manifest, config))


def check_site_model(config: SensorConfig) -> ModelManifest:
    """Refuse what `load_site_model` would refuse, without loading a detector; return its manifest.

    Raises
    ------
    VeilwatchError
        If model or thresholds cannot be read, do not belong together, or are not of flows.
    """
    manifest = check_model(config.model.folder)
    check_unit(manifest)
    return _of_site(manifest, config)


def _of_site(manifest: ModelManifest, config: SensorConfig) -> ModelManifest:
    """Put the thresholds of the site in the place of the model's own."""
    site = settings.site(config)
    if site is None:
        return manifest
    identity = model_identity(config.model.folder)
    changed: dict[str, Any] = {"thresholds": apply_site(manifest.thresholds, site, model=identity)}
    if manifest.hosts and site.group:
        changed["hosts"] = manifest.hosts.model_copy(update={"threshold": site.group.threshold})
    return manifest.model_copy(update=changed)
