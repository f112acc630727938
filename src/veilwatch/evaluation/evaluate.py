"""The evaluation document: one typed result that JSON, console and page render."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from veilwatch.corpus.manifest import CaptureEntry
from veilwatch.evaluation.calibration import supported_rate
from veilwatch.evaluation.labelled import Labels
from veilwatch.evaluation.metrics import RATES, Scores, measure

RATE_NAMES: Final = ("roc_auc", "average_precision", "detection_rate", "false_positive_rate")
"""Figures of one level of which a mean over folds makes sense."""


def evaluate_scores(
    score: Scores,
    captures: Scores,
    labels: Labels,
    entries: Sequence[CaptureEntry],
    *,
    unit_threshold: Scores | float,
    capture_threshold: Scores | float,
) -> dict[str, Any]:
    """Return the figures of scored units on every level and for every family.

    Parameters
    ----------
    score
        Unit scores in 0…1, shape (units,); NaN for units that were set aside.
    captures
        Score of each capture, shape (captures,); NaN for a capture without units or set aside.
    labels
        Truth of the same units and captures.
    entries
        The captures.
    unit_threshold, capture_threshold
        The model's own thresholds; one for each unit and capture where several models scored.

    Returns
    -------
    dict
        The levels that `measure_levels` gives; `without_background` with the same levels and
        `set_aside`, the number of background flows of infected hosts left out; `families` and
        `supported_false_positive_rate` by level.
    """
    unit_alert, capture_alert = score >= unit_threshold, captures >= capture_threshold
    levels = measure_levels(
        score,
        captures,
        labels,
        unit_threshold=unit_threshold,
        capture_threshold=capture_threshold,
    )
    clean = np.where(labels.background, np.nan, score)
    return {
        **levels,
        "without_background": {
            "set_aside": int((labels.background & ~np.isnan(score)).sum()),
            **measure_levels(
                clean,
                captures,
                labels,
                unit_threshold=unit_threshold,
                capture_threshold=capture_threshold,
            ),
        },
        "families": _families(
            ~np.isnan(score), unit_alert, captures, capture_alert, labels, entries
        ),
        "supported_false_positive_rate": {
            name: supported_rate(level["n_negative"]) for name, level in levels.items()
        },
    }


def measure_levels(
    score: Scores,
    captures: Scores,
    labels: Labels,
    *,
    unit_threshold: Scores | float,
    capture_threshold: Scores | float,
) -> dict[str, dict[str, Any]]:
    """Return the figures of every level that the units give.

    Parameters are those of `evaluate_scores`; what scores NaN takes no part.

    Returns
    -------
    dict
        `capture`, and before it `flow` and `flow_tls` where units are flows, `host_window` where
        they are host windows; each as `veilwatch.evaluation.metrics.measure` gives it.
    """
    used, seen = ~np.isnan(score), ~np.isnan(captures)
    unit_limit = np.broadcast_to(unit_threshold, score.shape)
    capture_limit = np.broadcast_to(capture_threshold, captures.shape)
    levels = {}
    if labels.unit == "flow":
        levels = {"flow": used, "flow_tls": used & labels.encrypted}
    elif labels.unit == "host_window":
        levels = {"host_window": used}
    return {
        **{
            name: measure(score[rows], labels.malicious[rows], unit_limit[rows])
            for name, rows in levels.items()
        },
        "capture": measure(captures[seen], labels.capture_malicious[seen], capture_limit[seen]),
    }


def mean_of_folds(folds: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Return the mean figures of folds that were scored by detectors of their own.

    Detectors of different folds score on different scales. Ranking all their scores together
    asks more than any one of them is ever asked in the field; this is how each did on its own.

    Parameters
    ----------
    folds
        What `measure_levels` says of each fold.

    Returns
    -------
    dict
        By level the figures of `veilwatch.evaluation.metrics.measure` without `threshold` and
        `curve`: rates are means over the `folds` that hold both classes, counts are their sums.
        Rates are None where no fold holds both.
    """
    return {level: _mean([fold[level] for fold in folds]) for level in folds[0]}


def _mean(folds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    whole = [fold for fold in folds if fold["n_positive"] and fold["n_negative"]]

    def mean(values: Sequence[float]) -> float | None:
        return float(np.mean(values)) if values else None

    return {
        "folds": len(whole),
        **{name: sum(fold[name] for fold in whole) for name in ("n_positive", "n_negative")},
        **{name: mean([fold[name] for fold in whole]) for name in RATE_NAMES},
        "detection_rate_at_fpr": {
            rate: mean([fold["detection_rate_at_fpr"][rate] for fold in whole]) for rate in RATES
        },
    }


def _families(
    used: npt.NDArray[np.bool_],
    unit_alert: npt.NDArray[np.bool_],
    captures: Scores,
    capture_alert: npt.NDArray[np.bool_],
    labels: Labels,
    entries: Sequence[CaptureEntry],
) -> dict[str, dict[str, Any]]:
    """Return for each malicious family how many captures (and flows, if units are) were found."""
    names = np.array([entry.family or "unnamed" for entry in entries])
    seen = labels.capture_malicious & ~np.isnan(captures)
    out = {}
    for family in sorted(set(names[seen].tolist())):
        mine = seen & (names == family)
        out[family] = {
            "n": int(mine.sum()),
            "detection_rate": float(np.mean(capture_alert[mine])),
            "is_ransomware": any(entries[int(i)].is_ransomware for i in np.flatnonzero(mine)),
        }
        if labels.unit == "flow":
            flows = used & mine[labels.capture]
            out[family] |= {
                "n_flows": int(flows.sum()),
                "flow_detection_rate": float(np.mean(unit_alert[flows])),
            }
    return out
