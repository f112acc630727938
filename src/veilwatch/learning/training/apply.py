"""A model held against a labelled corpus."""

from __future__ import annotations

from typing import Any

import numpy as np

from veilwatch.corpus.catalogue import Corpus
from veilwatch.errors import TrainingError
from veilwatch.learning.evaluation.evaluate import (
    CAPTURE,
    WITH_WINDOWS,
    CaptureScores,
    evaluate_scores,
)
from veilwatch.learning.models import Model
from veilwatch.learning.models.model import WINDOW_DETECTOR
from veilwatch.learning.training.calibrate import capture_scores, with_windows
from veilwatch.learning.training.units import read_units


def evaluate_model(model: Model, corpus: Corpus) -> dict[str, Any]:
    """Score a corpus; captures that the model has learned from do not count.

    Raises
    ------
    TrainingError
        If nothing is left.
    """
    trained_on = set(model.manifest.corpus.captures.values())
    seen = np.array([corpus.hashes[entry.name] in trained_on for entry in corpus.entries], bool)
    if seen.all():
        raise TrainingError(
            "the model was trained on every capture of this corpus",
            hint="evaluate on other captures, or use --split source",
        )
    card = model.manifest
    units = read_units(corpus, card.detector, shortcuts=card.features.shortcuts)
    labels = units.labels
    score = model.score(units.features)
    score[seen[labels.capture]] = np.nan
    thresholds = card.thresholds
    by_units = capture_scores(score, labels, thresholds.upper_share)
    captures = {CAPTURE: CaptureScores(by_units, thresholds.group)}
    if windows := card.windows:
        found = read_units(corpus, WINDOW_DETECTOR, shortcuts=windows.features.shortcuts)
        window_score = model.score_windows(found.features)
        window_score[seen[found.labels.capture]] = np.nan
        share = windows.thresholds.upper_share
        together = with_windows(by_units, window_score, found.labels, share)
        captures[WITH_WINDOWS] = CaptureScores(together, windows.group)
    figures = evaluate_scores(
        score, captures, labels, corpus.entries, unit_threshold=thresholds.unit
    )
    return {"set_aside": int(seen.sum()), **figures}
