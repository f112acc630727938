"""The feature set `sequence`: the first packets, and the first payload packets, one by one.

Both views are wanted. Payload packets alone say what the applications said, whatever the
receiver's stack acknowledges; all packets also show how the two ends paced each other, and with
them models found markedly more in TLS flows of sources that they had never seen.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from veilwatch.features.base import Feature, FeatureSet, feature

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


_SIZES: Final = (
    ("packet_size", "IP length of packet"),
    ("step_size", "Payload"),
)
_GAPS: Final = (
    ("packet_gap", "Silence before packet"),
    ("step_gap", "Silence before payload"),
)


def _steps() -> list[Feature]:
    out = []
    for k in range(STEPS):
        for name, words in _SIZES:
            doc = f"{words} {k + 1}, negative from the responder"
            out.append(feature(f"{name}_{k}", pl.col(f"{name}_{k}"), "bytes", doc))
        # The first packet has no gap before it.
        for name, words in _GAPS if k else ():
            out.append(feature(f"{name}_{k}", pl.col(f"{name}_{k}"), "s", f"{words} {k + 1}"))
    return out


SEQUENCE: Final = FeatureSet(
    "sequence", 2, "Sizes, directions and gaps of the first packets and payloads", tuple(_steps())
)
