"""What few flows have, in rows of their own: gaps in their streams, messages to file servers.

A flow without such a row reads the first one, which says that there is nothing; it gets its own
when it has something to write. The meter sees to it before each batch that there is a fresh row
for every packet.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np

from veilwatch.jit import inner_kernel
from veilwatch.schema.flows import EXTRA_DTYPE
from veilwatch.traffic.flow.copying import clear_run
from veilwatch.traffic.flow.state import State

NOTHING: Final = 0
"""The row of flows that have none, all zeros."""

WORDS: Final = EXTRA_DTYPE.itemsize // 8

# Indices into State.extra_books.
FREED: Final = 0  # the row that was given back last, 0 none; others behind it by `next`
FRESH: Final = 1  # the first row that nobody has had


class Extras(NamedTuple):
    """Rows, and which of them are free, as kernels pass them about."""

    rows: Any
    books: Any


@inner_kernel
def extras_of(state: State) -> Any:
    """Return the meter's extras."""
    return Extras(state.extras, state.extra_books)


@inner_kernel
def missed(flow: Any, extras: Any, direction: Any) -> Any:
    """Return what is missing of a direction's stream, to be read only."""
    return extras.rows[flow.extra].missing[direction]


@inner_kernel
def own_extra(flow: Any, extras: Any) -> Any:
    """Return a flow's row, to be written to."""
    rows, books = extras.rows, extras.books
    if flow.extra == NOTHING:
        row = books[FREED]
        if row != NOTHING:
            books[FREED] = rows[row].next
            rows[row].next = 0
        else:
            row = books[FRESH]
            books[FRESH] += np.uint32(1)
        flow.extra = row
    return rows[flow.extra]


@inner_kernel
def release_extra(state: State, flow: Any) -> Any:
    """Give a flow's row back."""
    row = flow.extra
    if row != NOTHING:
        clear_run(state.extra_words[row], 0, WORDS)
        state.extras[row].next = state.extra_books[FREED]
        state.extra_books[FREED] = row
        flow.extra = NOTHING


@inner_kernel
def forget_measures(row: Any) -> Any:
    """Forget what was measured; what the streams miss goes on."""
    clear_run(row.file_messages, 0, len(row.file_messages))
    for direction in range(2):
        row.missing[direction].far_start = 0
        row.missing[direction].far_end = 0
