"""The ensemble without training anybody twice: its members are compared anyway."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from veilwatch.learning.comparison.jobs import Outcome
from veilwatch.learning.detectors.ensemble import MEMBERS, Scale, combine

ENSEMBLE: Final = "ensemble"

Floats = npt.NDArray[np.float64]

Place = tuple[str, str, int]
"""Detector, split and fold."""


def is_assembled(names: Collection[str]) -> bool:
    """Whether the ensemble can be put together from what its members say."""
    return {ENSEMBLE, *MEMBERS} <= set(names)


def assemble(outcomes: Mapping[Place, Outcome]) -> dict[Place, Outcome]:
    """Return what the ensemble makes of each fold of which every member's result is there.

    Members learn in the ensemble as they learn by themselves, from the same flows with the same
    seed, so that nothing differs from training it anew but the time.
    """
    places = {place[1:] for place in outcomes}
    return {
        (ENSEMBLE, *place): _together([outcomes[name, *place] for name in MEMBERS])
        for place in sorted(places)
        if all((name, *place) in outcomes for name in MEMBERS)
    }


def _together(parts: Sequence[Outcome]) -> Outcome:
    first = parts[0]
    scales = [Scale(**part.facts["scale"]) for part in parts]

    def heard(score: Callable[[Outcome], Floats]) -> Floats:
        return combine([(score(part), scale) for part, scale in zip(parts, scales, strict=True)])

    def total(key: str) -> float:
        return float(sum(part.facts[key] for part in parts))

    return Outcome(
        rows=first.rows,
        score=heard(lambda part: part.score),
        facts={
            **{key: total(key) for key in ("train_seconds", "train_cpu_seconds", "bytes")},
            "peak_memory": max(part.facts["peak_memory"] for part in parts),
            "trained_units": first.facts["trained_units"],
            "units_per_second": 1 / sum(1 / part.facts["units_per_second"] for part in parts),
        },
        kept_rows=first.kept_rows,
        kept_score=heard(lambda part: part.kept_score),
        trial_rows=first.trial_rows,
        trial_score=heard(lambda part: part.trial_score),
    )
