"""Captures that hold the same traffic as others: cuts and collections of what others recorded."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from veilwatch.corpus.catalogue import Corpus

SAME: Final = (
    *("protocol", "fwd_packets", "bwd_packets", "fwd_bytes", "bwd_bytes"),
    *("fwd_payload_bytes", "bwd_payload_bytes", "tls_sni", "dns_query", "seq_gap_us"),
)
"""Flows that agree in all of these, microsecond gaps among them, are one flow recorded twice,
whatever their addresses were changed to."""

ALIKE: Final = (
    *("protocol", "service", "fwd_packets", "bwd_packets", "fwd_bytes", "bwd_bytes", "seq_size"),
)
"""Flows that agree in these look alike but for their times."""

LEAST_PACKETS: Final = 6
"""Flows of fewer packets agree by chance: an unanswered SYN is like any other."""


def flow_marks(corpus: Corpus, columns: tuple[str, ...]) -> npt.NDArray[np.uint64]:
    """Return a hash of some columns of each flow, 0 for flows that are too short to tell."""
    long = pl.col("fwd_packets") + pl.col("bwd_packets") >= LEAST_PACKETS
    mark = pl.when(long).then(pl.struct(columns).hash(seed=0) | 1).otherwise(0)
    return corpus.flows.select(mark).to_series().to_numpy().astype(np.uint64)


def copied_captures(corpus: Corpus, judged: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return which other captures hold traffic of the judged ones, shape (captures,).

    Whoever learned from them would have seen what it is judged by: the same file, or a flow of at
    least `LEAST_PACKETS` packets that agrees to the microsecond.
    """
    content = np.array([corpus.hashes[entry.name] for entry in corpus.entries])
    copies = np.isin(content, content[judged])
    capture = corpus.flows["capture"].to_numpy()
    marks = flow_marks(corpus, SAME)
    seen = np.unique(marks[judged[capture]])
    copies[np.unique(capture[np.isin(marks, seen[seen > 0])])] = True
    return copies & ~judged
