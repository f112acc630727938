"""The one hash function of the kernels."""

from __future__ import annotations

from typing import Any

import numpy as np

from veilwatch.jit import inner_kernel


@inner_kernel
def mix(value: Any) -> Any:
    """Spread the bits of a uint64 (finaliser of SplitMix64, Steele et al. 2014)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
