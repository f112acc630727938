"""From an evaluation as `veilwatch evaluate --json` writes it to its document."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from veilwatch.report.evaluation import document as doc
from veilwatch.schema.text import visible

LEVELS: Final = (
    *("flow", "flow_tls", "host_window", "channel", "capture", "capture_with_windows"),
    *("used_host_x1", "used_host_x3"),
)
"""Levels of an evaluation in the order in which they are shown."""

SHOWN_FAMILIES: Final = 60

SHOWN_KINDS: Final = 40
"""Kinds of benign traffic in the table of false alarms, those with most of them first."""

MAX_CURVE: Final = 400
"""Points kept of a ROC curve: more than a page has pixels for."""


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
                detection_rate=rate(figures.get("detection_rate")),
            )
            for name, figures in sorted(families.items(), key=lambda item: -item[1]["n"])
        )[:SHOWN_FAMILIES],
        kinds=_kinds(evaluation.get("benign_kinds") or {}),
    )


def _kinds(counts: Mapping[str, Mapping[str, Any]]) -> tuple[doc.KindFigures, ...]:
    kinds = [
        doc.KindFigures(name=visible(str(name)), n=int(count["n"]), alerted=int(count["alerted"]))
        for name, count in counts.items()
    ]
    return tuple(sorted(kinds, key=lambda kind: (-kind.alerted, -kind.n, kind.name))[:SHOWN_KINDS])


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
        roc_auc=rate(level.get("roc_auc")),
        average_precision=rate(level.get("average_precision")),
        detection_rate_at_fpr={
            str(key): rate(value)
            for key, value in (level.get("detection_rate_at_fpr") or {}).items()
        },
        detection_rate=rate(level.get("detection_rate")),
        false_positive_rate=rate(level.get("false_positive_rate")),
        curve=tuple(points[:: max(-(-len(points) // MAX_CURVE), 1)]),
    )


def rate(value: Any) -> float | None:
    """Return a number as float; None for what is missing or not a number."""
    if isinstance(value, int | float) and math.isfinite(value):
        return float(value)
    return None
