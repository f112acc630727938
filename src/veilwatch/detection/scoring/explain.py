"""Why a flow or a host window scored as it did, in words that an analyst can check."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from veilwatch.learning.features.flowpic import cell_words
from veilwatch.learning.models import BenignRange
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

    A value that most benign units have as well is no reason, whatever the detector made of it
    together with others: such features are passed over. A unit may have no reason left.

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
    low, high = _band(specs, ranges)
    # Features without a range, and values that do not apply, lie in no band: NaN compares false.
    telling = ~((features.values >= low) & (features.values <= high)) & (contributions != 0)
    strength = np.where(telling, np.abs(contributions), 0.0)
    strongest = np.argsort(-strength, axis=1, kind="stable")[:, :SHOWN_REASONS]
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
            if strength[row, k] > 0
        ]
        for row, columns in enumerate(strongest)
    ]


def _band(
    specs: Sequence[FeatureSpec], ranges: dict[str, BenignRange]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return where benign units usually lie, arrays of shape (features,); NaN where not known."""
    known = [ranges.get(spec.name) if spec.unit != "cell" else None for spec in specs]
    return (
        np.array([np.nan if one is None else one.low for one in known]),
        np.array([np.nan if one is None else one.high for one in known]),
    )


def _reason(
    spec: FeatureSpec, value: float, contribution: float, usual: BenignRange | None, units: str
) -> Reason:
    if spec.unit == "cell" and not np.isnan(value):
        # Numbers of cells lie in no order in which benign flows could have a range.
        return Reason(spec.name, value, contribution, f"Packets {cell_words(value)}")
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
