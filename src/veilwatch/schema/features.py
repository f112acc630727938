"""Features: what a detector sees of a flow, a host's window or a capture; a model's schema."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from veilwatch.errors import VeilwatchError

if TYPE_CHECKING:
    import pandas

Unit = Literal["flow", "channel", "host_window", "host", "capture"]
"""What one row of a frame describes, and therefore what a detector judges."""

Values = npt.NDArray[np.floating[Any]]


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
    unit
        What a row describes.
    """

    set_name: str
    version: int
    features: tuple[FeatureSpec, ...]
    unit: Unit = "flow"

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
    """Features of flows, host windows or captures.

    Attributes
    ----------
    schema
        What the rows and columns are.
    values
        float32 array, float64 where values of 32 bits must stay exact, shape (units, features);
        NaN where a feature does not apply.
    keys
        One row a unit, same order: `flow_id` and whatever identifies it to people
        (addresses, ports, names, capture).
    """

    schema: FeatureSchema
    values: Values
    keys: pl.DataFrame

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: npt.NDArray[np.intp]) -> FeatureFrame:
        """Return some of the units."""
        return FeatureFrame(self.schema, self.values[rows], self.keys[rows])

    def to_numpy(self) -> Values:
        """Return the values, shape (units, features); columns are named by `schema.names`."""
        return self.values

    def to_polars(self) -> pl.DataFrame:
        """Return keys and features side by side; a key that is also a feature stands there once."""
        names = self.schema.names
        values = pl.DataFrame(self.values, schema=names)
        return self.keys.drop(names, strict=False).hstack(values)

    def to_pandas(self) -> pandas.DataFrame:
        """Return the same as `to_polars` for pandas.

        Raises
        ------
        VeilwatchError
            If pandas is not installed.
        """
        if find_spec("pandas") is None:
            raise VeilwatchError("pandas is not installed", hint="install it, or use to_polars()")
        return self.to_polars().to_pandas()
