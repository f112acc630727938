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
    flow_threshold: Scores | float,
    capture_threshold: Scores | float,
) -> dict[str, Any]:
    """Return the figures of scored flows on every level and for every family.

    Parameters
    ----------
    score
        Flow scores in 0…1, shape (flows,); NaN for flows that were set aside.
    captures
        Score of each capture, shape (captures,); NaN for a capture without flows or set aside.
    labels
        Truth of the same flows and captures.
    entries
        The captures.
    flow_threshold, capture_threshold
        The model's own thresholds; one for each flow and capture where several models scored.

    Returns
    -------
    dict
        `flow`, `flow_tls`, `capture` (see `veilwatch.evaluation.metrics.measure`), `families`
        and `supported_false_positive_rate` by level.
    """
    flow_alert, capture_alert = score >= flow_threshold, captures >= capture_threshold
    levels = measure_levels(
        score,
        captures,
        labels,
        flow_threshold=flow_threshold,
        capture_threshold=capture_threshold,
    )
    return {
        **levels,
        "families": _families(
            ~np.isnan(score), flow_alert, captures, capture_alert, labels, entries
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
    flow_threshold: Scores | float,
    capture_threshold: Scores | float,
) -> dict[str, dict[str, Any]]:
    """Return the figures of flows, of encrypted flows and of captures.

    Parameters are those of `evaluate_scores`; what scores NaN takes no part.
    """
    used, seen = ~np.isnan(score), ~np.isnan(captures)
    tls = used & labels.encrypted
    flow_limit = np.broadcast_to(flow_threshold, score.shape)
    capture_limit = np.broadcast_to(capture_threshold, captures.shape)
    return {
        "flow": measure(score[used], labels.malicious[used], flow_limit[used]),
        "flow_tls": measure(score[tls], labels.malicious[tls], flow_limit[tls]),
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
    flow_alert: npt.NDArray[np.bool_],
    captures: Scores,
    capture_alert: npt.NDArray[np.bool_],
    labels: Labels,
    entries: Sequence[CaptureEntry],
) -> dict[str, dict[str, Any]]:
    """Return for each malicious family how many captures (and flows) were found."""
    names = np.array([entry.family or "unnamed" for entry in entries])
    seen = labels.capture_malicious & ~np.isnan(captures)
    out = {}
    for family in sorted(set(names[seen].tolist())):
        mine = seen & (names == family)
        flows = used & mine[labels.capture]
        out[family] = {
            "n": int(mine.sum()),
            "detection_rate": float(np.mean(capture_alert[mine])),
            "n_flows": int(flows.sum()),
            "flow_detection_rate": float(np.mean(flow_alert[flows])),
            "is_ransomware": any(entries[int(i)].is_ransomware for i in np.flatnonzero(mine)),
        }
    return out
