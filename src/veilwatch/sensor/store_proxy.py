"""A store that holds nobody up: what it is asked is done in a thread, and not waited for long.

A database server that hangs neither answers nor refuses. Whoever waited for it would score nothing,
send nothing, and be taken to hang itself.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final, Generic, TypeVar

from veilwatch.errors import StoreError, UnexpectedStoreError, VeilwatchError, described
from veilwatch.schema.events import Event, Incident
from veilwatch.store import Store

PATIENCE_S: Final = 2.5
"""How long an answer is waited for: longer than the store itself waits for who holds it, whose
fault it can name then."""

FIRST_S: Final = 8.0
"""How long the first answer may take: the store is opened for it. Who waits for longer is taken to
hang."""

T = TypeVar("T")


class _Request(Generic[T]):
    def __init__(self, action: Callable[[Store], T], *, in_passing: bool = False) -> None:
        self._action, self.in_passing = action, in_passing
        self.done = threading.Event()
        self.answer: T | None = None
        self.error: VeilwatchError | None = None

    def run(self, store: Callable[[], Store]) -> None:
        """Do it; whatever is raised is an answer, and only what returns is done."""
        try:
            self.answer = self._action(store())
        except VeilwatchError as error:
            self.error = error
        except BaseException as error:  # also SystemExit and MemoryError: somebody waits for us
            self.error = UnexpectedStoreError(
                f"the store failed unexpectedly: {described(error)}", hint="it is asked again"
            )
        finally:
            self.done.set()


class StoreProxy:
    """Some of what a store does, each within a time.

    Every call raises `StoreError` where the store does not answer in time, and does so at once
    while an earlier one has no answer yet. That one may be done later all the same: what is asked
    here can be asked again. A store that failed unexpectedly (`UnexpectedStoreError`) is opened
    anew for the next request.

    Parameters
    ----------
    open_store
        Opens the store; asked for again where it fails.
    patience_s
        See `PATIENCE_S`.
    note
        Told in a line of faults that nobody waits for, each text once.

    Attributes
    ----------
    faults
        How often what was asked in passing failed, or anything failed unexpectedly.
    """

    def __init__(
        self,
        open_store: Callable[[], Store],
        *,
        patience_s: float = PATIENCE_S,
        note: Callable[[str], None] = lambda message: None,
    ) -> None:
        self._open_store, self._patience_s, self._note = open_store, patience_s, note
        self._store: Store | None = None
        self._requests: queue.SimpleQueue[_Request[Any] | None] = queue.SimpleQueue()
        self._late: _Request[Any] | None = None
        self._noted = ""
        self.faults = 0
        self._thread = threading.Thread(target=self._work, name="store", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Close the store once it has done what it was asked, if that does not take long."""
        self._requests.put(None)
        self._thread.join(self._patience_s)

    def record(
        self,
        new_events: Iterable[Event] = (),
        changed_incidents: Iterable[Incident] = (),
        *,
        state: Mapping[str, Any] | None = None,
    ) -> list[str]:
        """See `Store.record`."""
        return self._ask(lambda store: store.record(new_events, changed_incidents, state=state))

    def save_state(self, values: Mapping[str, Any]) -> None:
        """See `Store.save_state`."""
        self._ask(lambda store: store.save_state(values))

    def load_state(self, name: str) -> Any:
        """See `Store.load_state`."""
        return self._ask(lambda store: store.load_state(name))

    def closed_by_people(self, incident_ids: Iterable[str]) -> dict[str, str]:
        """See `Store.closed_by_people`."""
        return self._ask(lambda store: store.closed_by_people(incident_ids))

    def count(self, values: Mapping[str, float], *, minute_ns: int, sensor: str, run: str) -> None:
        """See `Store.count`."""
        self._ask(lambda store: store.count(values, minute_ns=minute_ns, sensor=sensor, run=run))

    def in_passing(self, action: Callable[[Store], object]) -> None:
        """Have something done that may take long and that nobody waits for."""
        self._requests.put(_Request(action, in_passing=True))

    @property
    def is_alive(self) -> bool:
        """Whether the thread that asks the store is there."""
        return self._thread.is_alive()

    def _ask(self, action: Callable[[Store], T]) -> T:
        if self._late is not None and not self._late.done.is_set():
            raise _silent()
        request = _Request(action)
        self._requests.put(request)
        self._late = request
        if not request.done.wait(self._patience_s if self._store else FIRST_S):
            raise _silent()
        if request.error is not None:
            raise request.error
        return request.answer  # type: ignore[return-value]

    def _work(self) -> None:
        while (request := self._requests.get()) is not None:
            request.run(self._opened)
            unexpected = isinstance(request.error, UnexpectedStoreError)
            if request.error is not None and (request.in_passing or unexpected):
                self.faults += 1
                self._say(str(request.error))
            if unexpected:
                self._give_up()
        self._give_up()

    def _opened(self) -> Store:
        if self._store is None:
            self._store = self._open_store()
        return self._store

    def _give_up(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            with suppress(Exception):  # it has failed before
                store.close()

    def _say(self, message: str) -> None:
        if message != self._noted:
            self._noted = message
            with suppress(Exception):
                self._note(message)


def _silent() -> StoreError:
    return StoreError("the store does not answer", hint="it is asked again")
