"""What a report says of the model, read from its manifest and its evaluation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

from veilwatch.report import units
from veilwatch.report.detection import document as doc
from veilwatch.report.names import visible
from veilwatch.schema.scores import ScoreFrame

LEVELS: Final = ("flow", "flow_tls", "host_window", "capture", "capture_with_windows")
"""Levels of an evaluation in the order in which they are shown."""

SHOWN_FAMILIES: Final = 60

MAX_CURVE: Final = 400
"""Points kept of a ROC curve: more than a page has pixels for."""

MAX_FACTS: Final = 24

_SHOWN_ELSEWHERE: Final = frozenset(
    {"name", "prior", "thresholds", "flow_threshold", "host_threshold", "target_fpr", "held_out",
     "evaluation"}
)  # fmt: skip


def model_card(manifest: Mapping[str, Any], scores: ScoreFrame) -> doc.ModelCard:
    """Read the card of a model from its manifest.

    Parameters
    ----------
    manifest
        Any of: `name`; `target_fpr`, the false-positive rate that the thresholds stand for;
        `held_out`, figures on its own held-out split in the form of an evaluation; further
        entries, nested one level at most, are listed as facts.
    scores
        For the thresholds that were in force.
    """
    held_out = manifest.get("held_out")
    return doc.ModelCard(
        name=visible(str(manifest.get("name", manifest.get("detector", "")))),
        facts=tuple(_facts(manifest))[:MAX_FACTS],
        flow_threshold=scores.flow_threshold,
        host_threshold=scores.host_threshold,
        target_fpr=_rate(manifest.get("target_fpr")),
        prior=_rate(manifest.get("prior")),
        held_out=evaluation_of(held_out) if isinstance(held_out, Mapping) else None,
    )


def _facts(manifest: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for key, value in manifest.items():
        if key in _SHOWN_ELSEWHERE:
            continue
        if isinstance(value, Mapping):
            inner = [(f"{key}.{name}", item) for name, item in value.items()]
        else:
            inner = [(key, value)]
        for name, item in inner:
            if isinstance(item, bool | int):
                yield visible(name), f"{item:,}" if type(item) is int else str(item)
            elif isinstance(item, str | float) and item != "":
                shown = f"{item:g}" if isinstance(item, float) else units.timestamp(item)
                yield visible(name), visible(shown)


def evaluation_of(evaluation: Mapping[str, Any]) -> doc.Evaluation:
    """Read an evaluation as `veilwatch evaluate --json` writes it; missing figures stay None."""
    families = evaluation.get("families") or {}
    return doc.Evaluation(
        levels=_levels(evaluation),
        fold_levels=_levels(evaluation.get("mean_of_folds") or {}),
        families=tuple(
            doc.FamilyFigures(
                name=visible(str(name)),
                n=int(figures["n"]),
                detection_rate=_rate(figures.get("detection_rate")),
            )
            for name, figures in sorted(families.items(), key=lambda item: -item[1]["n"])
        )[:SHOWN_FAMILIES],
    )


def _levels(evaluation: Mapping[str, Any]) -> dict[str, doc.Figures]:
    return {
        name: _figures(evaluation[name])
        for name in LEVELS
        if isinstance(evaluation.get(name), Mapping)
    }


def _figures(level: Mapping[str, Any]) -> doc.Figures:
    curve = level.get("curve") or {}
    points = list(
        zip(curve.get("false_positive_rate", ()), curve.get("detection_rate", ()), strict=False)
    )
    return doc.Figures(
        n_positive=level["n_positive"],
        n_negative=level["n_negative"],
        roc_auc=_rate(level.get("roc_auc")),
        average_precision=_rate(level.get("average_precision")),
        detection_rate_at_fpr={
            str(key): _rate(value)
            for key, value in (level.get("detection_rate_at_fpr") or {}).items()
        },
        detection_rate=_rate(level.get("detection_rate")),
        false_positive_rate=_rate(level.get("false_positive_rate")),
        curve=tuple(points[:: max(-(-len(points) // MAX_CURVE), 1)]),
    )


def _rate(value: Any) -> float | None:
    """Return a number as float; None for what is missing or not a number."""
    if isinstance(value, int | float) and math.isfinite(value):
        return float(value)
    return None
