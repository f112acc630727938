"""What each header field is worth: one field alone, and all but one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from veilwatch.learning.detectors.words.fields import speaking_fields
from veilwatch.learning.features import feature_schema
from veilwatch.learning.training.header_words.document import Ablation, Worth
from veilwatch.progress import Progress
from veilwatch.schema.headers import HEADER_FIELDS


@dataclass(frozen=True, slots=True)
class Trial:
    """A setting whose fields are taken alone, and left out in turn if `drop` says so."""

    setting: str
    parameters: Mapping[str, Any]
    shortcuts: bool
    drop: bool


Measure = Callable[[Trial, Sequence[str]], float]
"""Accuracy of a setting with some fields."""


def ablate(trial: Trial, measure: Measure, until: float, progress: Progress) -> Ablation:
    """Train with each field alone and without each, as long as there is time.

    Parameters
    ----------
    until
        Time of the monotonic clock from which on no further training begins.
    """
    values = trial.parameters.get("values", "bucketed")
    schema = feature_schema(("header_words",), shortcuts=trial.shortcuts)
    fields = speaking_fields(schema, values, ())
    progress.start(f"ablation of {trial.setting}", 1 + len(fields) * (2 if trial.drop else 1))
    whole = measure(trial, fields)
    progress.advance()
    skipped = 0

    def maybe(chosen: Sequence[str]) -> float | None:
        nonlocal skipped
        if time.monotonic() >= until:
            skipped += 1
            return None
        found = measure(trial, chosen)
        progress.advance()
        return found

    identifying = {field.name: field.identifying for field in HEADER_FIELDS}
    alone = {name: maybe([name]) for name in fields}
    without: dict[str, float | None] = {}
    if trial.drop:
        without = {name: maybe([other for other in fields if other != name]) for name in fields}
    worth = [
        Worth(
            field=name,
            identifying=identifying[name],
            alone=alone[name],
            without=without.get(name),
        )
        for name in fields
    ]
    return Ablation(setting=trial.setting, accuracy=whole, worth=worth, skipped=skipped)
