"""The one registry of feature sets, and how a flow table becomes a feature frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from veilwatch.errors import VeilwatchError
from veilwatch.learning.features.base import Feature, FeatureSet
from veilwatch.learning.features.channel import CHANNEL_SET, channels
from veilwatch.learning.features.channels import CHANNEL_KEYS
from veilwatch.learning.features.flowpic import FLOWPIC
from veilwatch.learning.features.header_words import HEADER_WORDS, header_columns
from veilwatch.learning.features.host_evidence import HOST_EVIDENCE
from veilwatch.learning.features.host_window import HOST_WINDOW, WINDOW_KEYS, host_windows
from veilwatch.learning.features.packets import PACKETS
from veilwatch.learning.features.sequence import SEQUENCE
from veilwatch.learning.features.statistics import STATISTICS
from veilwatch.schema.features import FeatureFrame, FeatureSchema, Unit
from veilwatch.schema.flows import FlowTable
from veilwatch.schema.headers import HeaderTable

FEATURE_SETS: Final[dict[str, FeatureSet]] = {
    item.name: item
    for item in (
        *(STATISTICS, SEQUENCE, PACKETS, FLOWPIC),
        *(CHANNEL_SET, HOST_WINDOW, HOST_EVIDENCE, HEADER_WORDS),
    )
}
"""Every feature set by name."""

DEFAULT_SETS: Final = ("statistics", "sequence")

KEY_COLUMNS: Final = ("flow_id", "parent_id", "src_ip", "src_port", "dst_ip", "dst_port")

_UNITS: Final[dict[Unit, tuple[Callable[[pl.DataFrame], pl.DataFrame], Sequence[str]]]] = {
    "flow": (lambda frame: frame, KEY_COLUMNS),
    "channel": (channels, CHANNEL_KEYS),
    "host_window": (host_windows, WINDOW_KEYS),
}
"""How the flows of a table become units, one a row, and which columns identify a unit."""


def feature_schema(
    names: Sequence[str] = DEFAULT_SETS, *, shortcuts: bool = False
) -> FeatureSchema:
    """Return the schema of some feature sets side by side.

    Parameters
    ----------
    names
        Feature sets; their features follow each other in this order.
    shortcuts
        Whether features that tell the place rather than the threat take part.

    Raises
    ------
    VeilwatchError
        If a set is unknown or named twice, or the sets are of several units.
    """
    features = _features(names, shortcuts)
    version = sum(FEATURE_SETS[name].version << (8 * k) for k, name in enumerate(names))
    label = "+".join(names) + ("+shortcuts" if shortcuts else "")
    units = {FEATURE_SETS[name].unit for name in names}
    if len(units) > 1:
        raise VeilwatchError(
            f"{label}: these sets describe different things", hint="name sets of one unit"
        )
    return FeatureSchema(label, version, tuple(item.spec for item in features), units.pop())


def compute_features(
    table: FlowTable, names: Sequence[str] = DEFAULT_SETS, *, shortcuts: bool = False
) -> FeatureFrame:
    """Compute features of every flow, or of every host window that the flows make.

    Returns
    -------
    FeatureFrame
        float32 values of shape (units, features), NaN where a feature does not apply.

    Raises
    ------
    VeilwatchError
        As `feature_schema`, and if a set describes what a flow table does not hold.
    """
    schema = feature_schema(names, shortcuts=shortcuts)
    if schema.unit not in _UNITS:
        raise _other_unit(schema, "flow, a channel or a host window")
    to_units, keys = _UNITS[schema.unit]
    units = frame = to_units(table.frame)
    for name in names:
        if columns := FEATURE_SETS[name].columns:
            frame = frame.hstack(columns(units))
    matrix = _matrix(frame, names, shortcuts).astype(np.float32, copy=False)
    return FeatureFrame(schema, matrix, units.select(keys))


def capture_features(
    tables: Sequence[HeaderTable], names: Sequence[str], *, shortcuts: bool = False
) -> FeatureFrame:
    """Compute features of captures from the headers of their first packets.

    Returns
    -------
    FeatureFrame
        float64 values of shape (captures, features), NaN where a feature does not apply; the key
        `capture` is the position in `tables`.

    Raises
    ------
    VeilwatchError
        As `feature_schema`, and if a set describes something other than captures.
    """
    schema = feature_schema(names, shortcuts=shortcuts)
    if schema.unit != "capture":
        raise _other_unit(schema, "capture")
    keys = pl.DataFrame({"capture": pl.arange(len(tables), dtype=pl.UInt32, eager=True)})
    return FeatureFrame(schema, _matrix(header_columns(tables), names, shortcuts), keys)


def _other_unit(schema: FeatureSchema, wanted: str) -> VeilwatchError:
    unit = schema.unit.replace("_", " ")
    return VeilwatchError(
        f"{schema.set_name} describes a {unit}, not a {wanted}",
        hint="use a detector of the other kind",
    )


def _matrix(
    frame: pl.DataFrame, names: Sequence[str], shortcuts: bool
) -> npt.NDArray[np.float32 | np.float64]:
    """Return the features of each row; what is infinite or null does not apply."""
    values = frame.select(item.expression for item in _features(names, shortcuts))
    matrix = values.fill_null(np.nan).to_numpy()
    # Infinite values (a rate over a vanishing duration) are as unknown as missing ones.
    return np.ascontiguousarray(np.where(np.isfinite(matrix), matrix, np.nan))


def _features(names: Sequence[str], shortcuts: bool) -> list[Feature]:
    unknown = [name for name in names if name not in FEATURE_SETS]
    if len(set(names)) < len(names):
        raise VeilwatchError("a feature set is named twice", hint="name each once")
    if unknown:
        raise VeilwatchError(
            f"unknown feature set {unknown[0]!r}", hint=f"known: {', '.join(FEATURE_SETS)}"
        )
    return [
        item
        for name in names
        for item in FEATURE_SETS[name].features
        if shortcuts or not item.spec.shortcut
    ]
