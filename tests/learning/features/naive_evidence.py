"""Evidence of one host in plain Python, written from its documentation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

NAN = math.nan
CLASSES = 5

Unit = tuple[float, int]
"""Log-odds of a flow, a channel or a window, and its class."""


def of_classes(units: Sequence[Unit]) -> list[float]:
    """Strongest, mean of the three strongest and mean of each class."""
    out = []
    for number in range(CLASSES):
        mine = sorted((odds for odds, flow_class in units if flow_class == number), reverse=True)
        out += [mine[0], fmean(mine[:3]), fmean(mine)] if mine else [NAN] * 3
    return out


def of_shares(units: Sequence[Unit], shares: Sequence[float]) -> list[float]:
    """Mean of the upper shares; of a share below one unit the strongest."""
    ranked = sorted((odds for odds, _ in units), reverse=True)
    if not ranked:
        return [NAN] * len(shares)
    return [fmean(ranked[: max(1, math.ceil(len(ranked) * share))]) for share in shares]


def of_flows(flows: Sequence[Unit]) -> list[float]:
    """What flows make of the evidence."""
    return [*of_classes(flows), *of_shares(flows, (0.25, 0.5, 1))]


def evidence(
    flows: Sequence[Unit], channels: Sequence[Unit], windows: Sequence[Unit]
) -> list[float]:
    """All of it."""
    return [
        *of_flows(flows),
        *of_classes(channels),
        *of_shares(channels, (0.1, 0.5, 1)),
        *of_shares(windows, (0, 0.5, 1)),
    ]
