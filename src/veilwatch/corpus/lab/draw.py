"""Random draws that depend on nothing but a key: the lab repeats itself by seed."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

Range = tuple[float, float]
"""Lowest and highest value of a quantity."""


class Draw(random.Random):
    """A stream of random numbers named by `key`.

    Streams of different keys are independent, so the numbers of one capture do not change when
    another capture is added, left out or made in another order.
    """

    def __init__(self, *key: object) -> None:
        super().__init__("/".join(map(str, key)))

    def between(self, bounds: Range) -> float:
        """Draw between the bounds, uniform on a logarithmic scale.

        Sizes and times of traffic spread over orders of magnitude.
        """
        low, high = bounds
        if low <= 0:
            return self.uniform(low, high)
        return math.exp(self.uniform(math.log(low), math.log(high)))

    def count(self, bounds: Range) -> int:
        """Draw a whole number between the bounds, see `between`."""
        return round(self.between(bounds))

    def one(self, options: Sequence[T]) -> T:
        """Draw one of `options`."""
        return options[int(self.random() * len(options))]

    def chance(self, probability: float) -> bool:
        """Draw whether something of this probability happens."""
        return self.random() < probability

    def octets(self, count: int) -> bytes:
        """Draw `count` bytes."""
        return self.getrandbits(8 * count).to_bytes(count, "big") if count else b""
