"""How long to wait before a failed delivery is repeated."""

from __future__ import annotations

import random
from typing import Final

FIRST_BACKOFF_S: Final = 1.0
"""Pause before the first repetition: a restart of the receiver takes about as long."""

MAX_BACKOFF_S: Final = 60.0
"""Longest pause: an outage that ends is noticed within a minute."""

JITTER: Final = 0.25
"""Part of a pause that is drawn by chance, so that sensors do not come back all at once."""


def backoff_s(attempts: int, chance: random.Random) -> float:
    """Return the pause after a number of failed attempts, s; part of it drawn by chance."""
    whole = min(FIRST_BACKOFF_S * 2.0 ** min(attempts, 20), MAX_BACKOFF_S)
    return whole * (1 - JITTER * chance.random())
