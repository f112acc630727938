"""How well a detector does on captures that it never saw, without a second corpus."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from veilwatch.corpus.catalogue import Corpus
from veilwatch.evaluation.evaluate import evaluate_scores, mean_of_folds, measure_levels
from veilwatch.evaluation.labelled import Labels, require_both_classes
from veilwatch.evaluation.splits import assign_folds
from veilwatch.progress import SILENT, Progress
from veilwatch.training.crossfit import cross_fit
from veilwatch.training.train import TrainingOptions, calibrate, capture_scores
from veilwatch.training.units import read_units

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
    flow_limit, capture_limit, captures = _thresholds(
        fit.score, labels, flow_fold, capture_fold, options.target_rate
    )
    # Where single flows are dealt out, no capture lies whole in a fold.
    whole_in = np.full(len(captures), -1) if capture_fold is None else capture_fold
    limits = {"unit_threshold": flow_limit, "capture_threshold": capture_limit}
    figures = evaluate_scores(fit.score, captures, labels, corpus.entries, **limits)

    def of_folds(scores: npt.NDArray[np.float64]) -> dict[str, dict[str, Any]]:
        parts = [
            measure_levels(
                np.where(flow_fold == fold, scores, np.nan),
                np.where(whole_in == fold, captures, np.nan),
                labels,
                **limits,
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
    rate: float,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return thresholds of flows and captures and capture scores, set by the other folds."""
    flow_limit = np.full(len(score), np.nan)
    # A fold whose captures hold no flow is never visited: what stays NaN takes no part.
    capture_limit = np.full(len(labels.capture_malicious), np.nan)
    capture_score = capture_limit.copy()
    for fold in range(int(flow_fold.max()) + 1):
        inside = flow_fold == fold
        thresholds = calibrate(np.where(inside, np.nan, score), labels, rate)
        flow_limit[inside] = thresholds.unit
        # Where single flows are dealt out a capture lies in every fold; any threshold serves.
        chosen = slice(None) if capture_fold is None else capture_fold == fold
        capture_limit[chosen] = thresholds.group
        capture_score[chosen] = capture_scores(score, labels, thresholds.upper_share)[chosen]
    return flow_limit, capture_limit, capture_score
