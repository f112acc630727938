"""What a report says of the model: its card, and whether it learned from these inputs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import polars as pl

from veilwatch.learning.features.sketch import seen_share
from veilwatch.learning.models import Model
from veilwatch.progress import SILENT, Progress
from veilwatch.report.detection.document import Origin
from veilwatch.schema.text import visible

MAX_HASHED: Final = 1 << 32
"""Largest input of which the content is compared with the training captures, in bytes: four seconds
of reading. Larger ones are told by their flows alone."""

SHOWN_LEARNED: Final = 5
"""Inputs that are named where the model learned from them."""


def describe_model(model: Model) -> dict[str, Any]:
    """Return what the report says of the model; see `veilwatch.report.detection.model`."""
    manifest = model.manifest
    corpus = manifest.corpus
    return {
        "name": manifest.name,
        "target_fpr": manifest.thresholds.target_false_positive_rate,
        "held_out": manifest.held_out,
        "prior": model.calibration.prior,
        "detector": manifest.detector,
        "features": f"{len(manifest.features.names)} ({', '.join(manifest.features.sets)})",
        "trained": manifest.created,
        "malicious captures": corpus.malicious_captures,
        "benign captures": corpus.benign_captures,
        "malicious flows": corpus.malicious_units,
        "benign flows": corpus.benign_units,
        "corpus": "emulated" if corpus.emulated else "real captures",
        "members": len(manifest.members),
        "feature schema": manifest.features.hash,
        "Veilwatch": manifest.veilwatch,
    }


def find_origin(
    model: Model, flows: pl.DataFrame, names: Sequence[str], progress: Progress = SILENT
) -> Origin:
    """Say whether the model was made of emulated traffic, or of what it judges here.

    Parameters
    ----------
    flows
        Flows of the run.
    names
        Its inputs.
    """
    corpus = model.manifest.corpus
    known = set(corpus.captures.values())
    progress.start("comparing with what the model learned from", len(names))
    learned = []
    for name in names:
        if _content_hash(Path(name)) in known:
            learned.append(visible(Path(name).name))
        progress.advance()
    return Origin(
        emulated=corpus.emulated,
        learned=tuple(learned[:SHOWN_LEARNED]),
        more_learned=max(len(learned) - SHOWN_LEARNED, 0),
        learned_flows=round(seen_share(flows, corpus.flow_sketch), 4),
    )


def _content_hash(file: Path) -> str:
    """Return the SHA-256 of a file that is not too large, '' of anything else."""
    try:
        if not file.is_file() or file.stat().st_size > MAX_HASHED:
            return ""
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return ""  # it may be gone by now; its flows are compared all the same
