"""Which flows were seen, remembered in little room: to notice that a model judges what it learned.

Of each flow a number of 53 bits is made from when it began, its ports and its protocol; addresses
and what was wrapped around it take no part. The smallest of these numbers are a fair sample of all
flows (bottom-k sketch, Cohen & Kaplan, PODC 2007), whatever order they come in.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

MAX_SKETCH: Final = 4096
"""Numbers kept, 70 kB of a manifest: of a million flows a share of one in a thousand shows."""

LEAST_HITS: Final = 3
"""Hits below this may be chance or one flow that both captures hold."""

COLUMNS: Final = ("first_ns", "src_port", "dst_port", "protocol")

_BITS: Final = np.uint64(11)  # JSON's numbers hold 53 bits


def flow_numbers(flows: pl.DataFrame) -> npt.NDArray[np.uint64]:
    """Return the number of each flow, shape (flows,)."""
    with np.errstate(over="ignore"):
        number = np.zeros(flows.height, np.uint64)
        for name in COLUMNS:
            number = _mixed(number ^ flows[name].cast(pl.Int64).to_numpy().astype(np.uint64))
    return number >> _BITS


def sketch(flows: pl.DataFrame) -> list[int]:
    """Return the smallest numbers of flows, ascending."""
    return [int(n) for n in np.unique(flow_numbers(flows))[:MAX_SKETCH]]


def seen_share(flows: pl.DataFrame, known: list[int]) -> float:
    """Return about which share of flows is among those that a sketch was made of, 0 for none."""
    if not known or flows.is_empty():
        return 0.0
    numbers = np.unique(flow_numbers(flows))
    if len(known) >= MAX_SKETCH:
        numbers = numbers[numbers <= known[-1]]
    hits = int(np.isin(numbers, np.array(known, np.uint64)).sum())
    return hits / len(numbers) if hits >= LEAST_HITS else 0.0


def _mixed(number: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Mix the bits of numbers (SplitMix64, Steele, Lea & Flood, OOPSLA 2014)."""
    number = number + np.uint64(0x9E3779B97F4A7C15)
    number = (number ^ (number >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    number = (number ^ (number >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(number ^ (number >> np.uint64(31)), np.uint64)
