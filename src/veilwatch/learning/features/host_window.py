"""The feature set `host_window`: what a host does in five minutes, and in the hour that they end.

Scanning, beacons, generated names and the encryption of file shares show in many flows together
and in none alone. No feature holds an address, a port or a time of day: the same behaviour by
another host to other places at another time gives the same values.
"""

from __future__ import annotations

from typing import Final

import polars as pl

from veilwatch.learning.features.base import Feature, FeatureSet
from veilwatch.learning.features.window_activity import ACTIVITY
from veilwatch.learning.features.window_names import DNS, NAMES, TLS, name_features
from veilwatch.learning.features.window_pairs import (
    BEACONS,
    DESTINATIONS,
    HOUR,
    NETWORKS,
    PORTS,
    pair_features,
)
from veilwatch.learning.features.windows import HOST, PLACE, WINDOW, window_flows

WINDOW_KEYS: Final = (*HOST, PLACE, "window", "first_ns", "last_ns", "flow_id", "flow_count")
"""What identifies a window: its host, its number, first start and last end of its flows, the
first of them and how many there are."""

_OF_FLOWS: Final = (*ACTIVITY, *TLS, *DNS)
_OF_PARTS: Final = (
    *(*DESTINATIONS, *PORTS, *NETWORKS, *BEACONS, *HOUR),
    *(item for features in NAMES.values() for item in features),
)


def host_windows(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the windows of all hosts of a flow table, in order of host and time.

    Parameters
    ----------
    frame
        All flows of the inputs, in any order.

    Returns
    -------
    polars.DataFrame
        `WINDOW_KEYS` and every feature of `HOST_WINDOW`, null where one does not apply.
    """
    flows = window_flows(frame)
    windows = (
        flows.lazy()
        .group_by(WINDOW, maintain_order=True)
        .agg(
            *(pl.col(name).first() for name in (*HOST, PLACE, "flow_id")),
            *(item.expression for item in _OF_FLOWS),
            first_ns=pl.col("first_ns").min(),
            last_ns=pl.col("last_ns").max(),
            flow_count=pl.len(),
        )
    )
    for part in (*pair_features(flows), *name_features(flows)):
        windows = windows.join(part, on=WINDOW, how="left", maintain_order="left")
    return windows.sort(WINDOW).collect()


HOST_WINDOW: Final = FeatureSet(
    "host_window",
    1,
    "What a host does within five minutes: fan-out, failures, rhythm, names, TLS and file shares",
    # Aggregations over parts of a window are made in `host_windows`.
    tuple(Feature(item.spec, pl.col(item.spec.name)) for item in (*_OF_FLOWS, *_OF_PARTS)),
    unit="host_window",
)
