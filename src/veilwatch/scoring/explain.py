"""Why a flow or a host window scored as it did, in words that an analyst can check."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from veilwatch.registry import BenignRange
from veilwatch.schema.features import FeatureFrame, FeatureSpec
from veilwatch.schema.scores import Reason

SHOWN_REASONS: Final = 6
"""Reasons given for a unit: the next ones rarely add a tenth of the first."""


def reasons(
    features: FeatureFrame,
    contributions: npt.NDArray[np.float64],
    ranges: dict[str, BenignRange],
    *,
    units: str = "flows",
) -> list[list[Reason]]:
    """Return the strongest reasons of each unit, strongest first.

    Parameters
    ----------
    features
        The flows, or host windows.
    contributions
        What each feature added to the log-odds, shape (units, features).
    ranges
        Where benign units usually lie, by feature.
    units
        What they are called.
    """
    specs = features.schema.features
    strongest = np.argsort(-np.abs(contributions), axis=1)[:, :SHOWN_REASONS]
    return [
        [
            _reason(
                specs[k],
                float(features.values[row, k]),
                float(contributions[row, k]),
                ranges.get(specs[k].name),
                units,
            )
            for k in columns
        ]
        for row, columns in enumerate(strongest)
    ]


def _reason(
    spec: FeatureSpec, value: float, contribution: float, usual: BenignRange | None, units: str
) -> Reason:
    if np.isnan(value):
        found = "does not apply"
    else:
        found = _quantity(value, spec.unit)
    text = f"{spec.doc}: {found}"
    if usual is not None:
        text += (
            f"; benign {units} mostly {_quantity(usual.low, '')} to "
            f"{_quantity(usual.high, spec.unit)}"
        )
    return Reason(spec.name, value, contribution, text)


def _quantity(value: float, unit: str) -> str:
    """Write a number as people do: no more digits than tell something."""
    size = abs(value)
    if size >= 1e15 or 0 < size < 0.001:
        number = f"{value:.1e}"
    elif size >= 999.5 or value == round(value):
        number = f"{value:,.0f}"
    else:
        number = f"{value:.3g}"
    return f"{number} {unit}".rstrip()
