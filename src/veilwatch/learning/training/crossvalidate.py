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
    evaluate_scores,
    mean_of_folds,
    measure_levels,
)
from veilwatch.learning.evaluation.labelled import Labels, require_both_classes
from veilwatch.learning.evaluation.splits import assign_folds
from veilwatch.learning.training.calibrate import (
    calibrate,
    calibrate_together,
    capture_scores,
    with_windows,
)
from veilwatch.learning.training.crossfit import cross_fit
from veilwatch.learning.training.train import TrainingOptions
from veilwatch.learning.training.units import read_units
from veilwatch.learning.training.windows import WindowFit, fit_windows
from veilwatch.progress import SILENT, Progress

CrossSplit = Literal["source", "group", "flow"]


def cross_validate(
    corpus: Corpus, by: CrossSplit, options: TrainingOptions, *, progress: Progress = SILENT
) -> dict[str, Any]:
    """Return evaluation figures with each fold scored by detectors that never saw it.

    The figures of all folds ranked together stand beside the mean over folds (`mean_of_folds`).

    The thresholds applied to a fold come from held-out benign scores of the other folds.

    Parameters
    ----------
    by
        What stays together: a "source", a "group" of one source, family and day, or nothing at
        all ("flow"), which mixes flows of one capture over both sides and flatters every model;
        it is there to show by how much.

    Raises
    ------
    TrainingError
        If the corpus holds one class only, or too few sources or groups for the folds.
    """
    units = read_units(corpus, options.detector, shortcuts=options.shortcuts)
    labels = units.labels
    require_both_classes(labels)
    training = units.training_set(corpus)
    seed = options.settings.seed
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
        aside=options.set_aside(labels),
    )
    windows = None
    # Where single flows are dealt out, no capture lies whole in a fold, and no window either.
    if options.hears_windows and capture_fold is not None:
        windows = fit_windows(corpus, capture_fold, options.settings, progress)
    flow_limit, captures = _thresholds(
        fit.score, labels, flow_fold, capture_fold, windows, options.target_rate
    )
    whole_in = np.full(len(corpus.entries), -1) if capture_fold is None else capture_fold
    figures = evaluate_scores(
        fit.score, captures, labels, corpus.entries, unit_threshold=flow_limit
    )

    def of_folds(scores: npt.NDArray[np.float64]) -> dict[str, dict[str, Any]]:
        parts = [
            measure_levels(
                np.where(flow_fold == fold, scores, np.nan),
                {name: whole.of(whole_in == fold) for name, whole in captures.items()},
                labels,
                unit_threshold=flow_limit,
            )
            for fold in range(options.folds)
        ]
        return mean_of_folds(parts)

    clean = of_folds(np.where(labels.background, np.nan, fit.score))
    figures["without_background"]["mean_of_folds"] = clean
    means = of_folds(fit.score)
    return {"split": by, "folds": options.folds, **figures, "mean_of_folds": means}


def _thresholds(
    score: npt.NDArray[np.float64],
    labels: Labels,
    flow_fold: npt.NDArray[np.int64],
    capture_fold: npt.NDArray[np.int64] | None,
    windows: WindowFit | None,
    rate: float,
) -> tuple[npt.NDArray[np.float64], dict[str, CaptureScores]]:
    """Return thresholds of units, and scored captures by level, all set by the other folds."""
    flow_limit = np.full(len(score), np.nan)
    size = len(labels.capture_malicious)
    levels = [CAPTURE, *([WITH_WINDOWS] if windows else [])]
    # A fold whose captures hold no flow is never visited: what stays NaN takes no part.
    captures = {name: np.full(size, np.nan) for name in levels}
    limits = {name: np.full(size, np.nan) for name in levels}
    for fold in range(int(flow_fold.max()) + 1):
        inside = flow_fold == fold
        thresholds = calibrate(np.where(inside, np.nan, score), labels, rate)
        flow_limit[inside] = thresholds.unit
        # Where single flows are dealt out a capture lies in every fold; any threshold serves.
        mine = np.ones(size, bool) if capture_fold is None else capture_fold == fold
        by_flows = capture_scores(score, labels, thresholds.upper_share)
        captures[CAPTURE][mine], limits[CAPTURE][mine] = by_flows[mine], thresholds.group
        if windows:
            of_windows = windows.units.labels
            others = np.where(mine[of_windows.capture], np.nan, windows.score)
            both = calibrate_together(np.where(mine, np.nan, by_flows), others, of_windows, rate)
            share = both.windows.upper_share
            together = with_windows(by_flows, windows.score, of_windows, share)
            captures[WITH_WINDOWS][mine] = together[mine]
            limits[WITH_WINDOWS][mine] = both.group
    return flow_limit, {name: CaptureScores(captures[name], limits[name]) for name in levels}
