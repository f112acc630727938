"""How long work tells how far it is, without knowing who listens.

Rooms below the command line take a `Progress`; the command line hands in one that draws a
bar, scripts and tests hand in nothing.
"""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """What a listener must offer."""

    def start(self, task: str, total: float | None = None) -> None:
        """Begin `task`; `total` is the amount of work in any unit, None when unknown."""

    def advance(self, amount: float = 1.0) -> None:
        """Report `amount` more work done on the current task."""

    def note(self, message: str) -> None:
        """Show one line that stays (a capture that was cut, a kernel that compiles)."""


class Silent:
    """A listener that says nothing."""

    def start(self, task: str, total: float | None = None) -> None:
        """Ignore it."""

    def advance(self, amount: float = 1.0) -> None:
        """Ignore it."""

    def note(self, message: str) -> None:
        """Ignore it."""


SILENT: Progress = Silent()
"""The default listener."""
