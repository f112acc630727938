"""Copying and clearing runs of an array.

The ends of a slice are clipped to its array, so that no index in these loops can be out of bounds:
LLVM sees that and moves 32 bytes at a time. With an index that is checked each time it moves one.
"""

from __future__ import annotations

from typing import Any

from veilwatch.jit import inner_kernel


@inner_kernel
def copy_run(target: Any, at: Any, source: Any, start: Any, count: Any) -> Any:
    """Copy `count` values from `source[start]` on to `target[at]` and on; below 1 none."""
    count = max(count, 0)
    into, values = target[at : at + count], source[start : start + count]
    for i in range(min(len(into), len(values))):
        into[i] = values[i]


@inner_kernel
def clear_run(target: Any, at: Any, count: Any) -> Any:
    """Set `count` values from `target[at]` on to zero."""
    run = target[at : at + count]
    for i in range(len(run)):
        run[i] = 0
