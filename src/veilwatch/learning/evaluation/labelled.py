"""Labels of a corpus beside its flows, host windows or captures."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl

from veilwatch.corpus.catalogue import Corpus
from veilwatch.corpus.endpoints import unknown_truth
from veilwatch.corpus.hygiene import ASKED, is_background
from veilwatch.errors import TrainingError
from veilwatch.learning.features.flow_class import is_encrypted
from veilwatch.learning.features.resolved import RESOLVED_COLUMNS, resolved_names
from veilwatch.learning.features.windows import PLACE
from veilwatch.schema.features import Unit


@dataclass(frozen=True, slots=True)
class Labels:
    """Truth of a corpus, by unit and by capture.

    Attributes
    ----------
    capture
        int64, index of each unit's capture, shape (units,).
    malicious
        bool, label of each unit's capture, shape (units,).
    encrypted
        bool, whether the unit is a flow with a handshake of TLS, DTLS or QUIC, shape (units,).
    capture_malicious
        bool, label of each capture, shape (captures,).
    background
        bool, whether the unit is a flow of a malicious capture that its host would have had
        without an infection too (`veilwatch.corpus.hygiene`), shape (units,).
    unit
        What a unit is.
    unknown
        bool, whether nobody knows the truth of the unit: its capture is malicious, and it goes to
        none of the endpoints that are known to be (`veilwatch.corpus.endpoints`). It is neither
        learned from nor counted, shape (units,); empty for none.
    """

    capture: npt.NDArray[np.int64]
    malicious: npt.NDArray[np.bool_]
    encrypted: npt.NDArray[np.bool_]
    capture_malicious: npt.NDArray[np.bool_]
    background: npt.NDArray[np.bool_]
    unit: Unit = "flow"
    unknown: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))

    def __post_init__(self) -> None:
        """Know the truth of every unit where nothing else is said."""
        if len(self.unknown) != len(self.capture):
            object.__setattr__(self, "unknown", np.zeros(len(self.capture), bool))


def read_labels(corpus: Corpus) -> Labels:
    """Return the truth of a corpus by flow.

    Raises
    ------
    TrainingError
        If no capture holds a flow.
    """
    if corpus.flows.is_empty():
        raise TrainingError("no capture of the corpus holds a flow", hint="check its captures")
    capture = corpus.flows["capture"].to_numpy().astype(np.int64)
    encrypted = corpus.flows.select(is_encrypted()).to_series().to_numpy().astype(bool)
    by_capture = capture_labels(corpus)
    malicious = by_capture[capture]
    background = malicious & _background(corpus)
    unknown = unknown_truth(corpus.flows, corpus.entries, "capture").to_numpy() & ~background
    return Labels(
        capture, malicious, encrypted, by_capture, background, unknown=malicious & unknown
    )


def _background(corpus: Corpus) -> npt.NDArray[np.bool_]:
    """Return which flows any host would have, by the names that tell where they go."""
    # Each capture is a place of its own: a name that was resolved in one says nothing of another.
    places = corpus.flows.select(*RESOLVED_COLUMNS, pl.col("capture").alias(PLACE))
    names = corpus.flows.select(*ASKED, resolved=resolved_names(places))
    return names.select(is_background("resolved")).to_series().to_numpy().astype(bool)


def unit_labels(corpus: Corpus, capture: npt.NDArray[np.int64], unit: Unit) -> Labels:
    """Return the truth of units other than flows, given the capture of each.

    Raises
    ------
    TrainingError
        If there are no units.
    """
    if not len(capture):
        raise TrainingError(
            f"the corpus holds no {unit.replace('_', ' ')}", hint="check its captures"
        )
    by_capture = capture_labels(corpus)
    none = np.zeros(len(capture), bool)
    return Labels(capture, by_capture[capture], none, by_capture, none, unit)


def capture_labels(corpus: Corpus) -> npt.NDArray[np.bool_]:
    """Return whether each capture is malicious, shape (captures,)."""
    return np.array([entry.label == "malicious" for entry in corpus.entries], bool)


def require_both_classes(labels: Labels) -> None:
    """Refuse a corpus of one class: nothing can be told apart.

    Raises
    ------
    TrainingError
        If units of one class are missing.
    """
    for wanted, present in (
        ("malicious", bool(labels.malicious.any())),
        ("benign", bool((~labels.malicious).any())),
    ):
        if not present:
            raise TrainingError(
                f"the corpus holds no {wanted} {labels.unit.replace('_', ' ')}",
                hint=f"add {wanted} captures to its manifest",
            )
