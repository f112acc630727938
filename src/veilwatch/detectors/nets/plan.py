"""What the user may choose about the training of a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

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


def split_parameters(
    own: Mapping[str, Any], plan: Plan, chosen: Mapping[str, Any]
) -> tuple[dict[str, Any], Plan]:
    """Return the network's own parameters and the plan, with what the user chose in place.

    Raises
    ------
    TrainingError
        If a parameter is unknown, of another type or not above zero.
    """
    defaults = dict(own) | {item.name: getattr(plan, item.name) for item in fields(plan)}
    for name, value in chosen.items():
        if name not in defaults:
            raise TrainingError(
                f"unknown parameter {name!r}", hint=f"known: {', '.join(sorted(defaults))}"
            )
        whole = isinstance(defaults[name], int)
        fits = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        # Dropout, decay and smoothing may be switched off; nothing else works at zero.
        least_open = name not in ("dropout", "disturbance", "weight_decay", "smoothing")
        if not fits or not (value > 0 if least_open else value >= 0) or value > 1e9:
            kind = "whole number" if whole else "number"
            raise TrainingError(f"parameter {name!r} is {value!r}", hint=f"give a positive {kind}")
        defaults[name] = value
    made = Plan(**{item.name: defaults.pop(item.name) for item in fields(plan)})
    return defaults, made
