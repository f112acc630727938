"""The feature set `flowpic`: a flow as a picture of sizes over time (Shapira & Shavitt 2019).

A picture has a row for each range of sizes, a column for each range of times and a channel for
each direction; a packet adds one to its cell. Of 2048 cells a flow fills at most 64, so a frame
holds for each packet the number of its cell (direction · 1024 + row · 32 + column), and the
detector draws.

**Rows** are ranges of payload sizes that widen with the square root: three bytes wide for the
smallest, under a hundred at the MTU. Names and heartbeats of tens of bytes and segments of
1,400 are both told apart; what is longer than `MAX_SIZE` came through segmentation offload and
shares the last row. Row 0 holds packets without payload that open or end a connection, so
that no length of a bare packet, which tells the operating system, is drawn
(learning/features/sequence.py).

**Columns** are ranges of time since the flow's first packet that widen by a factor of 1.6: the
first ends at 1 ms, the last begins at 19 min and the active timeout of 30 min ends it. A handshake
of milliseconds takes up as much room as minutes of beaconing.

As a shortcut there is the picture of all packets by IP length, with rows of equal height.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from veilwatch.learning.features.base import Feature, FeatureSet, feature
from veilwatch.learning.features.informative import (
    NETWORK_PACKETS,
    Packets,
    all_packets,
    informative_packets,
)

SIDE: Final = 32
"""Rows and columns of a picture."""

CHANNEL: Final = SIDE * SIDE
"""Cells of one direction."""

CELLS: Final = 2 * CHANNEL
"""Cells of a picture."""

MAX_SIZE: Final = 1500
"""Bytes at which sizes end: the MTU of Ethernet and of most mobile networks."""

FIRST_S: Final = 0.001
"""Where the first column ends: what lies closer is the path and the queues along it."""

LAST_S: Final = 1800.0
"""Where the last column ends: the meter's active timeout."""


def size_row(payload: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the row of payload sizes in bytes: 0 for none, 1…31 by the square root."""
    share = np.sqrt(np.minimum(payload, MAX_SIZE - 1) / MAX_SIZE)
    return np.where(payload > 0, 1 + (share * (SIDE - 1)).astype(np.int64), 0)


def length_row(length: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the row of IP lengths in bytes: 32 ranges of equal height."""
    return np.minimum(length, MAX_SIZE - 1) * SIDE // MAX_SIZE


def time_column(time: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return the column of times in seconds since the flow's first packet."""
    steps = np.log(np.maximum(time, FIRST_S) / FIRST_S) / np.log(LAST_S / FIRST_S)
    column = 1 + (steps * (SIDE - 1)).astype(np.int64)
    return np.where(time < FIRST_S, 0, np.minimum(column, SIDE - 1))


def cell_words(cell: float) -> str:
    """Say which packets a cell by payload holds.

    Examples
    --------
    >>> cell_words(1024 + 5 * 32 + 0)
    'from the responder, 25 to 39 bytes, within 1 ms of the first'
    """
    row, column = int(cell) % CHANNEL // SIDE, int(cell) % SIDE
    sender = "responder" if cell >= CHANNEL else "initiator"
    low, high = (MAX_SIZE * (max(edge, 0) / (SIDE - 1)) ** 2 for edge in (row - 1, row))
    size = f"{max(math.ceil(low), 1)} to {math.ceil(high) - 1} bytes" if row else "no payload"
    begin, end = (_time_words(edge) for edge in (column - 1, column))
    when = f"{begin} to {end} after the first" if column else f"within {end} of the first"
    return f"from the {sender}, {size}, {when}"


def _time_words(edge: int) -> str:
    """Return where a column ends, as people write times."""
    seconds = FIRST_S * (LAST_S / FIRST_S) ** (edge / (SIDE - 1))
    for least, factor, unit in ((60, 1 / 60, "min"), (1, 1, "s")):
        if seconds >= least:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1000:.3g} ms"


def cell_columns(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the cells of each flow's packets as columns.

    Returns
    -------
    polars.DataFrame
        `cell_0` … by payload, `length_cell_0` … by IP length; NaN past the last packet.
    """
    informative, everything = informative_packets(frame), all_packets(frame)
    columns: dict[str, npt.NDArray[np.float32]] = {}
    for name, packets, row in (
        ("cell", informative, size_row(informative.payload)),
        ("length_cell", everything, length_row(everything.length)),
    ):
        cells = _cells(packets, row)
        columns |= {f"{name}_{k}": cells[:, k] for k in range(NETWORK_PACKETS)}
    return pl.DataFrame(columns)


def _cells(packets: Packets, row: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Return the number of each packet's cell, NaN past the last."""
    cell = ~packets.forward * CHANNEL + row * SIDE + time_column(packets.time)
    return np.where(packets.present, cell, np.nan).astype(np.float32)


def _features() -> list[Feature]:
    return [
        feature(f"{name}_{k}", pl.col(f"{name}_{k}"), unit, doc.format(k + 1), shortcut=shortcut)
        for name, unit, doc, shortcut in (
            (
                "cell",
                "cell",
                "Cell of informative packet {}: direction · 1024 + size · 32 + time",
                False,
            ),
            ("length_cell", "", "Cell of packet {} by its IP length", True),
        )
        for k in range(NETWORK_PACKETS)
    ]


FLOWPIC: Final = FeatureSet(
    "flowpic",
    1,
    "A picture of payload sizes over the logarithm of time, one channel each way",
    tuple(_features()),
    columns=cell_columns,
)
