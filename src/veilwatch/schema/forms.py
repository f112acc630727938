"""Forms of single values outside the flow table.

Inside, a value that a flow has not is a number that cannot occur, which kernels and features can
compute with; whoever reads a file or writes a condition sees null instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import polars as pl

from veilwatch.schema.flows import FLOW_COLUMNS

UNSET: Final = {column.name: column.unset for column in FLOW_COLUMNS if column.unset is not None}
"""What stands for "none" in the flow table, by column."""


def known(column: str) -> pl.Expr:
    """Return a column, null where the flow has no such value."""
    value = pl.col(column)
    if column not in UNSET:
        return value
    return pl.when(value != UNSET[column]).then(value).alias(column)


def known_frame(frame: pl.DataFrame) -> pl.DataFrame:
    """Return a table with null where a flow has no such value."""
    return frame.with_columns(known(name) for name in frame.columns if name in UNSET)


def known_values(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return one flow's values, None where it has no such value."""
    return {
        name: None if name in UNSET and value == UNSET[name] else value
        for name, value in row.items()
    }


def teid_text(teid: int) -> str:
    """Return a TEID as people know it from Wireshark.

    Examples
    --------
    >>> teid_text(6699)
    '0x00001a2b'
    """
    return f"0x{teid:08x}"
