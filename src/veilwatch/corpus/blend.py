"""Hosts that are used: captures merged into one host, as flow tables.

A sandbox shows malware alone; on a desk one flow in a hundred is malware's. A blend gives the
traffic of one capture a second life on a host that a person uses: the flows of the busiest hosts of
benign captures are moved to the address of its own busiest host, and to its time. Nothing in a flow
changes but its address and its time, so that truth by flow is kept. A blend is no capture that
anybody recorded: every figure on blends says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from veilwatch.errors import CorpusError
from veilwatch.schema.flow_facts import HOST_COLUMNS

SIZES: Final = (1, 3, 10)
"""How many used hosts are merged with a capture: one person's traffic, three times and ten times as
much."""

LEAST_FLOWS: Final = 10
"""Least flows of a host that counts as used."""

LEAST_DESTINATIONS: Final = 3
"""Least destinations of a host that counts as used: a single connection is nobody's day."""

MAX_PARTNER_FLOWS: Final = 20_000
"""Most flows of a partner: an hour of the busiest of a hundred people; beyond it lie scans and
load tests."""


@dataclass(frozen=True, slots=True)
class Blend:
    """One capture on a used host.

    Attributes
    ----------
    base
        Index of the capture whose label the blend has.
    partners
        Indices of benign captures whose busiest hosts are merged with its busiest host.
    moments
        Where within each partner's time the capture begins, 0…1.
    """

    base: int
    partners: tuple[int, ...]
    moments: tuple[float, ...]

    @property
    def size(self) -> int:
        """How many hosts are merged with the capture."""
        return len(self.partners)


def used_hosts(flows: pl.DataFrame, benign: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Return the benign captures whose busiest host is used by somebody, in order.

    Parameters
    ----------
    flows
        Flow tables of a corpus with the column `capture`.
    benign
        Whether each capture is benign, shape (captures,).
    """
    found = (
        _of_busiest(flows.lazy())
        .group_by("capture")
        .agg(flows=pl.len(), destinations=pl.col("dst_ip").n_unique())
        .filter(
            pl.col("flows").is_between(LEAST_FLOWS, MAX_PARTNER_FLOWS),
            pl.col("destinations") >= LEAST_DESTINATIONS,
        )
        .collect()["capture"]
        .sort()
        .to_numpy()
        .astype(np.int64)
    )
    return np.asarray(found[benign[found]])


def busiest_hosts(flows: pl.DataFrame) -> pl.DataFrame:
    """Return the initiator with most flows of each capture: `capture` and `HOST_COLUMNS`."""
    return _busiest(flows.lazy()).select("capture", *HOST_COLUMNS).collect()


def plan_blends(
    bases: npt.NDArray[np.int64],
    used: npt.NDArray[np.int64],
    side: npt.NDArray[np.int64],
    size: int,
    *,
    seed: int,
) -> list[Blend]:
    """Choose partners at random, each on the side of a split that the capture is on.

    Parameters
    ----------
    bases
        Captures that are merged with used hosts, one blend each.
    used
        Captures of used hosts (`used_hosts`).
    side
        Side of each capture, shape (captures,): a fold, or all 0.
    size
        Used hosts that are merged with each; captures of a side that has fewer are left out.
    """
    rng = np.random.default_rng([seed, size])
    out = []
    for base in bases.tolist():
        pool = used[(side[used] == side[base]) & (used != base)]
        if len(pool) < size:
            continue
        partners = rng.choice(pool, size, replace=False)
        moments = rng.random(size)
        out.append(Blend(base, tuple(partners.tolist()), tuple(moments.tolist())))
    return out


def blend_flows(
    flows: pl.DataFrame, blends: Sequence[Blend]
) -> tuple[pl.DataFrame, npt.NDArray[np.int64]]:
    """Return the flows of blends, and the row that each was.

    Parameters
    ----------
    flows
        Flow tables of a corpus with the column `capture`.

    Returns
    -------
    polars.DataFrame
        The columns of `flows`, with other times and addresses; `capture` is the index of the blend.
    ndarray of int64
        Row of each within `flows`.

    Raises
    ------
    CorpusError
        If a blend names a capture without flows.
    """
    busiest = _busiest(flows.lazy()).collect()
    spans = flows.group_by("capture").agg(
        began=pl.col("first_ns").min(), ended=pl.col("last_ns").max()
    )
    host = dict(zip(busiest["capture"], busiest.select(HOST_COLUMNS).iter_rows(), strict=True))
    span = dict(zip(spans["capture"], spans.select("began", "ended").iter_rows(), strict=True))
    parts: dict[str, list[object]] = {
        name: [] for name in ("blend", "capture", "shift", "partner", *HOST_COLUMNS)
    }
    for number, blend in enumerate(blends):
        if missing := [k for k in (blend.base, *blend.partners) if k not in span]:
            raise CorpusError(f"capture {missing[0]} has no flow to blend", hint="leave it out")
        start = span[blend.base][0]
        for k, capture in enumerate((blend.base, *blend.partners)):
            began, ended = span[capture]
            partner = k > 0
            # The partner's own moment falls on the capture's beginning.
            shift = int(start - began - blend.moments[k - 1] * (ended - began)) if partner else 0
            values = (number, capture, shift, partner, *host[blend.base])
            for name, value in zip(parts, values, strict=True):
                parts[name].append(value)
    plan = pl.DataFrame(
        parts,
        schema_overrides={
            "blend": flows.schema["capture"],
            "capture": flows.schema["capture"],
            "shift": pl.Int64,
            "partner": pl.Boolean,
        },
    ).rename({name: f"new_{name}" for name in HOST_COLUMNS})
    theirs = busiest.select("capture", *HOST_COLUMNS).with_columns(busiest=pl.lit(True))
    keys = (
        flows.lazy()
        .select("capture", *HOST_COLUMNS)
        .with_row_index("row")
        .join(theirs.lazy(), on=["capture", *HOST_COLUMNS], how="left", maintain_order="left")
        .join(plan.lazy(), on="capture", maintain_order="left")
        .filter(~pl.col("partner") | pl.col("busiest").fill_null(False))
        .sort("blend", "row")
        .collect()
    )
    row = keys["row"].to_numpy().astype(np.int64)
    moved = keys.select(
        pl.col("blend").alias("capture"),
        "shift",
        "partner",
        *(f"new_{name}" for name in HOST_COLUMNS),
    )
    out = flows[row].drop("capture").hstack(moved)
    return out.with_columns(
        pl.col("first_ns", "last_ns") + pl.col("shift"),
        *(
            pl.when("partner").then(f"new_{name}").otherwise(name).alias(name)
            for name in HOST_COLUMNS
        ),
    ).select(flows.columns), row


def _busiest(flows: pl.LazyFrame) -> pl.LazyFrame:
    """Return the initiator with most flows of each capture."""
    return (
        flows.group_by("capture", *HOST_COLUMNS)
        .agg(flows=pl.len())
        .sort("capture", "flows", *HOST_COLUMNS, descending=[False, True, False, False])
        .unique("capture", keep="first", maintain_order=True)
    )


def _of_busiest(flows: pl.LazyFrame) -> pl.LazyFrame:
    return flows.join(_busiest(flows), on=["capture", *HOST_COLUMNS], how="semi")
