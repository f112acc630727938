"""Training of a model from a corpus."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from veilwatch import __version__
from veilwatch.corpus.catalogue import Corpus
from veilwatch.learning.detectors import DETECTORS, DetectorSettings
from veilwatch.learning.detectors.host import HostDetector
from veilwatch.learning.evaluation.evaluate import (
    CAPTURE,
    WITH_WINDOWS,
    CaptureScores,
    UsedHosts,
    evaluate_scores,
)
from veilwatch.learning.evaluation.labelled import Labels, require_both_classes
from veilwatch.learning.evaluation.posterior import DEPLOYMENT_PRIOR, fit_platt
from veilwatch.learning.evaluation.splits import SplitBy, assign_folds
from veilwatch.learning.features.sketch import sketch
from veilwatch.learning.models import (
    BenignRange,
    BlendCard,
    CalibrationCard,
    CorpusCard,
    FeatureCard,
    HostCard,
    Model,
    ModelManifest,
    PartCard,
)
from veilwatch.learning.models.model import CHANNEL_DETECTOR, WINDOW_DETECTOR
from veilwatch.learning.training.calibrate import calibrate, capture_scores
from veilwatch.learning.training.crossfit import CrossFit, cross_fit
from veilwatch.learning.training.families import train_families
from veilwatch.learning.training.hosts import (
    HostFit,
    Part,
    decided_blends,
    decided_captures,
    fit_decision,
    fit_parts,
    host_threshold,
    judges_flows,
)
from veilwatch.learning.training.units import read_units
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
        What stays together in a fold: "group" (one source, family and day), "source" or
        "publisher".
    shortcuts
        Whether features that tell the place rather than the threat take part.
    keep_background
        Whether background flows of infected hosts are learned as malicious, and not as benign.
    prior
        Share of hosts that are taken to be infected where the model will be used.
    hosts
        Whether a model of flows also learns channels, host windows and the decision about a host
        that a person uses too; without, the more suspicious flows alone decide.
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
    hosts: bool = True
    families: bool = True
    settings: DetectorSettings = field(default_factory=DetectorSettings)

    @property
    def decides_by_evidence(self) -> bool:
        """Whether hosts are decided about by flows, channels and windows together."""
        return self.hosts and judges_flows(self.detector)


def train_model(
    corpus: Corpus,
    manifest_path: Path,
    options: TrainingOptions,
    *,
    name: str = "",
    progress: Progress = SILENT,
) -> Model:
    """Train, calibrate and describe a model.

    With `SOURCE_DATE_EPOCH` in the environment (reproducible-builds.org) the model says that it was
    made then, and in no time: the same corpus, seed and threads give the same bytes.

    Raises
    ------
    TrainingError
        If the corpus holds one class only, or too few groups for the folds.
    """
    began = time.monotonic()
    fixed = os.environ.get("SOURCE_DATE_EPOCH", "")
    made = datetime.fromtimestamp(int(fixed), UTC) if fixed.isdigit() else datetime.now(UTC)
    units = read_units(corpus, options.detector, shortcuts=options.shortcuts)
    labels = units.labels
    seed = options.settings.seed
    training = units.training_set(corpus, seed, keep_background=options.keep_background)
    require_both_classes(labels)
    fold = assign_folds(corpus.entries, options.split, folds=options.folds, seed=seed)
    fit = cross_fit(
        options.detector,
        training,
        fold[labels.capture],
        options.settings,
        progress,
        aside=units.left_out(seed),
    )
    thresholds = calibrate(fit.score, labels, options.target_rate)
    by_units = capture_scores(fit.score, labels, thresholds.upper_share)
    captures = {CAPTURE: CaptureScores(by_units, thresholds.group)}
    hosts = card = None
    used: dict[int, UsedHosts] = {}
    if options.decides_by_evidence:
        parts = fit_parts(corpus, fold, options.settings, progress)
        hosts = fit_decision(parts, fit.score, options.settings, progress)
        card = _host_card(hosts, options)
        score = hosts.decision.score
        captures[WITH_WINDOWS] = decided_captures(parts.hosts, score, card.threshold)
        used = decided_blends(parts.hosts, score, card.threshold)
    held_out = evaluate_scores(
        fit.score, captures, labels, corpus.entries, unit_threshold=thresholds.unit, used=used
    )
    named = None
    if options.families:
        least = min(thresholds.unit, thresholds.group)
        named = train_families(corpus, labels, fit.score, least, options.settings, progress)
    features = training.features
    manifest = ModelManifest(
        name=name or f"{options.detector} on {manifest_path.name}",
        detector=options.detector,
        created=made.isoformat(timespec="seconds"),
        veilwatch=__version__,
        seed=seed,
        parameters={
            **options.settings.parameters,
            "folds": options.folds,
            "split": options.split,
            "keep_background": options.keep_background,
        },
        members=_folders("member", fit),
        features=_feature_card(options.detector, options.shortcuts, features),
        corpus=_corpus_card(corpus, labels, manifest_path),
        thresholds=thresholds,
        calibration=_calibration_card(by_units, labels.capture_malicious, options),
        held_out={"split": options.split, **held_out},
        benign_ranges=_benign_ranges(features, training.malicious),
        hosts=card,
        families=named[1] if named else None,
        training_seconds=0.0 if fixed else round(time.monotonic() - began, 1),
    )
    return Model(
        fit.members,
        manifest,
        named[0] if named else None,
        hosts.parts.windows.fit.members if hosts else (),
        hosts.parts.channels.fit.members if hosts else (),
        hosts.decision.members if hosts else (),
    )


def _folders(kind: str, fit: CrossFit) -> list[str]:
    return [f"{kind}-{k}" for k in range(len(fit.members))]


def _calibration_card(
    captures: npt.NDArray[np.float64],
    malicious: npt.NDArray[np.bool_],
    options: TrainingOptions,
) -> CalibrationCard:
    """Say what a capture's score, and so a host's, means at the prior of its place."""
    seen = ~np.isnan(captures)
    platt = fit_platt(captures[seen], malicious[seen])
    return CalibrationCard(slope=platt.slope, intercept=platt.intercept, prior=options.prior)


def _host_card(fit: HostFit, options: TrainingOptions) -> HostCard:
    hosts, score = fit.parts.hosts, fit.decision.score
    benign = host_threshold(hosts, score, options.target_rate)
    blended = hosts.size > 0
    return HostCard(
        features=FeatureCard(
            sets=list(HostDetector.feature_sets),
            shortcuts=False,
            hash=fit.evidence.schema.hash,
            names=fit.evidence.schema.names,
        ),
        members=_folders("host", fit.decision),
        channels=_part_card("channel", CHANNEL_DETECTOR, fit.parts.channels),
        windows=_part_card("window", WINDOW_DETECTOR, fit.parts.windows),
        threshold=benign.threshold,
        target_false_positive_rate=options.target_rate,
        benign_hosts=benign.hosts,
        calibration=_calibration_card(score, hosts.malicious, options),
        benign_ranges=_benign_ranges(fit.evidence, hosts.malicious),
        blends=BlendCard(
            sizes=sorted(set(hosts.size[blended].tolist())),
            malicious=int((blended & hosts.malicious).sum()),
            benign=int((blended & ~hosts.malicious).sum()),
            used_hosts=len(hosts.used),
        ),
    )


def _part_card(folder: str, detector: str, part: Part) -> PartCard:
    return PartCard(
        features=_feature_card(detector, False, part.features),
        members=_folders(folder, part.fit),
        benign_ranges=_benign_ranges(part.features, part.learned),
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
