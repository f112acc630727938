"""The feature set `host_evidence`: what flows, channels and windows say of one host.

A mean over the flows of a host is diluted by whatever else the host does. Here stands the strongest
evidence of each class of flow (`veilwatch.learning.features.flow_class`) beside the means: a
maximum over many channels is larger by chance alone, and the trees that decide about hosts learn
from used hosts what both together mean. How many flows and channels a host has is left out: it
tells the length of a recording, and made decisions about publishers never seen worse.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from veilwatch.learning.features.base import Feature, FeatureSet, feature
from veilwatch.learning.features.flow_class import FLOW_CLASSES
from veilwatch.schema.features import FeatureFrame, FeatureSchema, Values

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

STRONGEST: Final = 3
"""How many of the strongest speak together: one may be chance, and a beacon has several."""

FLOW_SHARES: Final = (0.25, 0.5, 1.0)
CHANNEL_SHARES: Final = (0.1, 0.5, 1.0)
WINDOW_SHARES: Final = (0.0, 0.5, 1.0)
"""Upper shares whose mean log-odds are features; 0 is the strongest alone."""

_STATISTICS: Final = (
    ("top", "Log-odds of the strongest of the {what} of the class {name}"),
    ("top3", "Mean log-odds of the three strongest {what} of the class {name}"),
    ("mean", "Mean log-odds of the {what} of the class {name}"),
)


def _of_classes(what: str) -> list[Feature]:
    return [
        feature(
            f"{what}_{name}_{statistic}", pl.lit(None), "", doc.format(what=f"{what}s", name=name)
        )
        for name in FLOW_CLASSES
        for statistic, doc in _STATISTICS
    ]


def _of_shares(what: str, shares: tuple[float, ...]) -> list[Feature]:
    return [
        feature(
            f"{what}_upper_{round(share * 100)}",
            pl.lit(None),
            "",
            f"Mean log-odds of the upper {share:.0%} of the {what}s"
            if share
            else f"Log-odds of the strongest of the {what}s",
        )
        for share in shares
    ]


HOST_EVIDENCE: Final = FeatureSet(
    "host_evidence",
    1,
    "What flows, channels and windows say of one host: the strongest and the mean of each class",
    (
        *_of_classes("flow"),
        *_of_shares("flow", FLOW_SHARES),
        *_of_classes("channel"),
        *_of_shares("channel", CHANNEL_SHARES),
        *_of_shares("window", WINDOW_SHARES),
    ),
    unit="host",
)
"""Of each feature more speaks for an infection."""

FLOW_EVIDENCE: Final = len(FLOW_CLASSES) * len(_STATISTICS) + len(FLOW_SHARES)
"""How many of the features flows make: the first ones. As many are made by channels."""

EVIDENCE_SCHEMA: Final = FeatureSchema(
    HOST_EVIDENCE.name,
    HOST_EVIDENCE.version,
    tuple(item.spec for item in HOST_EVIDENCE.features),
    "host",
)


@dataclass(frozen=True, slots=True)
class Evidence:
    """Scored units, and whose they are; arrays of shape (units,).

    Attributes
    ----------
    host
        int64, index of the host of each.
    odds
        float64, log-odds of each.
    flow_class
        int64, number of its class; windows have none and take 0.
    """

    host: Integers
    odds: Floats
    flow_class: Integers


def host_evidence(
    hosts: int, flows: Evidence, channels: Evidence, windows: Evidence
) -> FeatureFrame:
    """Return the evidence of hosts 0…`hosts` - 1.

    Returns
    -------
    FeatureFrame
        float64 values, NaN where nothing of the kind was seen; no keys but the index `host`.
    """
    of_flows = [class_statistics(hosts, flows), upper_means(hosts, flows, FLOW_SHARES)]
    return evidence_frame(np.hstack([*of_flows, part_evidence(hosts, channels, windows)]))


def part_evidence(hosts: int, channels: Evidence, windows: Evidence) -> Floats:
    """Return what channels and windows say, as `host_evidence` does behind what flows say."""
    return np.hstack(
        [
            class_statistics(hosts, channels),
            upper_means(hosts, channels, CHANNEL_SHARES),
            upper_means(hosts, windows, WINDOW_SHARES),
        ]
    )


def evidence_frame(values: Values) -> FeatureFrame:
    """Return evidence that stands side by side as in `HOST_EVIDENCE`, shape (hosts, features)."""
    keys = pl.DataFrame({"host": np.arange(len(values), dtype=np.int64)})
    return FeatureFrame(EVIDENCE_SCHEMA, values, keys)


def heard_early(values: Floats) -> Floats:
    """Return evidence in which flows speak for channels and windows that nobody judged yet.

    A sensor hears flows at once, and channels and windows every five minutes. What is not judged
    yet is taken to be as suspicious as the flows: what a channel is made of.

    Parameters
    ----------
    values
        Evidence of shape (hosts, features); rows whose last feature is NaN are filled.
    """
    out = values.copy()
    unheard = np.isnan(values[:, -1])
    flows = values[unheard, :FLOW_EVIDENCE]
    out[unheard] = np.hstack([flows, flows, flows[:, -len(FLOW_SHARES) :]])
    return out


def class_statistics(hosts: int, evidence: Evidence) -> Floats:
    """Return the statistics of each class, shape (hosts, classes x 3).

    NaN for classes of which nothing was seen.
    """
    classes = len(FLOW_CLASSES)
    cell = evidence.host * classes + evidence.flow_class
    order, first, size, sums = _ranked(cell, evidence.odds)
    out = np.full((hosts * classes, len(_STATISTICS)), np.nan)
    at, few = cell[order][first], np.minimum(size, STRONGEST)
    out[at, 0] = evidence.odds[order][first]
    out[at, 1] = (sums[first + few] - sums[first]) / few
    out[at, 2] = (sums[first + size] - sums[first]) / size
    return out.reshape(hosts, classes * len(_STATISTICS))  # of no hosts too


def upper_means(hosts: int, evidence: Evidence, shares: tuple[float, ...]) -> Floats:
    """Return the mean log-odds of the upper shares of each host, shape (hosts, shares)."""
    order, first, size, sums = _ranked(evidence.host, evidence.odds)
    out = np.full((hosts, len(shares)), np.nan)
    for k, share in enumerate(shares):
        upper = np.maximum(1, np.ceil(size * share).astype(np.int64))
        out[evidence.host[order][first], k] = (sums[first + upper] - sums[first]) / upper
    return out


def _ranked(cell: Integers, odds: Floats) -> tuple[Integers, Integers, Integers, Floats]:
    """Return the order by cell and falling odds, each cell's first place and size, running sums."""
    order = np.lexsort((-odds, cell))
    ranked = cell[order]
    first = np.flatnonzero(np.r_[len(ranked) > 0, ranked[1:] != ranked[:-1]]).astype(np.int64)
    size = np.diff(np.append(first, len(ranked)))
    return order.astype(np.int64), first, size, np.concatenate([[0.0], np.cumsum(odds[order])])
