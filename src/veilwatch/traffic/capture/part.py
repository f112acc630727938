"""Which bytes of a file to read: all of it, or a run of its sections."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final


def _ignore(offset: int, number: int) -> None:
    """Take no note of a section."""


@dataclass(frozen=True, slots=True)
class Part:
    """Sections of a pcapng that are read one after the other.

    Attributes
    ----------
    start
        Offset of the first one's header, in the decompressed capture.
    end
        Offset of the header at which to stop, None for the end of the file.
    number
        Packets of the file before it.
    lane
        Which of the parts that are read side by side: their interfaces are different places.
    note
        Told offset and packets before it of each section.
    """

    start: int = 0
    end: int | None = None
    number: int = 0
    lane: int = 0
    note: Callable[[int, int], None] = _ignore


WHOLE: Final = Part()
