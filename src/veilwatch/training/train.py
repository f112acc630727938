"""Training of a model from a corpus."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score

from veilwatch import __version__
from veilwatch.corpus.catalogue import Corpus
from veilwatch.detectors import DETECTORS, DetectorSettings
from veilwatch.detectors.evidence import UPPER_SHARES, group_scores
from veilwatch.errors import TrainingError
from veilwatch.evaluation.calibration import conformal_threshold
from veilwatch.evaluation.evaluate import evaluate_scores
from veilwatch.evaluation.labelled import Labels, require_both_classes
from veilwatch.evaluation.posterior import DEPLOYMENT_PRIOR, fit_platt
from veilwatch.evaluation.splits import SplitBy, assign_folds
from veilwatch.progress import SILENT, Progress
from veilwatch.registry import (
    BenignRange,
    CalibrationCard,
    CorpusCard,
    FeatureCard,
    Model,
    ModelManifest,
    Thresholds,
)
from veilwatch.schema.features import FeatureFrame
from veilwatch.training.crossfit import cross_fit
from veilwatch.training.families import train_families
from veilwatch.training.units import read_units


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """What the user chooses.

    Attributes
    ----------
    detector
        Name of a detector.
    target_rate
        False-positive rate that the thresholds aim at.
    folds
        Parts that the captures are split into for cross-fitting.
    split
        What stays together in a fold: "group" (one source, family and day) or "source".
    shortcuts
        Whether features that tell the place rather than the threat take part.
    keep_background
        Whether background flows of infected hosts are learned from as malicious.
    prior
        Share of hosts that are taken to be infected where the model will be used.
    families
        Whether the model learns to name families, if the corpus shows enough of them.
    settings
        Seed, threads and parameters of the detector.
    """

    detector: str = "lightgbm"
    target_rate: float = 0.01
    folds: int = 5
    split: SplitBy = "group"
    shortcuts: bool = False
    keep_background: bool = False
    prior: float = DEPLOYMENT_PRIOR
    families: bool = True
    settings: DetectorSettings = field(default_factory=DetectorSettings)

    def set_aside(self, labels: Labels) -> npt.NDArray[np.bool_]:
        """Return which units are not learned from, shape (units,)."""
        return np.zeros_like(labels.background) if self.keep_background else labels.background


def train_model(
    corpus: Corpus,
    manifest_path: Path,
    options: TrainingOptions,
    *,
    name: str = "",
    progress: Progress = SILENT,
) -> Model:
    """Train, calibrate and describe a model.

    Raises
    ------
    TrainingError
        If the corpus holds one class only, or too few groups for the folds.
    """
    began = time.monotonic()
    units = read_units(corpus, options.detector, shortcuts=options.shortcuts)
    labels = units.labels
    require_both_classes(labels)
    training = units.training_set(corpus)
    fold = assign_folds(
        corpus.entries, options.split, folds=options.folds, seed=options.settings.seed
    )
    fit = cross_fit(
        options.detector,
        training,
        fold[labels.capture],
        options.settings,
        progress,
        aside=options.set_aside(labels),
    )
    thresholds = calibrate(fit.score, labels, options.target_rate)
    held_out = evaluate_scores(
        fit.score,
        capture_scores(fit.score, labels, thresholds.upper_share),
        labels,
        corpus.entries,
        unit_threshold=thresholds.unit,
        capture_threshold=thresholds.group,
    )
    named = None
    if options.families:
        least = min(thresholds.unit, thresholds.group)
        named = train_families(corpus, labels, fit.score, least, options.settings, progress)
    features = training.features
    manifest = ModelManifest(
        name=name or f"{options.detector} on {manifest_path.name}",
        detector=options.detector,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        veilwatch=__version__,
        seed=options.settings.seed,
        parameters={
            **options.settings.parameters,
            "folds": options.folds,
            "split": options.split,
            "keep_background": options.keep_background,
        },
        members=[f"member-{k}" for k in range(len(fit.members))],
        features=FeatureCard(
            sets=list(DETECTORS[options.detector].feature_sets),
            shortcuts=options.shortcuts,
            hash=features.schema.hash,
            names=features.schema.names,
        ),
        corpus=_corpus_card(corpus, labels, manifest_path),
        thresholds=thresholds,
        calibration=_calibration_card(fit.score, labels, thresholds.upper_share, options),
        held_out={"split": options.split, **held_out},
        benign_ranges=_benign_ranges(features, labels.malicious),
        families=named[1] if named else None,
        training_seconds=round(time.monotonic() - began, 1),
    )
    return Model(fit.members, manifest, named[0] if named else None)


def calibrate(score: npt.NDArray[np.float64], labels: Labels, rate: float) -> Thresholds:
    """Choose thresholds on held-out scores of benign units and benign captures.

    The share of units that speaks for a capture is the one whose capture scores have the highest
    average precision. Units whose score is NaN take no part.

    Raises
    ------
    TrainingError
        If no benign flow is left to calibrate on.
    """
    used = ~np.isnan(score)
    benign = score[used & ~labels.malicious]
    if not len(benign):
        raise TrainingError(
            f"no benign {labels.unit.replace('_', ' ')} is left to choose thresholds on",
            hint="use fewer folds, or add benign captures from other sources",
        )
    upper_share = max(
        UPPER_SHARES,
        key=lambda share: _precision(capture_scores(score, labels, share), labels),
    )
    captures = capture_scores(score, labels, upper_share)
    benign_captures = captures[~labels.capture_malicious & ~np.isnan(captures)]
    return Thresholds(
        target_false_positive_rate=rate,
        unit=conformal_threshold(benign, rate),
        group=conformal_threshold(benign_captures, rate),
        upper_share=upper_share,
        benign_units=len(benign),
        benign_captures=len(benign_captures),
    )


def capture_scores(
    score: npt.NDArray[np.float64], labels: Labels, upper_share: float
) -> npt.NDArray[np.float64]:
    """Return the score of each capture, NaN where it has no scored unit."""
    used = ~np.isnan(score)
    return group_scores(
        score[used],
        labels.capture[used],
        len(labels.capture_malicious),
        upper_share=upper_share,
    )


def _calibration_card(
    score: npt.NDArray[np.float64], labels: Labels, upper_share: float, options: TrainingOptions
) -> CalibrationCard:
    """Say what a capture's score, and so a host's, means at the prior of its place."""
    captures = capture_scores(score, labels, upper_share)
    seen = ~np.isnan(captures)
    platt = fit_platt(captures[seen], labels.capture_malicious[seen])
    return CalibrationCard(slope=platt.slope, intercept=platt.intercept, prior=options.prior)


def _precision(captures: npt.NDArray[np.float64], labels: Labels) -> float:
    """Return the average precision of capture scores, 0 where it is not defined."""
    seen = ~np.isnan(captures)
    malicious = labels.capture_malicious[seen]
    return float(average_precision_score(malicious, captures[seen])) if malicious.any() else 0.0


def _benign_ranges(
    features: FeatureFrame, malicious: npt.NDArray[np.bool_]
) -> dict[str, BenignRange]:
    benign = features.values[~malicious]
    out = {}
    for k, name in enumerate(features.schema.names):
        column = benign[:, k]
        column = column[~np.isnan(column)]
        if len(column):
            low, median, high = (float(v) for v in np.quantile(column, [0.05, 0.5, 0.95]))
            out[name] = BenignRange(low=low, median=median, high=high)
    return out


def _corpus_card(corpus: Corpus, labels: Labels, manifest_path: Path) -> CorpusCard:
    malicious = int(labels.capture_malicious.sum())
    return CorpusCard(
        manifest_sha256=hashlib.sha256(manifest_path.read_bytes()).hexdigest(),
        captures={entry.name: corpus.hashes[entry.name] for entry in corpus.entries},
        malicious_captures=malicious,
        benign_captures=len(corpus.entries) - malicious,
        malicious_units=int(labels.malicious.sum()),
        benign_units=int((~labels.malicious).sum()),
        sources=sorted({entry.source_repo for entry in corpus.entries}),
        emulated=corpus.emulated,
    )
