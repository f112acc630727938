"""Labels of a corpus beside its flows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from veilwatch.corpus.catalogue import Corpus
from veilwatch.errors import TrainingError


@dataclass(frozen=True, slots=True)
class Labels:
    """Truth of a corpus, by flow and by capture.

    Attributes
    ----------
    capture
        int64, index of each flow's capture, shape (flows,).
    malicious
        bool, label of each flow's capture, shape (flows,).
    encrypted
        bool, whether the flow shows a TLS or QUIC handshake, shape (flows,).
    capture_malicious
        bool, label of each capture, shape (captures,).
    """

    capture: npt.NDArray[np.int64]
    malicious: npt.NDArray[np.bool_]
    encrypted: npt.NDArray[np.bool_]
    capture_malicious: npt.NDArray[np.bool_]


def is_encrypted() -> pl.Expr:
    """Whether a flow shows a TLS or QUIC handshake."""
    return (
        (pl.col("tls_client_hello_bytes") > 0)
        | (pl.col("tls_server_hello_bytes") > 0)
        | (pl.col("quic_version") > 0)
        | pl.col("service").is_in(["tls", "quic"])
    )


def read_labels(corpus: Corpus) -> Labels:
    """Return the truth of a corpus.

    Raises
    ------
    TrainingError
        If no capture holds a flow.
    """
    if corpus.flows.is_empty():
        raise TrainingError("no capture of the corpus holds a flow", hint="check its captures")
    capture = corpus.flows["capture"].to_numpy().astype(np.int64)
    by_capture = np.array([entry.label == "malicious" for entry in corpus.entries], bool)
    encrypted = corpus.flows.select(is_encrypted()).to_series().to_numpy().astype(bool)
    return Labels(capture, by_capture[capture], encrypted, by_capture)


def require_both_classes(labels: Labels) -> None:
    """Refuse a corpus of one class: nothing can be told apart.

    Raises
    ------
    TrainingError
        If flows of one class are missing.
    """
    for wanted, present in (
        ("malicious", bool(labels.malicious.any())),
        ("benign", bool((~labels.malicious).any())),
    ):
        if not present:
            raise TrainingError(
                f"the corpus holds no {wanted} flow", hint=f"add {wanted} captures to its manifest"
            )
