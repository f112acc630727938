"""Packet times: ticks of any pcapng resolution to exact nanoseconds.

Times outside `MIN_TIME_NS` … `MAX_TIME_NS` only come from hostile or broken files. They are
clamped, so that the sum or the difference of any two packet times fits into an int64.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from veilwatch.jit import inline_kernel

NS: Final = 1_000_000_000

MIN_TIME_NS: Final = 0
"""The epoch: captures of packets before 1970 do not exist."""

MAX_TIME_NS: Final = 2**62 - 1
"""The year 2116, beyond what the 32-bit seconds of a pcap can say (2106)."""

_MAX_SECONDS: Final = MAX_TIME_NS // NS + 1
_U64_BITS: Final = 64

INTERFACE_DTYPE: Final = np.dtype(
    [
        ("per_second", np.uint64),  # decimal: ticks in a second, 0 where 64 bits cannot hold it
        ("scale", np.uint64),  # decimal: ns in a tick, or ticks in a ns where `finer`; 0 see above
        ("offset", np.int64),  # if_tsoffset, s
        ("binary", np.int64),  # exponent n where a tick is 2^-n s, -1 where decimal
        ("snaplen", np.uint32),  # 0 = no limit
        ("link", np.uint16),  # LINKTYPE_ value
        ("finer", np.bool_),  # decimal: a tick is shorter than 1 ns
    ],
    align=True,
)
"""An interface of a pcapng section, its resolution prepared for `to_nanoseconds`."""

DEFAULT_RESOLUTION: Final = 6
"""Microseconds, where an interface names no resolution."""


def set_resolution(row: npt.NDArray[np.void], resolution: int, offset: int) -> None:
    """Prepare `row` (a one-row view of `INTERFACE_DTYPE`) for a value of if_tsresol.

    Parameters
    ----------
    resolution
        The option's byte: 10^-n s, or 2^-(n & 0x7f) s with the top bit set.
    offset
        if_tsoffset, seconds to add, int64.
    """
    row["offset"] = offset
    if resolution & 0x80:
        row["binary"] = resolution & 0x7F
        return
    row["binary"] = -1
    row["finer"] = resolution > 9
    per_second, scale = 10**resolution, 10 ** abs(resolution - 9)
    row["per_second"] = per_second if per_second < 2**_U64_BITS else 0
    row["scale"] = scale if scale < 2**_U64_BITS else 0


@inline_kernel
def to_nanoseconds(ticks: Any, interfaces: Any, index: Any) -> Any:
    """Convert a uint64 of ticks to int64 ns since the epoch, rounded down and clamped."""
    zero = np.uint64(0)
    seconds = zero
    fraction = zero  # ns below one second
    binary = interfaces[index].binary
    if binary < 0:
        per_second = interfaces[index].per_second
        scale = interfaces[index].scale
        rest = ticks
        if per_second != zero:
            seconds = ticks // per_second
            rest = ticks % per_second
        if not interfaces[index].finer:
            fraction = rest * scale
        elif scale != zero:
            fraction = rest // scale
    else:
        rest = ticks
        if binary < 64:
            seconds = ticks >> np.uint64(binary)
            rest = ticks & ((np.uint64(1) << np.uint64(binary)) - np.uint64(1))
        if binary <= 32:
            fraction = (rest * np.uint64(NS)) >> np.uint64(binary)
        elif binary < 96:
            # rest * NS needs up to 94 bits: multiply the halves and carry.
            high = (rest >> np.uint64(32)) * np.uint64(NS)
            low = (rest & np.uint64(0xFFFFFFFF)) * np.uint64(NS)
            fraction = (high + (low >> np.uint64(32))) >> np.uint64(binary - 32)
    offset = interfaces[index].offset
    if offset < 0:
        backwards = np.uint64(-(offset + 1)) + np.uint64(1)  # -offset alone may not fit
        if seconds < backwards:
            return np.int64(MIN_TIME_NS)
        seconds -= backwards
    elif offset > _MAX_SECONDS:
        return np.int64(MAX_TIME_NS)
    elif seconds <= np.uint64(_MAX_SECONDS):
        seconds += np.uint64(offset)
    if seconds > np.uint64(_MAX_SECONDS):
        return np.int64(MAX_TIME_NS)
    time = np.int64(seconds) * NS + np.int64(fraction)
    return min(time, np.int64(MAX_TIME_NS))
