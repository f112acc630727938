"""How well a detector does on captures that it never saw, without a second corpus."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from veilwatch.corpus.catalogue import Corpus
from veilwatch.learning.evaluation.evaluate import (
    CAPTURE,
    WITH_WINDOWS,
    CaptureScores,
    UsedHosts,
    evaluate_scores,
    mean_of_folds,
    measure_levels,
    measure_used,
)
from veilwatch.learning.evaluation.labelled import Labels, require_both_classes
from veilwatch.learning.evaluation.splits import assign_folds
from veilwatch.learning.training.calibrate import calibrate, capture_scores
from veilwatch.learning.training.crossfit import cross_fit
from veilwatch.learning.training.hosts import (
    decided_blends,
    decided_captures,
    fit_decision,
    fit_parts,
    host_limits,
)
from veilwatch.learning.training.train import TrainingOptions
from veilwatch.learning.training.units import read_units
from veilwatch.progress import SILENT, Progress

Floats = npt.NDArray[np.float64]

CrossSplit = Literal["publisher", "source", "group", "flow"]


def cross_validate(
    corpus: Corpus, by: CrossSplit, options: TrainingOptions, *, progress: Progress = SILENT
) -> dict[str, Any]:
    """Return evaluation figures with each fold scored by detectors that never saw it.

    The figures of all folds ranked together stand beside the mean over folds (`mean_of_folds`).

    The thresholds applied to a fold come from held-out benign scores of the other folds.

    Parameters
    ----------
    by
        What stays together: a "publisher", a "source", a "group" of one source, family and day,
        or nothing at all ("flow"), which mixes flows of one capture over both sides and flatters
        every model; it is there to show by how much.

    Raises
    ------
    TrainingError
        If the corpus holds one class only, or too few sources or groups for the folds.
    """
    units = read_units(corpus, options.detector, shortcuts=options.shortcuts)
    labels = units.labels
    require_both_classes(labels)
    seed = options.settings.seed
    training = units.training_set(corpus, seed, keep_background=options.keep_background)
    if by == "flow":
        flow_fold = np.random.default_rng(seed).integers(0, options.folds, len(labels.capture))
        capture_fold = None
    else:
        capture_fold = assign_folds(corpus.entries, by, folds=options.folds, seed=seed)
        flow_fold = capture_fold[labels.capture]
    fit = cross_fit(
        options.detector,
        training,
        flow_fold,
        options.settings,
        progress,
        aside=units.left_out(seed),
    )
    flow_limit, captures = _thresholds(
        fit.score, labels, flow_fold, capture_fold, options.target_rate
    )
    used: dict[int, UsedHosts] = {}
    # Where single flows are dealt out, no capture lies whole in a fold, and no host either.
    if options.decides_by_evidence and capture_fold is not None:
        parts = fit_parts(corpus, capture_fold, options.settings, progress)
        decided = fit_decision(parts, fit.score, options.settings, progress).decision.score
        of_hosts = parts.hosts
        limit = host_limits(of_hosts, parts.side, decided, options.target_rate)
        captures[WITH_WINDOWS] = decided_captures(of_hosts, decided, limit)
        used = decided_blends(of_hosts, decided, limit)
    whole_in = np.full(len(corpus.entries), -1) if capture_fold is None else capture_fold
    figures = evaluate_scores(
        fit.score, captures, labels, corpus.entries, unit_threshold=flow_limit, used=used
    )

    def of_folds(scores: npt.NDArray[np.float64]) -> dict[str, dict[str, Any]]:
        parts = []
        for fold in range(options.folds):
            inside = {name: whole.of(whole_in == fold) for name, whole in captures.items()}
            levels = measure_levels(
                np.where(flow_fold == fold, scores, np.nan),
                inside,
                labels,
                unit_threshold=flow_limit,
            )
            blends = {size: blend.of(whole_in == fold) for size, blend in used.items()}
            decided_by = list(inside.values())[-1]
            parts.append(levels | measure_used(blends, decided_by, labels))
        return mean_of_folds(parts)

    clean = of_folds(np.where(labels.background, np.nan, fit.score))
    figures["without_background"]["mean_of_folds"] = clean
    means = of_folds(fit.score)
    return {"split": by, "folds": options.folds, **figures, "mean_of_folds": means}


def _thresholds(
    score: Floats,
    labels: Labels,
    flow_fold: npt.NDArray[np.int64],
    capture_fold: npt.NDArray[np.int64] | None,
    rate: float,
) -> tuple[Floats, dict[str, CaptureScores]]:
    """Return thresholds of units, and captures scored by them, all set by the other folds."""
    flow_limit = np.full(len(score), np.nan)
    size = len(labels.capture_malicious)
    # A fold whose captures hold no flow is never visited: what stays NaN takes no part.
    captures, limits = np.full(size, np.nan), np.full(size, np.nan)
    for fold in range(int(flow_fold.max()) + 1):
        inside = flow_fold == fold
        thresholds = calibrate(np.where(inside, np.nan, score), labels, rate)
        flow_limit[inside] = thresholds.unit
        # Where single flows are dealt out a capture lies in every fold; any threshold serves.
        mine = np.ones(size, bool) if capture_fold is None else capture_fold == fold
        by_flows = capture_scores(score, labels, thresholds.upper_share)
        captures[mine], limits[mine] = by_flows[mine], thresholds.group
    return flow_limit, {CAPTURE: CaptureScores(captures, limits)}
