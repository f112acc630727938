"""Unsigned integers of either byte order, read inside kernels. The caller checks the bounds."""

from __future__ import annotations

from typing import Any

import numpy as np

from veilwatch.jit import inline_kernel


@inline_kernel
def word16(buffer: Any, at: Any, big: Any) -> Any:
    """Two bytes at `at` as int64, big-endian where `big`."""
    if big:
        return (np.int64(buffer[at]) << 8) | np.int64(buffer[at + 1])
    return (np.int64(buffer[at + 1]) << 8) | np.int64(buffer[at])


@inline_kernel
def word32(buffer: Any, at: Any, big: Any) -> Any:
    """Four bytes at `at` as int64, big-endian where `big`."""
    if big:
        return (word16(buffer, at, True) << 16) | word16(buffer, at + 2, True)
    return (word16(buffer, at + 2, False) << 16) | word16(buffer, at, False)
