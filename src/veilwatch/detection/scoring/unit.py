"""What a model must judge to be used here."""

from __future__ import annotations

from veilwatch.errors import ModelError
from veilwatch.learning.models import ModelManifest, unit_of


def check_unit(manifest: ModelManifest) -> None:
    """Refuse a model that judges something other than flows.

    Raises
    ------
    ModelError
        If it does.
    """
    unit = unit_of(manifest)
    if unit != "flow":
        raise ModelError(
            f"{manifest.detector} judges {unit.replace('_', ' ')}s, not flows",
            hint="take a model of flows, host windows may be part of it; "
            "veilwatch evaluate takes this one",
        )
