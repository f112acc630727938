"""The F-TEIDs that are valid now, as one array for the flow meter."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from veilwatch.schema.sessions import SESSION_DTYPE
from veilwatch.traffic.subscriber.messages import End

_LOW: Final = (1 << 64) - 1
_FIRST_ROWS: Final = 256


class Bindings:
    """A growing array of `SESSION_DTYPE` without gaps: what is removed, the last row replaces.

    Attributes
    ----------
    version
        Changes whenever the rows do.
    """

    def __init__(self) -> None:
        self._rows = np.zeros(_FIRST_ROWS, SESSION_DTYPE)
        self._place: dict[End, int] = {}
        self._ends: list[End] = []
        self.version = 0

    def put(self, end: End, session: int) -> None:
        """Bind an F-TEID to a session, instead of another one if it is bound."""
        place = self._place.get(end)
        if place is None:
            place = len(self._ends)
            if place == len(self._rows):
                self._rows = np.concatenate((self._rows, np.zeros_like(self._rows)))
            self._place[end] = place
            self._ends.append(end)
        self._rows[place] = (end.address >> 64, end.address & _LOW, end.teid, session)
        self.version += 1

    def remove(self, end: End) -> None:
        """Forget an F-TEID."""
        place = self._place.pop(end)
        last = self._ends.pop()
        if last != end:
            self._rows[place] = self._rows[len(self._ends)]
            self._ends[place] = last
            self._place[last] = place
        self.version += 1

    def rows(self) -> npt.NDArray[np.void]:
        """Return a copy of the rows, in no order."""
        return self._rows[: len(self._ends)].copy()
