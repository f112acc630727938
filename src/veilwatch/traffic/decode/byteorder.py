"""Integers read from the block's bytes, in network byte order where nothing else is said.

All are int64, so that offsets and lengths never mix with unsigned types (Numba would turn such
a mix into a float); only address halves and 32-bit fields that are stored as they stand need
more than that. Callers test bounds first.

Loads stand in one expression where they can: a call that hands the array on costs an atomic
reference count up and down, which is most of the time of a function this small.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from veilwatch.jit import inner_kernel

Buffer = npt.NDArray[np.uint8]


@inner_kernel
def i64(value: Any) -> int:
    """Return an integer of any type as int64."""
    return np.int64(value)  # type: ignore[return-value]


@inner_kernel
def u8(buffer: Buffer, at: int) -> int:
    """Return the byte at `at` as int64."""
    return i64(buffer[at])


@inner_kernel
def u16(buffer: Buffer, at: int) -> int:
    """Return the 16-bit integer at `at` as int64."""
    return (i64(buffer[at]) << 8) | i64(buffer[at + 1])


@inner_kernel
def u32(buffer: Buffer, at: int) -> int:
    """Return the 32-bit integer at `at` as int64."""
    return (
        (i64(buffer[at]) << 24)
        | (i64(buffer[at + 1]) << 16)
        | (i64(buffer[at + 2]) << 8)
        | i64(buffer[at + 3])
    )


@inner_kernel
def u64(buffer: Buffer, at: int) -> np.uint64:
    """Return the 64-bit integer at `at` as uint64."""
    return (np.uint64(u32(buffer, at)) << np.uint64(32)) | np.uint64(u32(buffer, at + 4))


@inner_kernel
def le16(buffer: Buffer, at: int) -> int:
    """Return the 16-bit integer at `at`, least significant byte first, as int64."""
    return i64(buffer[at]) | (i64(buffer[at + 1]) << 8)


@inner_kernel
def le32(buffer: Buffer, at: int) -> int:
    """Return the 32-bit integer at `at`, least significant byte first, as int64."""
    return le16(buffer, at) | (le16(buffer, at + 2) << 16)
