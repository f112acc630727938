"""How much each unit counts in training."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from veilwatch.learning.detectors.evidence import rank_within

CAPTURE_EXPONENT: Final = 0.5
"""A capture of n flows weighs n^(1 - 0.5): a sweep of 80,000 flows does not outvote a family of
60, and a capture with a single flow is not worth as much as one with hundreds."""


MAX_LEARNED: Final = 100
"""Most units of one capture that are learned from, encrypted flows and others counted apart: a
sweep of 80,000 flows looks alike, and its weight would be that of thirty captures."""


def left_out(
    capture: npt.NDArray[np.int64],
    encrypted: npt.NDArray[np.bool_],
    seed: int,
    unknown: npt.NDArray[np.bool_],
) -> npt.NDArray[np.bool_]:
    """Return which units are not learned from, drawn at random where a capture has too many.

    Parameters
    ----------
    capture, encrypted
        Capture of each unit, and whether it is an encrypted flow, shape (units,).
    unknown
        Units that are left out in any case, shape (units,).
    """
    draw = np.random.default_rng(seed).random(len(capture))
    stratum = capture * 2 + encrypted
    draw[unknown] = 2.0  # behind those that count
    return np.asarray((rank_within(stratum, -draw) >= MAX_LEARNED) | unknown)


def unit_weights(
    capture: npt.NDArray[np.int64], malicious: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """Return weights that damp large captures and balance the classes, with mean 1.

    Parameters
    ----------
    capture
        Index of each unit's capture, shape (units,).
    malicious
        Label of each unit, shape (units,).
    """
    sizes = np.bincount(capture)[capture].astype(np.float64)
    weight = sizes**-CAPTURE_EXPONENT
    for mask in (malicious, ~malicious):
        weight[mask] *= len(weight) / 2 / max(weight[mask].sum(), 1e-12)
    return np.asarray(weight)


def family_weights(
    capture: npt.NDArray[np.int64], family: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Return weights that damp large captures and large families, with mean 1.

    A family counts with the root of its captures' weights: one that was captured a hundred times
    is commoner than one that was captured four times, but not by so much as collectors' habits say.

    Parameters
    ----------
    capture, family
        Index of each flow's capture and family, shape (flows,).
    """
    weight = np.bincount(capture)[capture].astype(np.float64) ** -CAPTURE_EXPONENT
    weight /= np.sqrt(np.bincount(family, weights=weight))[family]
    return np.asarray(weight * len(weight) / weight.sum())
