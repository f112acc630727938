"""A model held against a labelled corpus."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from veilwatch.corpus.catalogue import Corpus
from veilwatch.errors import TrainingError
from veilwatch.learning.evaluation.evaluate import (
    CAPTURE,
    WITH_WINDOWS,
    CaptureScores,
    UsedHosts,
    evaluate_scores,
)
from veilwatch.learning.evaluation.metrics import Scores
from veilwatch.learning.models import Model
from veilwatch.learning.models.model import CHANNEL_DETECTOR, WINDOW_DETECTOR
from veilwatch.learning.training.calibrate import capture_scores
from veilwatch.learning.training.hosts import (
    Hosts,
    decided_blends,
    decided_captures,
    evidence_of,
    gather_hosts,
    part_features,
)
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
    thresholds = card.thresholds
    by_units = capture_scores(score, labels, thresholds.upper_share)
    by_units[seen] = np.nan
    captures = {CAPTURE: CaptureScores(by_units, thresholds.group)}
    used: dict[int, UsedHosts] = {}
    if card.hosts:
        side = np.where(seen, 1, 0)  # what the model has learned is merged with nothing
        hosts = gather_hosts(corpus, side, seed=card.seed)
        decided = _decide(model, hosts, score)
        decided[seen[hosts.base]] = np.nan
        captures[WITH_WINDOWS] = decided_captures(hosts, decided, card.hosts.threshold)
        used = decided_blends(hosts, decided, card.hosts.threshold)
    score[seen[labels.capture]] = np.nan
    figures = evaluate_scores(
        score, captures, labels, corpus.entries, unit_threshold=thresholds.unit, used=used
    )
    return {"set_aside": int(seen.sum()), **figures}


def _decide(model: Model, hosts: Hosts, flow_score: npt.NDArray[np.float64]) -> Scores:
    """Return the model's score of each host, NaN for those without a flow."""
    channels = part_features(hosts, CHANNEL_DETECTOR)
    windows = part_features(hosts, WINDOW_DETECTOR)
    evidence = evidence_of(
        hosts,
        flow_score,
        channels,
        model.score_channels(channels),
        windows,
        model.score_windows(windows),
    )
    score = model.decide(evidence)
    score[np.bincount(hosts.host, minlength=len(hosts)) == 0] = np.nan
    return score
