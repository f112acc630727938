"""A store that is left alone for a while after a fault: scores do not wait for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from veilwatch.detection.alerting.faults import FaultLog
from veilwatch.detection.alerting.ports import Clock
from veilwatch.errors import UnexpectedStoreError, VeilwatchError

STORE_PAUSE_S: Final = 5.0
"""How long: each try may wait for the store, and scores do not."""


class StoreGuard:
    """Call the store, unless it failed a moment ago.

    Parameters
    ----------
    clock
        Tells when the pause is over.
    faults
        Takes what went wrong.
    pause_s
        See `STORE_PAUSE_S`.
    """

    def __init__(self, clock: Clock, faults: FaultLog, *, pause_s: float = STORE_PAUSE_S) -> None:
        self._clock, self._faults, self._pause_s = clock, faults, pause_s
        self._from_s = float("-inf")

    def attempt(self, action: Callable[[], object]) -> bool:
        """Do something with the store; return whether it is done.

        Raises
        ------
        UnexpectedStoreError
            If the store failed in a way that nobody foresaw: another try may fail the same way.
        """
        if self._clock.monotonic_s() < self._from_s:
            return False
        try:
            action()
        except UnexpectedStoreError:
            self._pause()
            raise
        except VeilwatchError as error:
            self._pause()
            self._faults.add(error)
            return False
        return True

    def attempt_later(self, action: Callable[[], object]) -> None:
        """Do something with the store that can as well be done at another time."""
        try:
            self.attempt(action)
        except UnexpectedStoreError as error:
            self._faults.add(error)

    def end_pause(self) -> None:
        """Call the store again whatever was before: there is no later time."""
        self._from_s = float("-inf")

    def _pause(self) -> None:
        self._from_s = self._clock.monotonic_s() + self._pause_s
