"""What a test knows to be there, though its type allows that it is not."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


def known(value: T | None) -> T:
    """Return a value that is not None; where it is, the test fails here."""
    assert value is not None
    return value
