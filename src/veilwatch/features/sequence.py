"""The feature set `sequence`: the first payload packets one by one.

Pure acknowledgements are left out: when they are sent depends on the receiver's stack and on
loss, not on what the application says.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl

from veilwatch.features.base import Feature, FeatureSet, feature

STEPS: Final = 20
"""Payload packets described one by one."""


def payload_steps(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the first payload packets of each flow as columns.

    Returns
    -------
    polars.DataFrame
        `step_size_0` … (signed payload bytes, negative from the responder) and `step_gap_0` …
        (seconds since the payload packet before, 0 for the first), NaN past the last.
    """
    sizes = frame["seq_size"].to_numpy()
    payload = frame["seq_payload"].to_numpy().astype(np.float32)
    elapsed = np.cumsum(frame["seq_gap_us"].to_numpy().astype(np.float64), axis=1) / 1e6
    rows, length = sizes.shape
    has = payload > 0
    # A stable sort by "has no payload" moves payload packets to the front in their order.
    order = np.argsort(~has, axis=1, kind="stable")[:, :STEPS]
    present = np.take_along_axis(has, order, axis=1)
    signed = np.take_along_axis(payload * np.sign(sizes), order, axis=1)
    times = np.take_along_axis(elapsed, order, axis=1)
    gaps = np.diff(times, axis=1, prepend=times[:, :1])
    step_size = np.full((rows, STEPS), np.nan, np.float32)
    step_gap = np.full((rows, STEPS), np.nan, np.float32)
    width = min(STEPS, length)
    step_size[:, :width] = np.where(present, signed, np.nan)
    step_gap[:, :width] = np.where(present, gaps, np.nan)
    columns = {f"step_size_{k}": step_size[:, k] for k in range(STEPS)}
    columns |= {f"step_gap_{k}": step_gap[:, k] for k in range(STEPS)}
    return pl.DataFrame(columns)


def _steps() -> list[Feature]:
    out = []
    for k in range(STEPS):
        out.append(
            feature(
                f"step_size_{k}",
                pl.col(f"step_size_{k}"),
                "bytes",
                f"Payload {k + 1}, negative from the responder",
            )
        )
    for k in range(1, STEPS):
        out.append(
            feature(
                f"step_gap_{k}", pl.col(f"step_gap_{k}"), "s", f"Silence before payload {k + 1}"
            )
        )
    return out


SEQUENCE: Final = FeatureSet(
    "sequence", 1, "Sizes, directions and gaps of the first payload packets", tuple(_steps())
)
