"""Features: what a detector sees of a flow, and the schema that a model is bound to."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """One feature as a model knows it.

    Attributes
    ----------
    name
        Unique within its set.
    unit
        "bytes", "s", "packets", "" for pure numbers.
    doc
        What it measures, one sentence that an analyst understands.
    shortcut
        Whether it tells the place rather than the threat (addresses, ports, TTL …): such
        features are off unless asked for.
    """

    name: str
    unit: str
    doc: str
    shortcut: bool = False


@dataclass(frozen=True, slots=True)
class FeatureSchema:
    """Names and order of the columns of a feature frame.

    Attributes
    ----------
    set_name
        Feature set, or sets joined by "+".
    version
        Raised whenever a feature changes its meaning under the same name.
    features
        The columns in order.
    """

    set_name: str
    version: int
    features: tuple[FeatureSpec, ...]

    @property
    def names(self) -> list[str]:
        """Column names in order."""
        return [feature.name for feature in self.features]

    @property
    def hash(self) -> str:
        """Hash over set, version and column names: what a model's manifest is bound to."""
        text = json.dumps([self.set_name, self.version, self.names])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class FeatureFrame:
    """Features of flows.

    Attributes
    ----------
    schema
        What the columns are.
    values
        float32 array, shape (flows, features); NaN where a feature does not apply.
    keys
        One row a flow, same order: `flow_id` and whatever identifies it to people
        (addresses, ports, names, capture).
    """

    schema: FeatureSchema
    values: npt.NDArray[np.float32]
    keys: pl.DataFrame

    def __len__(self) -> int:
        return len(self.values)
