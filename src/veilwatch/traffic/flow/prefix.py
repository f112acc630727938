"""What the first payload bytes of a direction look like as numbers."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from veilwatch.jit import kernel
from veilwatch.schema.flows import PREFIX_BYTES

BYTE_VALUES: Final = 256

_COUNTS = np.arange(PREFIX_BYTES + 1, dtype=np.float64)
_COUNT_LOG_COUNT = _COUNTS * np.log2(np.maximum(_COUNTS, 1.0))


@kernel
def describe_prefixes(prefix: Any, used: Any, counts: Any, out: Any) -> None:
    """Describe the first payload bytes of flows.

    Parameters
    ----------
    prefix
        uint8 array, shape (flows, PREFIX_BYTES).
    used
        How many of them were seen, shape (flows,).
    counts
        int64 array of `BYTE_VALUES` zeros, which it is again afterwards.
    out
        float64 array, shape (flows, 3), for the entropy in bit (Shannon 1948: n values of which
        the i-th occurs c_i times have log2 n - Σ c_i log2 c_i / n), the share of printable ASCII
        and the share of zero bytes; NaN where no byte was seen.
    """
    for row in range(len(used)):
        total = min(np.int64(used[row]), np.int64(PREFIX_BYTES))
        if total == 0:
            out[row, 0] = out[row, 1] = out[row, 2] = np.nan
            continue
        printable = 0
        for i in range(total):
            byte = prefix[row, i]
            counts[byte] += 1
            if 0x20 <= byte < 0x7F:
                printable += 1
        zeros = counts[0]
        repeated = 0.0
        for i in range(total):
            byte = prefix[row, i]
            repeated += _COUNT_LOG_COUNT[counts[byte]]
            counts[byte] = 0
        out[row, 0] = np.log2(total) - repeated / total
        out[row, 1] = printable / total
        out[row, 2] = zeros / total


def prefix_measures(prefix: Any, used: Any) -> dict[str, npt.NDArray[np.float64]]:
    """Return entropy, printable share and zero share under the names of their columns."""
    out = np.empty((len(used), 3))
    describe_prefixes(prefix, used, np.zeros(BYTE_VALUES, np.int64), out)
    names = ("prefix_entropy", "prefix_printable", "prefix_zero")
    return {name: out[:, k] for k, name in enumerate(names)}
