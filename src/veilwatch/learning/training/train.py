"""Training of a model from a corpus."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from veilwatch import __version__
from veilwatch.corpus.catalogue import Corpus
from veilwatch.learning.detectors import DETECTORS, DetectorSettings
from veilwatch.learning.evaluation.evaluate import (
    CAPTURE,
    WITH_WINDOWS,
    CaptureScores,
    evaluate_scores,
)
from veilwatch.learning.evaluation.labelled import Labels, require_both_classes
from veilwatch.learning.evaluation.posterior import DEPLOYMENT_PRIOR, fit_platt
from veilwatch.learning.evaluation.splits import SplitBy, assign_folds
from veilwatch.learning.features.sketch import sketch
from veilwatch.learning.models import (
    BenignRange,
    CalibrationCard,
    CorpusCard,
    FeatureCard,
    Model,
    ModelManifest,
    WindowCard,
)
from veilwatch.learning.models.model import WINDOW_DETECTOR
from veilwatch.learning.training.calibrate import (
    Together,
    calibrate,
    calibrate_together,
    capture_scores,
)
from veilwatch.learning.training.crossfit import cross_fit
from veilwatch.learning.training.families import train_families
from veilwatch.learning.training.units import read_units
from veilwatch.learning.training.windows import WindowFit, fit_windows, takes_windows
from veilwatch.progress import SILENT, Progress
from veilwatch.schema.features import FeatureFrame


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
    windows
        Whether a model of flows also learns host windows, to hear them where it judges a host.
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
    windows: bool = True
    families: bool = True
    settings: DetectorSettings = field(default_factory=DetectorSettings)

    def set_aside(self, labels: Labels) -> npt.NDArray[np.bool_]:
        """Return which units are not learned from, shape (units,)."""
        return np.zeros_like(labels.background) if self.keep_background else labels.background

    @property
    def hears_windows(self) -> bool:
        """Whether host windows are heard beside the units."""
        return self.windows and takes_windows(self.detector)


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
    by_units = capture_scores(fit.score, labels, thresholds.upper_share)
    captures = {CAPTURE: CaptureScores(by_units, thresholds.group)}
    windows = window_card = None
    if options.hears_windows:
        windows = fit_windows(corpus, fold, options.settings, progress)
        both = calibrate_together(
            by_units, windows.score, windows.units.labels, options.target_rate
        )
        captures[WITH_WINDOWS] = CaptureScores(both.captures, both.group)
        window_card = _window_card(windows, both, options)
    held_out = evaluate_scores(
        fit.score, captures, labels, corpus.entries, unit_threshold=thresholds.unit
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
        features=_feature_card(options.detector, options.shortcuts, features),
        corpus=_corpus_card(corpus, labels, manifest_path),
        thresholds=thresholds,
        calibration=_calibration_card(by_units, labels.capture_malicious, options),
        held_out={"split": options.split, **held_out},
        benign_ranges=_benign_ranges(features, labels.malicious),
        windows=window_card,
        families=named[1] if named else None,
        training_seconds=round(time.monotonic() - began, 1),
    )
    return Model(
        fit.members, manifest, named[0] if named else None, windows.members if windows else ()
    )


def _calibration_card(
    captures: npt.NDArray[np.float64],
    malicious: npt.NDArray[np.bool_],
    options: TrainingOptions,
) -> CalibrationCard:
    """Say what a capture's score, and so a host's, means at the prior of its place."""
    seen = ~np.isnan(captures)
    platt = fit_platt(captures[seen], malicious[seen])
    return CalibrationCard(slope=platt.slope, intercept=platt.intercept, prior=options.prior)


def _window_card(fit: WindowFit, both: Together, options: TrainingOptions) -> WindowCard:
    malicious = fit.units.labels.malicious
    return WindowCard(
        features=_feature_card(WINDOW_DETECTOR, False, fit.features),
        members=[f"window-{k}" for k in range(len(fit.members))],
        thresholds=both.windows,
        group=both.group,
        calibration=_calibration_card(both.captures, fit.units.labels.capture_malicious, options),
        benign_ranges=_benign_ranges(fit.features, malicious),
    )


def _feature_card(detector: str, shortcuts: bool, features: FeatureFrame) -> FeatureCard:
    return FeatureCard(
        sets=list(DETECTORS[detector].feature_sets),
        shortcuts=shortcuts,
        hash=features.schema.hash,
        names=features.schema.names,
    )


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
        flow_sketch=sketch(corpus.flows),
    )
