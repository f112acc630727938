"""The decision about hosts, learned on hosts that people use.

Units are hosts: every capture as one, and blends of captures with used hosts. What their flows,
channels and windows say comes from detectors that never saw the capture; trees over that evidence
decide, and are cross-fitted along the same folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from veilwatch.corpus.blend import Blend, blend_flows, plan_blends, used_hosts
from veilwatch.corpus.catalogue import Corpus
from veilwatch.corpus.endpoints import unknown_truth
from veilwatch.corpus.hygiene import is_background
from veilwatch.errors import TrainingError
from veilwatch.learning.detectors import DETECTORS, DetectorSettings, TrainingSet
from veilwatch.learning.detectors.evidence import log_odds, rank_within
from veilwatch.learning.detectors.host import HostDetector
from veilwatch.learning.evaluation.calibration import conformal_threshold
from veilwatch.learning.evaluation.evaluate import CaptureScores, UsedHosts
from veilwatch.learning.evaluation.labelled import capture_labels
from veilwatch.learning.features import compute_features
from veilwatch.learning.features.channels import channel_key
from veilwatch.learning.features.flow_class import flow_class
from veilwatch.learning.features.host_evidence import (
    Evidence,
    host_evidence,
)
from veilwatch.learning.features.resolved import resolved_names
from veilwatch.learning.features.windows import PLACE, READ_COLUMNS
from veilwatch.learning.models.model import CHANNEL_DETECTOR, WINDOW_DETECTOR
from veilwatch.learning.training.crossfit import CrossFit, cross_fit
from veilwatch.learning.training.weights import unit_weights
from veilwatch.progress import SILENT, Progress
from veilwatch.schema.features import FeatureFrame
from veilwatch.schema.flows import FlowTable

BLENDED: Final = (1, 3)
"""Used hosts that are merged with a capture where decisions are learned and measured. Ten would
triple the flows that are computed, and say the same: what counts is the strongest channel."""

MAX_CHANNELS: Final = 400
"""Most channels learned from one capture: a sweep of 40,000 looks alike."""

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Hosts:
    """Captures, each as one host, and blends of them with used hosts.

    Attributes
    ----------
    flows
        Columns that windows and channels are made of, of all hosts; `PLACE` is the host's index.
    row
        Row of each within the flows of the corpus, shape (flows,).
    base
        Capture whose label each host has, shape (hosts,); the first are the captures in order.
    size
        Used hosts that were merged with it, 0 for captures, shape (hosts,).
    malicious
        Label of each host, shape (hosts,).
    used
        Captures whose busiest host counted as used.
    """

    flows: pl.DataFrame
    row: Integers
    base: Integers
    size: Integers
    malicious: npt.NDArray[np.bool_]
    used: Integers

    def __len__(self) -> int:
        return len(self.base)

    @property
    def host(self) -> Integers:
        """Host of each flow, shape (flows,)."""
        return self.flows[PLACE].to_numpy().astype(np.int64)


def gather_hosts(
    corpus: Corpus, side: Integers, *, seed: int, sizes: Sequence[int] = BLENDED
) -> Hosts:
    """Return the captures of a corpus and blends of each with used hosts of its side.

    Parameters
    ----------
    side
        Fold of each capture, or all 0, shape (captures,).
    """
    malicious = capture_labels(corpus)
    flows = corpus.flows.select(*READ_COLUMNS, "capture")
    used = used_hosts(flows, ~malicious)
    seen = np.bincount(flows["capture"].to_numpy().astype(np.int64), minlength=len(malicious)) > 0
    infected = np.flatnonzero(malicious & seen).astype(np.int64)
    blends: list[Blend] = []
    for size in sizes:
        for bases in (infected, used):
            blends += plan_blends(bases, used, side, size, seed=seed)
    blended, row = blend_flows(flows, blends)
    captures = len(corpus.entries)
    place = pl.concat(
        [flows["capture"].cast(pl.UInt32), blended["capture"].cast(pl.UInt32) + captures]
    )
    both = pl.concat([flows, blended]).drop("capture").with_columns(place.alias(PLACE))
    base = np.concatenate([np.arange(captures), np.array([b.base for b in blends], np.int64)])
    return Hosts(
        both,
        np.concatenate([np.arange(flows.height, dtype=np.int64), row]),
        base,
        np.concatenate(
            [np.zeros(captures, np.int64), np.array([b.size for b in blends], np.int64)]
        ),
        malicious[base],
        used,
    )


@dataclass(frozen=True, slots=True)
class Part:
    """Windows or channels of hosts, with the detectors that score them.

    Attributes
    ----------
    features
        One row a unit.
    fit
        The detectors, and what each said of what it never saw.
    learned
        Label of each unit as it was learned from, shape (units,).
    """

    features: FeatureFrame
    fit: CrossFit
    learned: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class HostParts:
    """Hosts, and what their windows and channels say: the same beside every detector of flows.

    Attributes
    ----------
    hosts
        The captures and blends.
    side
        Fold of each host, shape (hosts,).
    windows, channels
        What is heard beside the flows.
    """

    hosts: Hosts
    side: Integers
    windows: Part
    channels: Part


@dataclass(frozen=True, slots=True)
class HostFit:
    """Detectors that decide about hosts, and what each said of hosts that it never saw.

    Attributes
    ----------
    parts
        The hosts, and what is heard beside their flows.
    evidence
        One row a host.
    decision
        The detectors that decide; its score is NaN for hosts without a flow.
    """

    parts: HostParts
    evidence: FeatureFrame
    decision: CrossFit


def fit_parts(
    corpus: Corpus, fold: Integers, settings: DetectorSettings, progress: Progress = SILENT
) -> HostParts:
    """Cross-fit the windows and channels of captures and blends.

    Parameters
    ----------
    fold
        Fold of each capture, shape (captures,).
    settings
        Seed and threads; parameters of a detector of flows are not for these trees.

    Raises
    ------
    TrainingError
        If what lies outside some fold is of one class only.
    """
    settings = replace(settings, parameters={}, checkpoints=None)
    progress.start("channels and host windows of captures and used hosts")
    hosts = gather_hosts(corpus, fold, seed=settings.seed)
    side = fold[hosts.base]
    windows = _fit_windows(hosts, side, settings, progress)
    return HostParts(hosts, side, windows, _fit_channels(corpus, hosts, side, settings, progress))


def fit_decision(
    parts: HostParts,
    flow_score: Floats,
    settings: DetectorSettings,
    progress: Progress = SILENT,
) -> HostFit:
    """Cross-fit the decision about hosts beside a detector of flows.

    Parameters
    ----------
    flow_score
        Held-out score of each flow of the corpus, shape (flows,).

    Raises
    ------
    TrainingError
        If what lies outside some fold is of one class only.
    """
    settings = replace(settings, parameters={}, checkpoints=None)
    evidence = evidence_of(
        parts.hosts,
        flow_score,
        parts.channels.features,
        parts.channels.fit.score,
        parts.windows.features,
        parts.windows.fit.score,
    )
    decision = _fit_decision(parts.hosts, parts.side, evidence, settings, progress)
    return HostFit(parts, evidence, decision)


def _fit_decision(
    hosts: Hosts,
    side: Integers,
    evidence: FeatureFrame,
    settings: DetectorSettings,
    progress: Progress,
) -> CrossFit:
    count = len(hosts)
    host = np.arange(count, dtype=np.int64)
    silent = np.bincount(hosts.host, minlength=count) == 0
    weight = np.ones(count)
    weight[~silent] = unit_weights(host[~silent], hosts.malicious[~silent])
    training = TrainingSet(evidence, hosts.malicious, host, hosts.base, weight)
    fit = cross_fit(
        HostDetector.name, training, side, settings, progress, aside=silent, kind=HostDetector
    )
    return CrossFit(fit.members, np.where(silent, np.nan, fit.score))


def evidence_of(
    hosts: Hosts,
    flow_score: Floats,
    channels: FeatureFrame,
    channel_score: Floats,
    windows: FeatureFrame,
    window_score: Floats,
) -> FeatureFrame:
    """Return what flows, channels and windows say of each host.

    Parameters
    ----------
    flow_score
        Score of each flow of the corpus, shape (flows of the corpus,).
    """
    of_flow = hosts.flows.select(flow_class()).to_series().to_numpy().astype(np.int64)
    return host_evidence(
        len(hosts),
        Evidence(hosts.host, log_odds(flow_score[hosts.row]), of_flow),
        Evidence(
            _host_of(channels),
            log_odds(channel_score),
            channels.keys["flow_class"].to_numpy().astype(np.int64),
        ),
        Evidence(_host_of(windows), log_odds(window_score), np.zeros(len(windows), np.int64)),
    )


@dataclass(frozen=True, slots=True)
class HostThreshold:
    """From which score on a host is an alert, and how many benign hosts that rests on."""

    threshold: float
    hosts: int


def host_threshold(hosts: Hosts, score: Floats, rate: float) -> HostThreshold:
    """Choose the threshold on held-out scores of benign captures; NaN takes no part.

    Raises
    ------
    TrainingError
        If no benign capture is left.
    """
    benign = score[~hosts.malicious & (hosts.size == 0) & ~np.isnan(score)]
    if not len(benign):
        raise TrainingError(
            "no benign host is left to choose a threshold on",
            hint="use fewer folds, or add benign captures from other sources",
        )
    return HostThreshold(conformal_threshold(benign, rate), len(benign))


def host_limits(hosts: Hosts, side: Integers, score: Floats, rate: float) -> Floats:
    """Return the threshold of each host, set by benign captures of the other folds.

    Parameters
    ----------
    side
        Fold of each host, shape (hosts,).

    Raises
    ------
    TrainingError
        If the other folds of some fold hold no benign capture.
    """
    limit = np.full(len(hosts), np.nan)
    for fold in np.unique(side):
        others = np.where(side == fold, np.nan, score)
        limit[side == fold] = host_threshold(hosts, others, rate).threshold
    return limit


def decided_captures(hosts: Hosts, score: Floats, threshold: Floats | float) -> CaptureScores:
    """Return what the decision says of the captures as they were recorded."""
    captures = hosts.size == 0
    limit = np.broadcast_to(threshold, score.shape)
    return CaptureScores(score[captures], limit[captures])


def decided_blends(hosts: Hosts, score: Floats, threshold: Floats | float) -> dict[int, UsedHosts]:
    """Return what the decision says of blends, by how many used hosts were merged."""
    limit = np.broadcast_to(threshold, score.shape)
    return {
        size: UsedHosts(
            *(values[hosts.size == size] for values in (score, hosts.malicious, hosts.base, limit))
        )
        for size in sorted(set(hosts.size.tolist()) - {0})
    }


def judges_flows(detector: str) -> bool:
    """Whether channels and windows can be heard beside a detector: those that judge flows."""
    return DETECTORS[detector].unit == "flow"


def part_features(hosts: Hosts, detector: str) -> FeatureFrame:
    """Return the windows or channels of hosts, as a detector of them sees them."""
    return compute_features(FlowTable(hosts.flows), DETECTORS[detector].feature_sets)


def _fit_windows(
    hosts: Hosts, side: Integers, settings: DetectorSettings, progress: Progress
) -> Part:
    features = part_features(hosts, WINDOW_DETECTOR)
    host = _host_of(features)
    malicious = hosts.malicious[host]
    training = TrainingSet(
        features, malicious, host, hosts.base[host], unit_weights(host, malicious)
    )
    return Part(
        features,
        cross_fit(WINDOW_DETECTOR, training, side[host], settings, progress),
        malicious,
    )


def _fit_channels(
    corpus: Corpus, hosts: Hosts, side: Integers, settings: DetectorSettings, progress: Progress
) -> Part:
    """Learn from the channels of captures alone: merged with others they are the same."""
    features = part_features(hosts, CHANNEL_DETECTOR)
    host = _host_of(features)
    malicious = hosts.malicious[host] & ~_background(hosts, features)
    draw = np.random.default_rng(settings.seed).random(len(host))
    unknown = unknown_truth(features.keys, corpus.entries, PLACE).to_numpy()
    aside = (hosts.size[host] > 0) | (rank_within(host, -draw) >= MAX_CHANNELS)
    aside |= unknown & malicious
    weight = np.ones(len(host))
    weight[~aside] = unit_weights(host[~aside], malicious[~aside])
    training = TrainingSet(features, malicious, host, hosts.base[host], weight)
    return Part(
        features,
        cross_fit(CHANNEL_DETECTOR, training, side[host], settings, progress, aside=aside),
        malicious,
    )


def _background(hosts: Hosts, channels: FeatureFrame) -> npt.NDArray[np.bool_]:
    """Return which channels hold nothing but what a host asks for without an infection too."""
    key, expressions = channel_key()
    named = hosts.flows.with_columns(resolved_names(hosts.flows))
    of_flows = (
        named.lazy()
        .with_columns(is_background("resolved_name").alias("background"))
        .with_columns(expressions)
        .group_by(key)
        .agg(pl.col("background").all())
    )
    found = (
        channels.keys.lazy()
        .select(key)
        .join(of_flows, on=list(key), how="left", maintain_order="left")
        .collect()
    )
    return found["background"].fill_null(False).to_numpy()


def _host_of(features: FeatureFrame) -> Integers:
    return features.keys[PLACE].to_numpy().astype(np.int64)
