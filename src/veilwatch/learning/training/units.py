"""What a detector judges, taken from a corpus: its units, their features and their truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from veilwatch.corpus.catalogue import Corpus
from veilwatch.corpus.headers import load_headers
from veilwatch.errors import TrainingError
from veilwatch.learning.detectors import DETECTORS, Detector, TrainingSet
from veilwatch.learning.evaluation.labelled import Labels, read_labels, unit_labels
from veilwatch.learning.features import capture_features, compute_features
from veilwatch.learning.features.windows import PLACE
from veilwatch.learning.training.weights import left_out, unit_weights
from veilwatch.schema.features import FeatureFrame, Unit
from veilwatch.schema.flows import FlowTable


@dataclass(frozen=True, slots=True)
class Units:
    """Everything of a corpus that one detector judges.

    Attributes
    ----------
    features
        One row a unit.
    labels
        Their truth.
    """

    features: FeatureFrame
    labels: Labels

    def training_set(
        self, corpus: Corpus, seed: int, *, keep_background: bool = False
    ) -> TrainingSet:
        """Return all units as detectors learn from them and score them: grouped and weighed.

        Background of infected hosts is benign traffic of the laboratory that the malware comes
        from: the best there is against learning the laboratory. With `keep_background` it is
        learned with its capture's label.
        """
        groups = {group: k for k, group in enumerate(sorted({e.group for e in corpus.entries}))}
        group = np.array([groups[entry.group] for entry in corpus.entries], np.int64)
        capture = self.labels.capture
        malicious = self.labels.malicious & (keep_background | ~self.labels.background)
        learned = ~self.left_out(seed)
        weight = np.ones(len(capture))
        weight[learned] = unit_weights(capture[learned], malicious[learned])
        return TrainingSet(self.features, malicious, capture, group[capture], weight)

    def left_out(self, seed: int) -> npt.NDArray[np.bool_]:
        """Return which units are scored but not learned from (`weights.left_out`)."""
        labels = self.labels
        return left_out(labels.capture, labels.encrypted, seed, labels.unknown)


def read_units(corpus: Corpus, detector: str, *, shortcuts: bool = False) -> Units:
    """Return the units of a corpus that a detector judges.

    Raises
    ------
    TrainingError
        If the detector is unknown or the corpus holds no such unit.
    """
    kind = known_detector(detector)
    return _READERS[kind.unit](corpus, kind.feature_sets, shortcuts)


def known_detector(name: str) -> type[Detector]:
    """Return a detector by name.

    Raises
    ------
    TrainingError
        If there is none of that name.
    """
    if name not in DETECTORS:
        raise TrainingError(f"unknown detector {name!r}", hint=f"known: {', '.join(DETECTORS)}")
    return DETECTORS[name]


def _flows(corpus: Corpus, sets: Sequence[str], shortcuts: bool) -> Units:
    labels = read_labels(corpus)
    return Units(compute_features(FlowTable(corpus.flows), sets, shortcuts=shortcuts), labels)


def _of_places(corpus: Corpus, sets: Sequence[str], shortcuts: bool) -> Units:
    """Return host windows or channels, whichever the sets describe."""
    # Who labels captures says that each is a place of its own: a host of one is no host of another.
    flows = corpus.flows.with_columns(pl.col("capture").alias(PLACE))
    features = compute_features(FlowTable(flows), sets, shortcuts=shortcuts)
    capture = features.keys[PLACE].to_numpy().astype(np.int64)
    return Units(features, unit_labels(corpus, capture, features.schema.unit))


def _captures(corpus: Corpus, sets: Sequence[str], shortcuts: bool) -> Units:
    tables = load_headers(corpus.entries, corpus.hashes)
    capture = np.flatnonzero([len(table) for table in tables]).astype(np.int64)
    labels = unit_labels(corpus, capture, "capture")
    kept = [tables[k] for k in capture]
    return Units(capture_features(kept, sets, shortcuts=shortcuts), labels)


_READERS: Final[dict[Unit, Callable[[Corpus, Sequence[str], bool], Units]]] = {
    "flow": _flows,
    "channel": _of_places,
    "host_window": _of_places,
    "capture": _captures,
}
"""How the units of each kind are taken from a corpus."""
