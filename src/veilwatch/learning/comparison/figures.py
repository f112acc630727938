"""From the scores of all folds to the figures of one detector under one split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt

from veilwatch.corpus.manifest import CaptureEntry
from veilwatch.extras import from_extra
from veilwatch.learning.comparison.document import (
    Calibration,
    ClassFigures,
    Confusion,
    Family,
    Interval,
    Level,
    SplitResult,
)
from veilwatch.learning.comparison.plan import Split
from veilwatch.learning.comparison.ranked import Ranked
from veilwatch.learning.evaluation.calibration import supported_rate
from veilwatch.learning.evaluation.evaluate import CAPTURE, WITH_WINDOWS
from veilwatch.learning.evaluation.labelled import Labels
from veilwatch.learning.models import Thresholds
from veilwatch.learning.training.calibrate import (
    calibrate,
    calibrate_together,
    capture_scores,
    with_windows,
)

with from_extra("train", "a comparison"):
    from sklearn.metrics import average_precision_score, precision_recall_curve

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

RATES: Final = ("0.01", "0.001", "0.0001")
RESAMPLES: Final = 200
"""Resamples of a bootstrap: the 2.5 % quantile then rests on five of them."""

CONFIDENCE: Final = (0.025, 0.975)
BINS: Final = 10
CURVE_POINTS: Final = 120


@dataclass(frozen=True, slots=True)
class Judged:
    """One detector's scores under one split.

    Attributes
    ----------
    score
        Held-out score of each unit, NaN where it was not judged, shape (units,).
    labels
        Truth of the units.
    fold
        Fold of each unit, shape (units,).
    kept
        By judged fold the scores, NaN elsewhere, of units that were kept from learning to choose
        thresholds (`Split.kept_for_thresholds`).
    """

    score: Floats
    labels: Labels
    fold: npt.NDArray[np.int64]
    kept: Mapping[int, Floats]

    def chosen_by(self, number: int) -> Floats:
        """Return the scores that thresholds of a fold may come from, NaN elsewhere.

        They are those kept for it; where there are none, the held-out scores of the other folds.
        """
        kept = self.kept[number]
        if np.isfinite(kept).any():
            return kept
        return np.where(self.fold == number, np.nan, self.score)


def split_result(
    judged: Judged,
    entries: Sequence[CaptureEntry],
    split: Split,
    limits: Mapping[int, Thresholds],
    windows: Judged | None = None,
    *,
    seed: int,
) -> SplitResult:
    """Return what one detector achieved under one split.

    Parameters
    ----------
    limits
        The detector's own thresholds in each fold that counts; see `own_thresholds`.
    windows
        Host windows under the same split, to be heard beside a detector of flows.
    """
    score, labels, fold = judged.score, judged.labels, judged.fold
    unit_limit = np.full(len(score), np.nan)
    capture_fold = split.fold if len(split.fold) else np.full(len(entries), -1)
    names = [CAPTURE, *([WITH_WINDOWS] if windows else [])]
    captures = {name: np.full(len(entries), np.nan) for name in names}
    capture_limits = {name: np.full(len(entries), np.nan) for name in names}
    for number, thresholds in limits.items():
        unit_limit[fold == number] = thresholds.unit
        mine = capture_fold == number
        by_units = capture_scores(score, labels, thresholds.upper_share)
        captures[CAPTURE][mine] = by_units[mine]
        capture_limits[CAPTURE][mine] = thresholds.group
        if windows and mine.any():
            together, limit = _heard(judged, by_units, windows, number, thresholds)
            captures[WITH_WINDOWS][mine] = together[mine]
            capture_limits[WITH_WINDOWS][mine] = limit
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(len(entries), np.full(len(entries), 1 / len(entries)), RESAMPLES)

    def level(mask: Mask) -> Level:
        return _level(
            score[mask],
            labels.malicious[mask],
            unit_limit[mask],
            fold[mask],
            labels.capture[mask],
            draws,
        )

    used = ~np.isnan(score)
    rows: dict[str, Mask] = {}
    if labels.unit == "flow":
        rows = {"flow": used, "flow_tls": used & labels.encrypted}
    elif labels.unit == "host_window":
        rows = {"host_window": used}
    levels = {name: level(mask) for name, mask in rows.items()}
    for name, whole in captures.items():
        seen = ~np.isnan(whole)
        if seen.any():
            levels[name] = _level(
                whole[seen],
                labels.capture_malicious[seen],
                capture_limits[name][seen],
                capture_fold[seen],
                np.flatnonzero(seen),
                draws,
            )
    clean = {
        name: level(mask & ~labels.background)
        for name, mask in rows.items()
        if labels.background.any()
    }
    decided, limits_of = captures[names[-1]], capture_limits[names[-1]]
    return SplitResult(
        levels=levels,
        without_background=clean,
        families=_families(~np.isnan(decided), decided >= limits_of, labels, entries),
    )


def own_thresholds(judged: Judged, target_rate: float) -> dict[int, Thresholds]:
    """Return the thresholds of each judged fold, never chosen by what they judge.

    Parameters
    ----------
    target_rate
        False-positive rate that the thresholds aim at.

    Raises
    ------
    TrainingError
        If no benign unit is left to choose by.
    """
    return {
        number: calibrate(judged.chosen_by(number), judged.labels, target_rate)
        for number in judged.kept
    }


def _heard(
    judged: Judged, by_flows: Floats, windows: Judged, number: int, thresholds: Thresholds
) -> tuple[Floats, float]:
    """Return the captures' scores by flows and windows together, and the threshold of a fold.

    Parameters
    ----------
    by_flows
        Score of each capture by its flows at the fold's share.
    """
    share = thresholds.upper_share
    both = calibrate_together(
        capture_scores(judged.chosen_by(number), judged.labels, share),
        windows.chosen_by(number),
        windows.labels,
        thresholds.target_false_positive_rate,
    )
    together = with_windows(by_flows, windows.score, windows.labels, both.windows.upper_share)
    return together, both.group


def _level(
    score: Floats,
    malicious: Mask,
    limit: Floats,
    fold: npt.NDArray[np.int64],
    capture: npt.NDArray[np.int64],
    draws: npt.NDArray[np.int64],
) -> Level:
    """Return the figures of one level.

    Parameters
    ----------
    draws
        How often each capture was drawn, shape (resamples, captures).
    """
    parts = []
    for number in np.unique(fold):
        rows = np.flatnonzero(fold == number)
        ranked = Ranked(score[rows], malicious[rows])
        if ranked.both:
            parts.append((ranked, rows))
    weighed = [(ranked, capture[rows]) for ranked, rows in parts]
    alert = score >= limit
    true_positive, false_positive = int(alert[malicious].sum()), int(alert[~malicious].sum())
    positives, negatives = int(malicious.sum()), int((~malicious).sum())
    confusion = Confusion(
        true_positive=true_positive,
        false_negative=positives - true_positive,
        false_positive=false_positive,
        true_negative=negatives - false_positive,
    )
    both = bool(parts)
    return Level(
        positives=positives,
        negatives=negatives,
        folds=len(parts),
        roc_auc=_interval(weighed, Ranked.roc_auc, draws),
        average_precision=float(
            np.mean([average_precision_score(malicious[rows], score[rows]) for _, rows in parts])
        )
        if both
        else None,
        detection_rate_at_fpr={
            rate: _interval(weighed, partial(Ranked.detection_rate, rate=float(rate)), draws)
            for rate in RATES
        },
        supported_false_positive_rate=supported_rate(negatives),
        accuracy=_share(true_positive + confusion.true_negative, len(score)),
        malicious=_class(true_positive, false_positive, confusion.false_negative),
        benign=_class(confusion.true_negative, confusion.false_negative, false_positive),
        confusion=confusion,
        calibration=_calibration(score, malicious) if both else None,
        roc=_roc([ranked for ranked, _ in parts]) if both else [],
        precision_recall=_precision_recall([(score[rows], malicious[rows]) for _, rows in parts])
        if both
        else [],
    )


def _interval(
    parts: Sequence[tuple[Ranked, npt.NDArray[np.int64]]],
    figure: Callable[[Ranked, Floats], float],
    draws: npt.NDArray[np.int64],
) -> Interval:
    """Return the mean over folds of a figure, and its quantiles over resampled captures.

    Parameters
    ----------
    parts
        The scores of each fold, and the capture of each of them.
    draws
        How often each capture was drawn, shape (resamples, captures).
    """
    if not parts:
        return Interval(value=None)
    value = float(np.mean([figure(ranked, np.ones(len(capture))) for ranked, capture in parts]))
    drawn = []
    for draw in draws.astype(np.float64):
        values = [figure(ranked, draw[capture]) for ranked, capture in parts]
        # A resample may leave a fold without one class; the others speak then.
        if not np.isnan(values).all():
            drawn.append(float(np.nanmean(values)))
    if not drawn:
        return Interval(value=value)
    low, high = np.quantile(drawn, CONFIDENCE)
    return Interval(value=value, low=float(low), high=float(high))


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _class(right: int, wrong: int, missed: int) -> ClassFigures:
    return ClassFigures(
        precision=_share(right, right + wrong),
        recall=_share(right, right + missed),
        f1=_share(2 * right, 2 * right + wrong + missed),
    )


def _calibration(score: Floats, malicious: Mask) -> Calibration:
    """Hold scores against what they should mean, both classes weighing the same."""
    weight = np.where(malicious, 0.5 / malicious.sum(), 0.5 / (~malicious).sum())
    place = np.minimum((score * BINS).astype(np.int64), BINS - 1)
    share = np.bincount(place, weight, BINS)
    filled = share > 0
    predicted = np.bincount(place, weight * score, BINS)[filled] / share[filled]
    observed = np.bincount(place, weight * malicious, BINS)[filled] / share[filled]
    return Calibration(
        brier=float((weight * (score - malicious) ** 2).sum()),
        expected_error=float((share[filled] * np.abs(predicted - observed)).sum()),
        predicted=predicted.round(4).tolist(),
        observed=observed.round(4).tolist(),
        share=share[filled].round(4).tolist(),
    )


def _roc(folds: Sequence[Ranked]) -> list[tuple[float, float]]:
    """Return the mean curve of folds: what they find at each false-positive rate, on average.

    It runs through the figures of `detection_rate_at_fpr` (vertical averaging; Fawcett, Pattern
    Recognition Letters 27, 2006, section 9). Scores of several folds ranked together would give
    another curve, since each fold has a detector of its own.
    """
    rates = np.unique(
        np.concatenate([np.geomspace(1e-4, 1, CURVE_POINTS), [float(r) for r in RATES]])
    )
    found = [
        [ranked.detection_rate(np.ones(ranked.size), rate) for rate in rates] for ranked in folds
    ]
    return _points(rates, np.mean(found, axis=0))


def _precision_recall(folds: Sequence[tuple[Floats, Mask]]) -> list[tuple[float, float]]:
    """Return the mean curve of folds: their precision at each share found, on average."""
    shares = np.linspace(0, 1, CURVE_POINTS + 1)
    curves = []
    for score, malicious in folds:
        precision, recall, _ = precision_recall_curve(malicious, score)
        # The curve comes with the share found falling: the highest threshold that reaches it.
        place = np.searchsorted(recall[::-1], shares - 1e-9, side="left")
        curves.append(precision[::-1][np.minimum(place, len(recall) - 1)])
    return _points(shares, np.mean(curves, axis=0))


def _points(x: Floats, y: Floats) -> list[tuple[float, float]]:
    return [(round(float(a), 6), round(float(b), 5)) for a, b in zip(x, y, strict=True)]


def _families(
    seen: Mask, found: Mask, labels: Labels, entries: Sequence[CaptureEntry]
) -> dict[str, Family]:
    names = np.array([entry.family or "unnamed" for entry in entries])
    out = {}
    for name in sorted(set(names[seen & labels.capture_malicious].tolist())):
        mine = np.flatnonzero(seen & labels.capture_malicious & (names == name))
        out[name] = Family(
            captures=len(mine),
            found=float(found[mine].mean()),
            is_ransomware=any(entries[int(k)].is_ransomware for k in mine),
        )
    return out
