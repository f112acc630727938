"""How many examples a property test draws: few where time counts, all in the slow lane."""

from __future__ import annotations

import os
from typing import Any, Final

from hypothesis import settings

THOROUGH: Final = os.environ.get("VEILWATCH_TEST_PROFILE") == "thorough"
"""Whether time does not count: set by `make test-slow`."""

SHARE: Final = 5
"""Of so many examples one is drawn where time counts. Every run draws others."""

USUAL: Final = 100
"""Examples of a test that names no number."""


def drawn(most: int) -> int:
    """Return how many of `most` examples this run draws."""
    return most if THOROUGH else max(1, most // SHARE)


def examples(most: int, **more: Any) -> settings:
    """Draw at most `most` examples of a test, or a fifth of them where time counts."""
    return settings(max_examples=drawn(most), deadline=None, **more)
