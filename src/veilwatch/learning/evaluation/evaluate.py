"""The evaluation document: one typed result that JSON, console and page render."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from veilwatch.corpus.manifest import CaptureEntry
from veilwatch.learning.evaluation.calibration import supported_rate
from veilwatch.learning.evaluation.kinds import count_kinds
from veilwatch.learning.evaluation.labelled import Labels
from veilwatch.learning.evaluation.metrics import RATES, Scores, mean_curve, measure

RATE_NAMES: Final = ("roc_auc", "average_precision", "detection_rate", "false_positive_rate")
"""Figures of one level of which a mean over folds makes sense."""


CAPTURE: Final = "capture"
"""Level of captures as the judged units alone show them."""

WITH_WINDOWS: Final = "capture_with_windows"
"""Level of captures as flows, channels and host windows together show them."""

USED: Final = "used_host_x"
"""Beginning of the levels of blends: the same captures on hosts that people use too, followed by
how many used hosts each was merged with."""

USED_HOST: Final = f"{USED}1"
"""Level of captures that were merged with one used host: an infected host on a desk."""


@dataclass(frozen=True, slots=True)
class UsedHosts:
    """Blends of captures with hosts that people use, judged as a whole; emulated use.

    Attributes
    ----------
    score
        In 0…1, shape (blends,).
    malicious
        Label of what was merged with used hosts, shape (blends,).
    base
        Index of that capture, shape (blends,).
    threshold
        From which score on a host is an alert; one for each where several models scored.
    """

    score: Scores
    malicious: npt.NDArray[np.bool_]
    base: npt.NDArray[np.int64]
    threshold: Scores | float

    def of(self, captures: npt.NDArray[np.bool_]) -> UsedHosts:
        """Return the same with blends of all other captures set aside."""
        score = np.where(captures[self.base], self.score, np.nan)
        return UsedHosts(score, self.malicious, self.base, self.threshold)


@dataclass(frozen=True, slots=True)
class CaptureScores:
    """Captures judged as a whole.

    Attributes
    ----------
    score
        In 0…1, shape (captures,); NaN for a capture without units or set aside.
    threshold
        From which score on a capture is an alert; one for each where several models scored.
    """

    score: Scores
    threshold: Scores | float

    @property
    def alert(self) -> npt.NDArray[np.bool_]:
        """Whether each capture is an alert, shape (captures,)."""
        return self.score >= self.threshold

    def of(self, captures: npt.NDArray[np.bool_]) -> CaptureScores:
        """Return the same with all other captures set aside."""
        return CaptureScores(np.where(captures, self.score, np.nan), self.threshold)


def evaluate_scores(
    score: Scores,
    captures: Mapping[str, CaptureScores],
    labels: Labels,
    entries: Sequence[CaptureEntry],
    *,
    unit_threshold: Scores | float,
    used: Mapping[int, UsedHosts] | None = None,
) -> dict[str, Any]:
    """Return the figures of scored units on every level and for every family.

    Parameters
    ----------
    score
        Unit scores in 0…1, shape (units,); NaN for units that were set aside.
    captures
        Captures by level, `CAPTURE` first; the last level is what the model decides by, and what
        the figures of families are of.
    labels
        Truth of the same units and captures.
    entries
        The captures.
    unit_threshold
        The model's own threshold; one for each unit where several models scored.
    used
        Blends by how many used hosts were merged with a capture; their levels follow the others.

    Returns
    -------
    dict
        The levels that `measure_levels` gives; `without_background` with the same levels and
        `set_aside`, the number of background flows of infected hosts left out; `families`;
        `benign_kinds`, by kind of benign captures how many there are (`n`) and how many of them
        were alerted; `supported_false_positive_rate` by level.
    """
    decided = list(captures.values())[-1]
    levels = measure_levels(score, captures, labels, unit_threshold=unit_threshold)
    levels |= measure_used(used or {}, decided, labels)
    clean = np.where(labels.background, np.nan, score)
    return {
        **levels,
        "without_background": {
            "set_aside": int((labels.background & ~np.isnan(score)).sum()),
            **measure_levels(clean, captures, labels, unit_threshold=unit_threshold),
        },
        "families": _families(~np.isnan(score), score >= unit_threshold, decided, labels, entries),
        "benign_kinds": {
            kind: {"n": count.captures, "alerted": count.alerted}
            for kind, count in count_kinds(entries, ~np.isnan(decided.score), decided.alert).items()
        },
        "supported_false_positive_rate": {
            name: supported_rate(level["n_negative"]) for name, level in levels.items()
        },
    }


def measure_levels(
    score: Scores,
    captures: Mapping[str, CaptureScores],
    labels: Labels,
    *,
    unit_threshold: Scores | float,
) -> dict[str, dict[str, Any]]:
    """Return the figures of every level that the units give.

    Parameters are those of `evaluate_scores`; what scores NaN takes no part.

    Returns
    -------
    dict
        The levels of `captures`, and before them `flow` and `flow_tls` where units are flows,
        `host_window` or `channel` where they are those; each as
        `veilwatch.learning.evaluation.metrics.measure` gives it.
    """
    used = ~np.isnan(score) & ~labels.unknown
    unit_limit = np.broadcast_to(unit_threshold, score.shape)
    levels = {}
    if labels.unit == "flow":
        levels = {"flow": used, "flow_tls": used & labels.encrypted}
    elif labels.unit != "capture":
        levels = {labels.unit: used}
    return {
        **{
            name: measure(score[rows], labels.malicious[rows], unit_limit[rows])
            for name, rows in levels.items()
        },
        **{name: _measure_captures(whole, labels) for name, whole in captures.items()},
    }


def measure_used(
    used: Mapping[int, UsedHosts], captures: CaptureScores, labels: Labels
) -> dict[str, dict[str, Any]]:
    """Return the figures of infected hosts that people use, beside benign captures.

    Infected are blends of malicious captures; the benign side are the benign captures as they were
    recorded. `benign_blends` and `benign_blends_alerted` say how many benign captures were merged
    with used hosts likewise, and what share of these was an alert.
    """
    quiet = ~labels.capture_malicious & ~np.isnan(captures.score)
    limit = np.broadcast_to(captures.threshold, captures.score.shape)[quiet]
    out = {}
    for size, blends in sorted(used.items()):
        own = np.broadcast_to(blends.threshold, blends.score.shape)
        bad = blends.malicious & ~np.isnan(blends.score)
        good = ~blends.malicious & ~np.isnan(blends.score)
        level = measure(
            np.concatenate([blends.score[bad], captures.score[quiet]]),
            np.arange(bad.sum() + quiet.sum()) < bad.sum(),
            np.concatenate([own[bad], limit]),
        )
        alerted = float(np.mean(blends.score[good] >= own[good])) if good.any() else None
        out[f"{USED}{size}"] = {
            **level,
            "benign_blends": int(good.sum()),
            "benign_blends_alerted": alerted,
        }
    return out


def _measure_captures(captures: CaptureScores, labels: Labels) -> dict[str, Any]:
    seen = ~np.isnan(captures.score)
    limit = np.broadcast_to(captures.threshold, captures.score.shape)
    return measure(captures.score[seen], labels.capture_malicious[seen], limit[seen])


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
        By level the figures of `veilwatch.learning.evaluation.metrics.measure` without `threshold`:
        rates are means over the `folds` that hold both classes, counts are their sums, the curve is
        the mean of what they find at each false-positive rate. Rates are None, and there is no
        curve, where no fold holds both.
    """
    return {level: _mean([fold[level] for fold in folds]) for level in folds[0]}


def _mean(folds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    whole = [fold for fold in folds if fold["n_positive"] and fold["n_negative"]]

    def mean(values: Sequence[float]) -> float | None:
        return float(np.mean(values)) if values else None

    curves = [fold["curve"] for fold in whole if "curve" in fold]
    return {
        "folds": len(whole),
        **({"curve": mean_curve(curves)} if curves else {}),
        **{name: sum(fold[name] for fold in whole) for name in ("n_positive", "n_negative")},
        **{name: mean([fold[name] for fold in whole]) for name in RATE_NAMES},
        "detection_rate_at_fpr": {
            rate: mean([fold["detection_rate_at_fpr"][rate] for fold in whole]) for rate in RATES
        },
    }


def _families(
    used: npt.NDArray[np.bool_],
    unit_alert: npt.NDArray[np.bool_],
    captures: CaptureScores,
    labels: Labels,
    entries: Sequence[CaptureEntry],
) -> dict[str, dict[str, Any]]:
    """Return for each malicious family how many captures (and flows, if units are) were found."""
    names = np.array([entry.family or "unnamed" for entry in entries])
    seen = labels.capture_malicious & ~np.isnan(captures.score)
    alert = captures.alert
    out = {}
    for family in sorted(set(names[seen].tolist())):
        mine = seen & (names == family)
        out[family] = {
            "n": int(mine.sum()),
            "detection_rate": float(np.mean(alert[mine])),
            "is_ransomware": any(entries[int(i)].is_ransomware for i in np.flatnonzero(mine)),
        }
        if labels.unit == "flow":
            flows = used & mine[labels.capture]
            out[family] |= {
                "n_flows": int(flows.sum()),
                "flow_detection_rate": float(np.mean(unit_alert[flows])),
            }
    return out
