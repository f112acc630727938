"""The feature set `sequence`: the first payload packets, and the first packets, one by one.

Payload packets say what the applications said, whatever the two systems acknowledge. The lengths
and gaps of all packets also show the systems themselves: a bare SYN is as long as its options,
so that it tells their MSS, window scale and timestamps, and with them the operating system.
Malware captures are mostly of Windows, benign ones mostly not: what a model gains from those
lengths is the laboratory (docs/evaluation.md). They are shortcuts.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from veilwatch.learning.features.base import Feature, FeatureSet, feature

STEPS: Final = 20
"""Packets, and payload packets, that are described one by one."""


def first_steps(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the first packets and the first payload packets of each flow as columns.

    Returns
    -------
    polars.DataFrame
        `packet_size_0` … (signed IP length, negative from the responder) and `packet_gap_0` …
        (seconds since the packet before); `step_size_0` … (signed payload bytes) and
        `step_gap_0` … (seconds since the payload packet before, 0 for the first). NaN past the
        last packet.
    """
    sizes = frame["seq_size"].to_numpy()
    payload = frame["seq_payload"].to_numpy().astype(np.float32)
    gaps = frame["seq_gap_us"].to_numpy().astype(np.float64) / 1e6
    elapsed = np.cumsum(gaps, axis=1)
    has = payload > 0
    # A stable sort by "has no payload" moves payload packets to the front in their order.
    order = np.argsort(~has, axis=1, kind="stable")[:, :STEPS]
    present = np.take_along_axis(has, order, axis=1)
    signed = np.take_along_axis(payload * np.sign(sizes), order, axis=1)
    times = np.take_along_axis(elapsed, order, axis=1)
    pauses = np.diff(times, axis=1, prepend=times[:, :1])
    # No IP packet has length 0: a zero stands past the last packet.
    used = sizes != 0
    columns: dict[str, npt.NDArray[np.float32]] = {}
    for name, values, valid in (
        ("packet_size", sizes, used),
        ("packet_gap", gaps, used),
        ("step_size", signed, present),
        ("step_gap", pauses, present),
    ):
        filled = np.full((len(frame), STEPS), np.nan, np.float32)
        width = min(STEPS, sizes.shape[1])
        filled[:, :width] = np.where(valid, values, np.nan)[:, :width]
        columns |= {f"{name}_{k}": filled[:, k] for k in range(STEPS)}
    return pl.DataFrame(columns)


def _steps() -> list[Feature]:
    out = []
    for k in range(STEPS):
        for name, size, moment, shortcut in (
            ("step", "Payload", "payload", False),
            ("packet", "IP length of packet", "packet", True),
        ):
            column = pl.col(f"{name}_size_{k}")
            doc = f"{size} {k + 1}, negative from the responder"
            out.append(feature(f"{name}_size_{k}", column, "bytes", doc, shortcut=shortcut))
            if k:  # the first has no gap before it
                doc = f"Silence before {moment} {k + 1}"
                column = pl.col(f"{name}_gap_{k}")
                out.append(feature(f"{name}_gap_{k}", column, "s", doc, shortcut=shortcut))
    return out


SEQUENCE: Final = FeatureSet(
    "sequence",
    3,
    "Sizes, directions and gaps of the first payloads and packets",
    tuple(_steps()),
    columns=first_steps,
)
