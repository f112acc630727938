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
    BenignKind,
    Calibration,
    ClassFigures,
    Confusion,
    Family,
    Interval,
    Level,
    SplitResult,
)
from veilwatch.learning.comparison.hosts import Decided
from veilwatch.learning.comparison.plan import Split
from veilwatch.learning.comparison.ranked import Ranked
from veilwatch.learning.evaluation.calibration import supported_rate
from veilwatch.learning.evaluation.evaluate import CAPTURE, USED, WITH_WINDOWS
from veilwatch.learning.evaluation.kinds import count_kinds
from veilwatch.learning.evaluation.labelled import Labels
from veilwatch.learning.models import Thresholds
from veilwatch.learning.training.calibrate import calibrate, capture_scores

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
    decided: Decided | None = None,
    *,
    seed: int,
) -> SplitResult:
    """Return what one detector achieved under one split.

    Parameters
    ----------
    limits
        The detector's own thresholds in each fold that counts; see `own_thresholds`.
    decided
        What is decided about the same captures, and about used hosts that they were merged with,
        by flows, channels and host windows together.
    """
    score, labels, fold = judged.score, judged.labels, judged.fold
    unit_limit = np.full(len(score), np.nan)
    capture_fold = split.fold if len(split.fold) else np.full(len(entries), -1)
    captures = {CAPTURE: np.full(len(entries), np.nan)}
    capture_limits = {CAPTURE: np.full(len(entries), np.nan)}
    for number, thresholds in limits.items():
        unit_limit[fold == number] = thresholds.unit
        mine = capture_fold == number
        by_units = capture_scores(score, labels, thresholds.upper_share)
        captures[CAPTURE][mine] = by_units[mine]
        capture_limits[CAPTURE][mine] = thresholds.group
    if decided is not None:
        captures[WITH_WINDOWS], capture_limits[WITH_WINDOWS] = _as_recorded(decided, len(entries))
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

    used = ~np.isnan(score) & ~labels.unknown
    rows: dict[str, Mask] = {}
    if labels.unit == "flow":
        rows = {"flow": used, "flow_tls": used & labels.encrypted}
    elif labels.unit != "capture":
        rows = {labels.unit: used}
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
    whole_by, limit_by = list(captures.values())[-1], list(capture_limits.values())[-1]
    if decided is not None:
        levels |= _used_hosts(decided, whole_by, limit_by, labels, capture_fold, draws)
    clean = {
        name: level(mask & ~labels.background)
        for name, mask in rows.items()
        if labels.background.any()
    }
    seen, alert = ~np.isnan(whole_by), whole_by >= limit_by
    return SplitResult(
        levels=levels,
        without_background=clean,
        families=_families(seen, alert, labels, entries),
        benign_kinds={
            kind: BenignKind(captures=count.captures, alerted=count.alerted)
            for kind, count in count_kinds(entries, seen, alert).items()
        },
        benign_blends={} if decided is None else _benign_blends(decided),
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


def _as_recorded(decided: Decided, captures: int) -> tuple[Floats, Floats]:
    """Return score and threshold of each capture as it was recorded, NaN where none was decided."""
    recorded = decided.size == 0
    score, limit = np.full(captures, np.nan), np.full(captures, np.nan)
    score[decided.base[recorded]] = decided.score[recorded]
    limit[decided.base[recorded]] = decided.limit[recorded]
    return score, limit


def _used_hosts(
    decided: Decided,
    captures: Floats,
    limit: Floats,
    labels: Labels,
    fold: npt.NDArray[np.int64],
    draws: npt.NDArray[np.int64],
) -> dict[str, Level]:
    """Return the figures of infected hosts that people use, beside benign captures as recorded.

    Parameters
    ----------
    captures, limit, fold
        Score, threshold and fold of each capture.
    """
    quiet = np.flatnonzero(~labels.capture_malicious & ~np.isnan(captures))
    out = {}
    for size in sorted(set(decided.size.tolist()) - {0}):
        bad = decided.malicious & (decided.size == size) & ~np.isnan(decided.score)
        if not bad.any():
            continue
        base = np.concatenate([decided.base[bad], quiet])
        out[f"{USED}{size}"] = _level(
            np.concatenate([decided.score[bad], captures[quiet]]),
            labels.capture_malicious[base],
            np.concatenate([decided.limit[bad], limit[quiet]]),
            fold[base],
            base,
            draws,
        )
    return out


def _benign_blends(decided: Decided) -> dict[str, BenignKind]:
    """Return how many benign captures were alerted once they were merged with used hosts."""
    out = {}
    for size in sorted(set(decided.size.tolist()) - {0}):
        good = ~decided.malicious & (decided.size == size) & ~np.isnan(decided.score)
        alerted = int((decided.score >= decided.limit)[good].sum())
        if good.any():
            out[f"{USED}{size}"] = BenignKind(captures=int(good.sum()), alerted=alerted)
    return out


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
