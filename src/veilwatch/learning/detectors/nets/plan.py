"""What the user may choose about the training of a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from veilwatch.errors import TrainingError


@dataclass(frozen=True, slots=True)
class Plan:
    """How a network is trained.

    Attributes
    ----------
    epochs
        Passes, at most.
    patience
        Passes without a better figure on what is held back, after which training ends.
    samples
        Flows an epoch, however many there are: what bounds the time.
    checked
        Flows held back that are looked at after each epoch, at most.
    batch
        Flows a step.
    learning_rate
        Peak of a cosine that rises over the first tenth of the steps.
    weight_decay
        Of AdamW (Loshchilov & Hutter 2019).
    clip
        Largest norm of a step's gradient.
    smoothing
        Share of the label that is spread over both classes: labels are by capture, so that some
        are wrong.
    """

    epochs: int = 8
    patience: int = 3
    samples: int = 8192
    checked: int = 4096
    batch: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    clip: float = 1.0
    smoothing: float = 0.02


LIMITS: Final[Mapping[str, tuple[float, float]]] = {
    "epochs": (1, 10_000),
    "patience": (1, 10_000),
    "samples": (2, 10**8),
    "checked": (1, 10**8),
    "batch": (2, 65_536),
    "learning_rate": (1e-7, 1.0),
    "weight_decay": (0.0, 10.0),
    "clip": (1e-6, 1e6),
    "smoothing": (0.0, 0.9),
    "dropout": (0.0, 0.9),
    "hidden": (1, 1024),
    "width": (0.01, 1.4),
}
"""Between which values a parameter may lie: beyond them nothing is learned, or memory runs out."""


def split_parameters(
    own: Mapping[str, Any], plan: Plan, chosen: Mapping[str, Any]
) -> tuple[dict[str, Any], Plan]:
    """Return the network's own parameters and the plan, with what the user chose in place.

    Raises
    ------
    TrainingError
        If a parameter is unknown, of another type or beyond its limits.
    """
    values = dict(own) | {item.name: getattr(plan, item.name) for item in fields(plan)}
    for name, value in chosen.items():
        if name not in values:
            raise TrainingError(
                f"unknown parameter {name!r}", hint=f"known: {', '.join(sorted(values))}"
            )
        low, high = LIMITS[name]
        whole = isinstance(values[name], int)
        fits = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        if not fits or not low <= value <= high:
            kind = "whole number" if whole else "number"
            raise TrainingError(
                f"parameter {name!r} is {value!r}", hint=f"give a {kind} from {low:g} to {high:g}"
            )
        values[name] = value
    made = Plan(**{item.name: values.pop(item.name) for item in fields(plan)})
    return values, made
