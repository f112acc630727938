"""Exact times from ticks of every resolution."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np
import pytest

from veilwatch.traffic.capture.clock import (
    INTERFACE_DTYPE,
    MAX_TIME_NS,
    MIN_TIME_NS,
    set_resolution,
    to_nanoseconds,
)

TICKS = [0, 1, 999, 2**31, 2**32 - 1, 2**32, 1_700_000_000_123_456_789, 2**63 - 1, 2**64 - 1]
OFFSETS = [0, 1, -1, 3600, -(2**63), 2**63 - 1, -1_700_000_000, 10**10, -(10**10)]


@pytest.mark.parametrize("resolution", range(256))
def test_every_resolution_is_exact(resolution: int) -> None:
    base = 2 if resolution & 0x80 else 10
    tick = Fraction(1, base ** (resolution & 0x7F))
    for offset in OFFSETS:
        interfaces = np.zeros(1, INTERFACE_DTYPE)
        set_resolution(interfaces[0], resolution, offset)
        for ticks in TICKS:
            exact = floor((ticks * tick + offset) * 10**9)
            clamped = min(max(exact, MIN_TIME_NS), MAX_TIME_NS)
            assert to_nanoseconds(np.uint64(ticks), interfaces, 0) == clamped, (ticks, offset)


def test_any_two_times_can_be_added_and_subtracted() -> None:
    for one in (MIN_TIME_NS, MAX_TIME_NS):
        for other in (MIN_TIME_NS, MAX_TIME_NS):
            assert one - other >= -(2**63) and one + other < 2**63
