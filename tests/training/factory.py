"""A small labelled corpus and a model of it, without captures on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from tests.features.factory import random_flows
from veilwatch.corpus.catalogue import Corpus
from veilwatch.corpus.manifest import CaptureEntry
from veilwatch.detectors import DetectorSettings, TrainingSet
from veilwatch.features import DEFAULT_SETS, compute_features
from veilwatch.registry import Model
from veilwatch.training import TrainingOptions, train_model

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
    parameters={"width": 0.05, "epochs": 2, "batch": 16, "samples": 256, "learning_rate": 0.01},
)
"""Networks small enough for a test."""


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


def make_corpus(*, captures: int = 24, flows: int = 30, seed: int = 0) -> Corpus:
    """Every other capture is malicious and shows it in some features."""
    entries = [entry(k, "malicious" if k % 2 else "benign") for k in range(captures)]
    capture = np.repeat(np.arange(captures), flows)
    table = random_flows(len(capture), seed=seed, malicious=capture % 2 == 1)
    frame = table.frame.with_columns(pl.Series("capture", capture, pl.UInt32))
    hashes = {item.name: hashlib.sha256(item.name.encode()).hexdigest() for item in entries}
    return Corpus(entries, frame, hashes, {})


def make_training_set(
    flows: int = 300, *, seed: int = 0, sets: Sequence[str] = DEFAULT_SETS
) -> TrainingSet:
    """Flows of both classes, ten captures of one group each."""
    capture = np.arange(flows) % 10
    malicious = capture % 2 == 1
    features = compute_features(random_flows(flows, seed=seed, malicious=malicious), sets)
    return TrainingSet(features, malicious, capture, capture, np.ones(flows))


def make_model(folder: Path, *, folds: int = 2) -> tuple[Model, Corpus]:
    """Train a model on a small corpus whose manifest is written into `folder`."""
    corpus = make_corpus(captures=12)
    manifest = folder / "MANIFEST.csv"
    manifest.write_text("made by the test\n")
    options = TrainingOptions(folds=folds, target_rate=0.05, settings=QUICK)
    return train_model(corpus, manifest, options), corpus
