"""The feature set `packets`: packets that tell something, one by one, for recurrent networks.

Like `sequence`, but three times as far, with the flags that open and end connections, and in
blocks (all sizes, then all gaps, then all flags) that a network takes as they are. The IP length of
the same packets would show the options of a SYN, and with them the operating system: a shortcut.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from veilwatch.learning.features.base import Feature, FeatureSet, feature
from veilwatch.learning.features.informative import BACKWARD, NETWORK_PACKETS, informative_packets


def packet_columns(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the informative packets of each flow as columns.

    Returns
    -------
    polars.DataFrame
        For each packet k `told_size_k` (payload bytes, negative from the responder), `told_gap_k`
        (seconds since the one before, 0 for the first), `told_flags_k` (FIN 1, SYN 2, RST 4,
        PSH 8, from the responder 16) and `told_length_k` (IP bytes, signed like the size); NaN past
        the last.
    """
    packets = informative_packets(frame)
    sign = np.where(packets.forward, 1, -1)
    gap = np.diff(packets.time, axis=1, prepend=packets.time[:, :1])
    columns: dict[str, npt.NDArray[np.float32]] = {}
    for name, values in (
        ("size", packets.payload * sign),
        ("gap", gap),
        ("flags", packets.flags + np.where(packets.forward, 0, BACKWARD)),
        ("length", packets.length * sign),
    ):
        filled = np.where(packets.present, values, np.nan).astype(np.float32)
        columns |= {f"told_{name}_{k}": filled[:, k] for k in range(NETWORK_PACKETS)}
    return pl.DataFrame(columns)


def _features() -> list[Feature]:
    return [
        feature(
            f"told_{name}_{k}",
            pl.col(f"told_{name}_{k}"),
            unit,
            f"{doc} packet {k + 1} with payload, SYN, FIN or RST{note}",
            shortcut=shortcut,
        )
        for name, unit, doc, note, shortcut in (
            ("size", "bytes", "Payload of", ", negative from the responder", False),
            ("gap", "s", "Silence before", "", False),
            (
                "flags",
                "",
                "TCP flags of",
                " (FIN 1, SYN 2, RST 4, PSH 8, from the responder 16)",
                False,
            ),
            ("length", "bytes", "IP length of", ", negative from the responder", True),
        )
        for k in range(NETWORK_PACKETS)
    ]


PACKETS: Final = FeatureSet(
    "packets",
    1,
    "Payload, silence and flags of the first packets that tell something, for networks",
    tuple(_features()),
    columns=packet_columns,
)
