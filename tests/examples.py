"""How many examples a property test draws."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final

import pytest
from hypothesis import settings

THOROUGH: Final = os.environ.get("VEILWATCH_TEST_PROFILE") == "thorough"
"""Whether time does not count: set by `make test-slow`."""

SHARE: Final = 5
"""Of so many examples one is drawn where time counts. Every run draws others."""


def examples(most: int, **more: Any) -> Callable[[Any], Any]:
    """Draw at most `most` examples, or a fifth of them where time counts.

    The mark `property` has `make test-slow` run the test once more, with all of them.
    """
    number = most if THOROUGH else max(1, most // SHARE)

    def decorate(test: Any) -> Any:
        return pytest.mark.property(settings(max_examples=number, deadline=None, **more)(test))

    return decorate
