"""Labels of a corpus beside its flows, host windows or captures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from veilwatch.corpus.catalogue import Corpus
from veilwatch.corpus.hygiene import is_background
from veilwatch.errors import TrainingError
from veilwatch.schema.features import Unit
from veilwatch.schema.flows import TLS_SERVICES


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
    """

    capture: npt.NDArray[np.int64]
    malicious: npt.NDArray[np.bool_]
    encrypted: npt.NDArray[np.bool_]
    capture_malicious: npt.NDArray[np.bool_]
    background: npt.NDArray[np.bool_]
    unit: Unit = "flow"


def is_encrypted() -> pl.Expr:
    """Whether a flow shows a handshake of TLS, DTLS or QUIC."""
    return (
        (pl.col("tls_client_hello_bytes") > 0)
        | (pl.col("tls_server_hello_bytes") > 0)
        | (pl.col("quic_version") > 0)
        | pl.col("service").is_in(sorted(TLS_SERVICES))
    )


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
    background = corpus.flows.select(is_background()).to_series().to_numpy().astype(bool)
    return Labels(capture, malicious, encrypted, by_capture, malicious & background)


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
