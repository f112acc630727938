"""The feature set `header_words`: the headers of a capture's first packets, field by field.

Values are as they stand in the headers; the detector makes words of them (detectors/words). What
names a place, a system or one connection is a shortcut: addresses, ports, identifications, sequence
numbers, checksums, TTL, windows, TOS marks, and lengths and offsets that show the options of a SYN.
What stays is what a packet does: its protocol, direction, flags, payload, silence, and whether its
flow is new.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import polars as pl

from veilwatch.learning.features.base import Feature, FeatureSet
from veilwatch.schema.features import FeatureSpec
from veilwatch.schema.headers import ABSENT, HEADER_FIELDS, HEADER_PACKETS, HeaderTable

NANOSECONDS: Final = ("gap",)
"""Fields that a header table holds in ns and a model sees in s."""


def header_columns(tables: Sequence[HeaderTable]) -> pl.DataFrame:
    """Return the headers of captures as columns `<field>_<packet>`, null where absent."""
    values = np.full((len(tables), HEADER_PACKETS, len(HEADER_FIELDS)), np.nan)
    for row, table in zip(values, tables, strict=True):
        row[: len(table)] = np.where(table.values == ABSENT, np.nan, table.values)
    for k, field in enumerate(HEADER_FIELDS):
        if field.name in NANOSECONDS:
            values[:, :, k] /= 1e9
    names = [f"{field.name}_{k}" for k in range(HEADER_PACKETS) for field in HEADER_FIELDS]
    return pl.DataFrame(values.reshape(len(tables), len(names)), schema=names)


def _features() -> list[Feature]:
    return [
        Feature(
            FeatureSpec(
                f"{field.name}_{k}", field.unit, f"{field.doc} of packet {k + 1}", field.identifying
            ),
            pl.col(f"{field.name}_{k}"),
        )
        for k in range(HEADER_PACKETS)
        for field in HEADER_FIELDS
    ]


HEADER_WORDS: Final = FeatureSet(
    "header_words",
    1,
    "Header fields of the first packets of a capture, innermost headers after decapsulation",
    tuple(_features()),
    unit="capture",
)
