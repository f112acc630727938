"""A small labelled corpus and a model of it, without captures on disk."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tests.known import known
from tests.learning.features.factory import random_flows
from veilwatch.corpus.catalogue import Corpus
from veilwatch.corpus.manifest import CaptureEntry
from veilwatch.learning.checks.units import draw_features, draw_training_set
from veilwatch.learning.detectors import DETECTORS, DetectorSettings, TrainingSet
from veilwatch.learning.detectors.host import HostDetector
from veilwatch.learning.features import compute_features
from veilwatch.learning.models import Model
from veilwatch.learning.training import TrainingOptions, train_model
from veilwatch.schema.features import FeatureFrame
from veilwatch.schema.flows import FlowTable

QUICK = DetectorSettings(
    seed=3,
    threads=1,
    parameters={"num_boost_round": 8, "learning_rate": 0.3, "feature_fraction": 0.6},
)
"""Trees few enough for a test, and each of them strong enough to tell something."""

QUICK_LSTM = DetectorSettings(
    seed=3,
    threads=1,
    parameters={"hidden": 8, "epochs": 4, "batch": 32, "samples": 640, "learning_rate": 0.03},
)
QUICK_MOBILENET = DetectorSettings(
    seed=3,
    threads=1,
    parameters={"width": 0.1, "epochs": 3, "batch": 16, "samples": 384, "learning_rate": 0.01},
)
"""Networks small enough for a test."""

QUICK_WORDS = DetectorSettings(
    seed=3,
    threads=1,
    parameters={
        "packets": 6,
        "dimensions": 6,
        "word_epochs": 1,
        "hidden": 6,
        "epochs": 4,
        "learning_rate": 0.02,
    },
)
"""A network over header words small enough for a test."""


def entry(
    number: int, label: str, *, group: str = "", source: str = "", family: str = ""
) -> CaptureEntry:
    """A capture of a manifest; nothing lies on disk."""
    malicious = label == "malicious"
    name = f"{label}/{number}.pcap"
    return CaptureEntry(
        file=Path(name),
        name=name,
        label="malicious" if malicious else "benign",
        family=family or (f"family-{number % 3}" if malicious else ""),
        is_ransomware=malicious and number % 2 == 0,
        group=group or f"group-{number}",
        source_repo=source or f"source-{number % 6}",
        capture_start="2026-01-01",
    )


def make_corpus(
    *, captures: int = 24, flows: int = 30, seed: int = 0, used: bool = False
) -> Corpus:
    """Every other capture is malicious and shows it in some features.

    Hosts are many; with `used` one of each capture has two thirds of its flows, so that it counts
    as one that a person uses.
    """
    entries = [entry(k, "malicious" if k % 2 else "benign") for k in range(captures)]
    capture = np.repeat(np.arange(captures), flows)
    table = random_flows(len(capture), seed=seed, malicious=capture % 2 == 1)
    frame = table.frame.with_columns(pl.Series("capture", capture, pl.UInt32))
    if used:
        busy = pl.int_range(pl.len()) % 3 > 0
        frame = frame.with_columns(
            src_ip=pl.when(busy).then(pl.lit("10.0.0.1")).otherwise("src_ip"),
            subscriber=pl.when(busy).then(pl.lit("")).otherwise("subscriber"),
        )
    hashes = {item.name: hashlib.sha256(item.name.encode()).hexdigest() for item in entries}
    return Corpus(entries, frame, hashes, {})


def make_training_set(flows: int = 300, *, seed: int = 0) -> TrainingSet:
    """Flows of both classes, ten captures of one group each."""
    capture = np.arange(flows) % 10
    malicious = capture % 2 == 1
    features = compute_features(random_flows(flows, seed=seed, malicious=malicious))
    return TrainingSet(features, malicious, capture, capture, np.ones(flows))


def own_features(
    detector: str,
    rows: int,
    *,
    seed: int = 0,
    malicious: np.ndarray[Any, Any] | None = None,
    shortcuts: bool = False,
) -> FeatureFrame:
    """Units of a detector's own kind, with its own features."""
    kind = DETECTORS[detector]
    return draw_features(kind, rows, seed=seed, malicious=malicious, shortcuts=shortcuts)


def own_training_set(detector: str, *, seed: int = 0, rows: int = 300) -> TrainingSet:
    """Units of both classes as a detector sees them."""
    return draw_training_set(DETECTORS[detector], seed=seed, rows=rows)


def make_model(folder: Path, *, folds: int = 2) -> tuple[Model, Corpus]:
    """Train a model on a small corpus whose manifest is written into `folder`.

    It decides about hosts by flows, channels and windows, learned from blends too.
    """
    corpus = make_corpus(captures=12, used=True)
    manifest = folder / "MANIFEST.csv"
    manifest.write_text("made by the test\n")
    options = TrainingOptions(folds=folds, target_rate=0.05, settings=QUICK)
    return train_model(corpus, manifest, options), corpus


def attentive(model: Model) -> Model:
    """The same model with a decision that heeds channels and windows as much as flows.

    Of a small corpus the flows alone tell everything.
    """
    settings = DetectorSettings(seed=3, threads=1)
    deciders = []
    for seed in (1, 2):
        decider = HostDetector()
        decider.fit(draw_training_set(HostDetector, seed=seed, rows=400), settings)
        deciders.append(decider)
    card = known(model.manifest.hosts).model_copy(update={"threshold": 0.5})
    manifest = model.manifest.model_copy(update={"hosts": card})
    return replace(model, hosts=deciders, manifest=manifest)


QUICK_BY_DETECTOR = {
    "lightgbm": QUICK,
    "catboost": DetectorSettings(
        seed=3, threads=1, parameters={"iterations": 20, "learning_rate": 0.3, "depth": 4}
    ),
    "channel": QUICK,
    "host_window": QUICK,
    "lstm": QUICK_LSTM,
    "mobilenet": QUICK_MOBILENET,
    "header_words": QUICK_WORDS,
}
"""Settings that make each detector quick."""

QUICK_BY_DETECTOR["ensemble"] = DetectorSettings(
    seed=3,
    threads=1,
    parameters={
        "members": ["lightgbm", "lstm"],  # a tree and a network stand for all
        **{name: QUICK_BY_DETECTOR[name].parameters for name in ("lightgbm", "lstm")},
    },
)


MARKS = ("fwd_size_std", "bwd_size_std", "fwd_payload_std", "bwd_payload_std", "bwd_gap_std")
"""What each family of a corpus of families shows: one measure that no other family moves."""


def family_flows(family: np.ndarray, *, seed: int) -> FlowTable:
    """Draw flows: -1 benign, k malicious with the mark k, `len(MARKS)` malicious without one."""
    frame = random_flows(len(family), seed=seed, malicious=family >= 0).frame
    # Conversations: a family is told from nothing less (`veilwatch.learning.detectors.content`).
    frame = frame.with_columns(
        protocol=pl.lit(6, pl.UInt8),
        **{
            name: pl.max_horizontal(name, pl.lit(3, frame.schema[name]))
            for name in ("fwd_packets", "bwd_packets", "fwd_payload_bytes", "bwd_payload_bytes")
        },
    )
    return FlowTable(
        frame.with_columns(
            pl.when(pl.Series(family == k)).then(pl.col(mark) + 500).otherwise(pl.col(mark))
            for k, mark in enumerate(MARKS)
        )
    )


def make_family_corpus(
    *, families: int = len(MARKS), captures: int = 5, flows: int = 12, seed: int = 0
) -> Corpus:
    """As many benign captures as malicious ones of a few families, each a group of its own."""
    kinds = [*np.repeat(np.arange(families), captures).tolist(), *[-1] * families * captures]
    entries = [
        entry(k, "benign" if kind < 0 else "malicious", family="" if kind < 0 else f"family-{kind}")
        for k, kind in enumerate(kinds)
    ]
    capture = np.repeat(np.arange(len(kinds)), flows)
    frame = family_flows(np.array(kinds)[capture], seed=seed).frame
    hashes = {item.name: hashlib.sha256(item.name.encode()).hexdigest() for item in entries}
    return Corpus(entries, frame.with_columns(pl.Series("capture", capture, pl.UInt32)), hashes, {})
