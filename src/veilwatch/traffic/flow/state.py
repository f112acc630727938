"""The meter's memory: one structured row per live flow, an index, two age lists, a head pool.

Everything is an array that kernels change in place. Rows are handed out from a free list and
found by a hash of the 5-tuple; each live flow is in exactly one of two
doubly-linked lists, ordered by when it was last touched: open flows and closing TCP flows. The
buffers of the head pool that are in use are in a third, ordered by when they were taken.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from veilwatch.schema.flows import (
    EXTRA_DTYPE,
    FLOW_RECORD_DTYPE,
    HEAD_BYTES,
    HEAD_DTYPE,
    LIVE_DTYPE,
    SEQUENCE_DTYPE,
)
from veilwatch.traffic import packet_time

OPEN: Final = 0
CLOSING: Final = 1
COLLECTING: Final = 2
NIL: Final = -1

# Indices into State.counters.
LIVE: Final = 0
FREE: Final = 1
NEXT_ID: Final = 2
OUT: Final = 3
HEADS_OUT: Final = 4
HEADS_FREE: Final = 5
HEADS_CUT: Final = 6
EVICTED: Final = 7
DATA_OUT: Final = 8
DUPLICATES: Final = 9
AMBIGUOUS: Final = 10
ORPHANS: Final = 11
FRAGMENTS_OF_FLOWS: Final = 12
JUDGED: Final = 13  # whether the first packet was judged by a call before that had no room
KIND: Final = 14  # as what
BASE: Final = 15  # entries of OPENED from before the doubted run
OPENED: Final = 16  # entries after it
TIME: Final = 17  # cells of `packet_time.judge`
ENTRIES: Final = TIME + packet_time.CELLS  # pairs of a slot and the flow_id there

MAX_ENTRIES: Final = 2 * packet_time.MANY
"""Flows whose times may have to be moved: of a doubted run at most MANY, and as many before it."""

COUNTERS: Final = ENTRIES + 2 * MAX_ENTRIES

SEEN: Final = 1 << 13
"""Packets remembered to know their copies by, a power of two: at 160,000 packets a second as many
as come in 50 ms, and no more than stays in the second-level cache."""

FRAGMENTS: Final = 1 << 10
"""First fragments remembered, a power of two."""

PARTNERS: Final = 1 << 16
"""Tunnels whose other direction is remembered, a power of two: a direct-mapped table of 512 KiB."""

OUT_FLOWS: Final = 4096
"""Finished flows held before Python has to take them."""

OUT_HEADS: Final = 512
"""Finished heads held before Python has to take them: with both directions full, 8 MiB."""

SLOT_DTYPE: Final = np.dtype(
    [
        ("hash", np.uint64),
        ("chain", np.int32),  # next slot of the same bucket
        ("older", np.int32),
        ("newer", np.int32),
        ("head", np.int32, (2,)),  # rows of the head pool, NIL none
        ("list", np.uint8),
        ("head_done", np.uint8),
    ],
    align=True,
)
"""What the index knows of a row, apart from the record so that a walk touches little memory: half a
cache line."""

LINE: Final = 64
"""Bytes of a cache line."""

SEEN_DTYPE: Final = np.dtype(
    [
        ("content", np.uint64),
        ("ts_us", np.uint32),  # modulo 2^32: 71 minutes
        ("slot", np.int32),
        ("tunnel", np.uint32),
        ("here", np.uint16),  # of the hashes of the tunnel's end points
        ("there", np.uint16),
        ("parent", np.uint16),  # of the flow's `parent_id`: whether it is still the same
        ("place", np.uint32),  # hash of interface, VLAN, hop count and file
    ],
    align=True,
)
"""A packet by which a copy of it will be known, half a cache line. Of some values the low bits are
enough: they only have to agree where all of `content` does."""

FRAGMENT_DTYPE: Final = np.dtype(
    [
        ("key", np.uint64),
        ("ts_ns", np.int64),
        ("flow_id", np.int64),  # of the record in `slot`: whether it is still the same
        ("before", np.int64),  # bytes of the fragmented packet's data before the flow's payload
        ("slot", np.int32),
        ("tcp_seq", np.uint32),  # of the first payload byte
        ("direction", np.uint8),
        ("inner", np.uint8),  # whether the innermost packet was fragmented, not its tunnel
        ("turned", np.uint8),  # what the flow's `turned` was
    ],
    align=True,
)
"""A first fragment, by which later ones find their flow."""

PARTNER_DTYPE: Final = np.dtype([("tunnel", np.uint32), ("partner", np.uint32)])
"""Two tunnels that carried one flow."""

POOL_DTYPE: Final = np.dtype(
    [
        ("base", np.uint32),  # sequence number of the first byte
        ("length", np.int32),  # contiguous bytes from there
        ("reach", np.int32),  # end of the farthest byte; beyond `length` where there are holes
        ("owner", np.int32),  # slot of the flow
        ("older", np.int32),
        ("newer", np.int32),
        ("list", np.uint8),
        ("holed", np.uint8),  # whether any bit of `known` is set
        ("sure", np.uint8),  # whether its first bytes are a handshake's
        ("floating", np.uint8),  # whether earlier bytes of the stream may still come
        ("known", np.uint8, (HEAD_BYTES // 8,)),  # a bit for each byte that lies past a hole
        ("bytes", np.uint8, (HEAD_BYTES,)),
    ],
    align=True,
)
"""The stream bytes of one direction of one flow, while they are being collected."""


class State(NamedTuple):
    """Arrays that one meter owns.

    Attributes
    ----------
    flows
        `LIVE_DTYPE`, shape (capacity,).
    flow_words
        The same memory as uint64, shape (capacity, words of a record): Numba copies a record byte
        by byte, words are ten times faster.
    extras, extra_words
        `EXTRA_DTYPE`, shape (rows,), and the same memory as uint64: see extra.py.
    extra_books
        uint32, shape (2,): which of them are free.
    sequences
        `SEQUENCE_DTYPE`, shape (capacity, sequence length).
    slots
        `SLOT_DTYPE`, shape (capacity,).
    buckets
        int32, shape (power of two,): first slot of each hash bucket or NIL.
    ends
        int32, shape (3, 2): oldest and newest slot of the open and the closing list, oldest and
        newest row of the pool.
    free
        int32, shape (capacity,): stack of free slots.
    pool
        `POOL_DTYPE`, shape (heads,).
    pool_free
        int32, shape (heads,): stack of free pool rows.
    counters
        int64, shape (COUNTERS,).
    seen
        `SEEN_DTYPE`, shape (SEEN,), by content.
    fragments
        `FRAGMENT_DTYPE`, shape (FRAGMENTS,), by key.
    partners
        `PARTNER_DTYPE`, shape (PARTNERS,), by tunnel.
    out_flows, out_words, out_sequences
        Finished flows waiting to be taken, of `FLOW_RECORD_DTYPE`: records with their extras.
        Sequences not in use are zero.
    out_heads, out_data
        Finished heads waiting to be taken, and their bytes.
    """

    flows: npt.NDArray[np.void]
    flow_words: npt.NDArray[np.uint64]
    extras: npt.NDArray[np.void]
    extra_words: npt.NDArray[np.uint64]
    extra_books: npt.NDArray[np.uint32]
    sequences: npt.NDArray[np.void]
    slots: npt.NDArray[np.void]
    buckets: npt.NDArray[np.int32]
    ends: npt.NDArray[np.int32]
    free: npt.NDArray[np.int32]
    pool: npt.NDArray[np.void]
    pool_free: npt.NDArray[np.int32]
    counters: npt.NDArray[np.int64]
    seen: npt.NDArray[np.void]
    fragments: npt.NDArray[np.void]
    partners: npt.NDArray[np.void]
    out_flows: npt.NDArray[np.void]
    out_words: npt.NDArray[np.uint64]
    out_sequences: npt.NDArray[np.void]
    out_heads: npt.NDArray[np.void]
    out_data: npt.NDArray[np.uint8]


def new_state(capacity: int, heads: int, sequence_length: int) -> State:
    """Allocate an empty table; pages of the head pool are only touched when used."""
    slots = aligned_zeros((capacity,), SLOT_DTYPE)
    slots["head"] = NIL
    counters = np.zeros(COUNTERS, np.int64)
    counters[FREE] = capacity
    counters[NEXT_ID] = 1
    counters[HEADS_FREE] = heads
    flows = aligned_zeros((capacity,), LIVE_DTYPE)
    extras = np.zeros(1, EXTRA_DTYPE)
    out_flows = np.zeros(OUT_FLOWS, FLOW_RECORD_DTYPE)
    return State(
        flows=flows,
        flow_words=as_words(flows),
        extras=extras,
        extra_words=as_words(extras),
        extra_books=np.array([0, 1], np.uint32),
        sequences=aligned_zeros((capacity, sequence_length), SEQUENCE_DTYPE),
        slots=slots,
        buckets=np.full(_bucket_count(capacity), NIL, np.int32),
        ends=np.full((3, 2), NIL, np.int32),
        free=np.arange(capacity - 1, -1, -1, dtype=np.int32),
        pool=np.zeros(heads, POOL_DTYPE),
        pool_free=np.arange(heads - 1, -1, -1, dtype=np.int32),
        counters=counters,
        seen=np.zeros(SEEN, SEEN_DTYPE),
        fragments=np.zeros(FRAGMENTS, FRAGMENT_DTYPE),
        partners=np.zeros(PARTNERS, PARTNER_DTYPE),
        out_flows=out_flows,
        out_words=as_words(out_flows),
        out_sequences=np.zeros((OUT_FLOWS, sequence_length), SEQUENCE_DTYPE),
        out_heads=np.zeros(OUT_HEADS, HEAD_DTYPE),
        out_data=np.zeros(OUT_HEADS * 2 * HEAD_BYTES, np.uint8),
    )


def grown(state: State, capacity: int) -> State:
    """Return a state with room for `capacity` flows that holds the same live flows."""
    old = len(state.flows)
    slots = _extended(state.slots, capacity)
    slots["head"][old:] = NIL
    free = np.empty(capacity, np.int32)
    free_old = int(state.counters[FREE])
    added = capacity - old
    free[:added] = np.arange(capacity - 1, old - 1, -1, dtype=np.int32)
    free[added : added + free_old] = state.free[:free_old]
    state.counters[FREE] += added
    flows = _extended(state.flows, capacity)
    return state._replace(
        flows=flows,
        flow_words=as_words(flows),
        sequences=_extended(state.sequences, capacity),
        slots=slots,
        buckets=np.full(_bucket_count(capacity), NIL, np.int32),
        free=free,
    )


def with_extras(state: State, rows: int) -> State:
    """Return a state with room for what `rows` flows have beside others; the same live flows."""
    extras = _extended(state.extras, rows)
    return state._replace(extras=extras, extra_words=as_words(extras))


def _extended(array: npt.NDArray[np.void], rows: int) -> npt.NDArray[np.void]:
    larger = aligned_zeros((rows, *array.shape[1:]), array.dtype)
    as_bytes(larger)[: len(array)] = as_bytes(array)
    return larger


def aligned_zeros(shape: tuple[int, ...], dtype: np.dtype[np.void]) -> npt.NDArray[np.void]:
    """Return an array of zeros that begins with a cache line; its pages are made when touched."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.zeros(size + LINE, np.uint8)
    start = -memory.ctypes.data % LINE
    return memory[start : start + size].view(dtype).reshape(shape)


def as_bytes(array: npt.NDArray[np.void]) -> npt.NDArray[np.uint8]:
    """View a C-contiguous structured array as bytes, shape (len, bytes of a row).

    NumPy copies structured arrays field by field, bytes five to twenty times faster.
    """
    return array.view(np.uint8).reshape(len(array), array.strides[0])


def joined(arrays: list[npt.NDArray[np.void]]) -> npt.NDArray[np.void]:
    """Concatenate C-contiguous structured arrays of one type; the result shares no memory."""
    first = arrays[0]
    content = np.concatenate([as_bytes(array) for array in arrays])
    return content.view(first.dtype).reshape(-1, *first.shape[1:])


def as_words(records: npt.NDArray[np.void]) -> npt.NDArray[np.uint64]:
    """View C-contiguous records as words, shape (len, words of a record)."""
    return records.view(np.uint64).reshape(len(records), -1)


def _bucket_count(capacity: int) -> int:
    return 1 << max(4, (2 * capacity - 1).bit_length())
