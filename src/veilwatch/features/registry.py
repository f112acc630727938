"""The one registry of feature sets, and how a flow table becomes a feature frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from veilwatch.errors import VeilwatchError
from veilwatch.features.base import Feature, FeatureSet
from veilwatch.features.flowpic import FLOWPIC
from veilwatch.features.packets import PACKETS
from veilwatch.features.sequence import SEQUENCE
from veilwatch.features.statistics import STATISTICS
from veilwatch.schema.features import FeatureFrame, FeatureSchema
from veilwatch.schema.flows import FlowTable

FEATURE_SETS: Final[dict[str, FeatureSet]] = {
    item.name: item for item in (STATISTICS, SEQUENCE, PACKETS, FLOWPIC)
}
"""Every feature set by name."""

DEFAULT_SETS: Final = ("statistics", "sequence")

KEY_COLUMNS: Final = ("flow_id", "parent_id", "src_ip", "src_port", "dst_ip", "dst_port")


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
    """Compute features of every flow.

    Returns
    -------
    FeatureFrame
        float32 values of shape (flows, features), NaN where a feature does not apply.
    """
    features = _features(names, shortcuts)
    frame = table.frame
    for name in names:
        if columns := FEATURE_SETS[name].columns:
            frame = frame.hstack(columns(table.frame))
    values = frame.select(item.expression for item in features)
    matrix = values.fill_null(np.nan).to_numpy().astype(np.float32, copy=False)
    # Infinite values (a rate over a vanishing duration) are as unknown as missing ones.
    matrix = np.where(np.isfinite(matrix), matrix, np.float32(np.nan))
    schema = feature_schema(names, shortcuts=shortcuts)
    return FeatureFrame(schema, np.ascontiguousarray(matrix), table.frame.select(KEY_COLUMNS))


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
