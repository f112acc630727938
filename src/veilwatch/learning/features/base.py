"""What a feature is made of: its documentation and the expression that computes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from veilwatch.schema.features import FeatureSpec, Unit


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature of a set.

    Attributes
    ----------
    spec
        Name, unit, documentation and whether it is a shortcut.
    expression
        Computes the column from a flow table; null and NaN both mean "does not apply".
    """

    spec: FeatureSpec
    expression: pl.Expr


@dataclass(frozen=True, slots=True)
class FeatureSet:
    """A named, versioned list of features.

    Attributes
    ----------
    name
        What `--features` calls it.
    version
        Raised whenever a feature changes its meaning under the same name.
    doc
        What the set sees, in one sentence.
    features
        In the order in which a model receives them.
    unit
        What the features describe.
    columns
        Computes further columns of the flow table, one value a flow, that the expressions read.
    """

    name: str
    version: int
    doc: str
    features: tuple[Feature, ...]
    unit: Unit = "flow"
    columns: Callable[[pl.DataFrame], pl.DataFrame] | None = None


def feature(
    name: str, expression: pl.Expr, unit: str, doc: str, *, shortcut: bool = False
) -> Feature:
    """Make a feature; the expression is named and cast to what models take."""
    return Feature(FeatureSpec(name, unit, doc, shortcut), expression.cast(pl.Float32).alias(name))


def ratio(part: pl.Expr, whole: pl.Expr) -> pl.Expr:
    """Return part / whole, null where `whole` is zero."""
    return pl.when(whole > 0).then(part.cast(pl.Float64) / whole)
