"""From the spool to one sink, for as long as it takes."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

from veilwatch.errors import VeilwatchError
from veilwatch.schema.events import Event
from veilwatch.sinks.backoff import backoff_s
from veilwatch.sinks.base import Sink
from veilwatch.sinks.spool import Spool

BATCH: Final = 200
"""Most events sent at once: some 2 MB, and few enough that a crash repeats little."""

POLL_S: Final = 0.25
"""How often a quiet spool is looked at: alerts are to be at the sink within 5 s."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What one round did.

    Attributes
    ----------
    taken, delivered, again, refused
        Numbers of events.
    reason
        What the first that was not delivered met with, '' where all were.
    wait_s
        Seconds until the next round makes sense, 0 at once.
    """

    taken: int = 0
    delivered: int = 0
    again: int = 0
    refused: int = 0
    reason: str = ""
    wait_s: float = POLL_S


class Stop(Protocol):
    """What tells a loop to end: `threading.Event`, or that of multiprocessing."""

    def is_set(self) -> bool:
        """Return whether to end."""
        ...

    def wait(self, timeout: float | None = None) -> bool:
        """Return early where it is set."""
        ...


@runtime_checkable
class Reconciled(Protocol):
    """A sink that can tell what its peer has."""

    def missing(self, events: Sequence[Event]) -> set[str]:
        """Return the ids of events that the peer does not have."""
        ...


class Delivery:
    """Moves events from the spool to one sink.

    Parameters
    ----------
    name
        Of the sink in the spool; one delivery at a time for each name.
    sink
        Where to.
    spool
        Where from.
    batch
        Most events sent at once.
    """

    def __init__(self, name: str, sink: Sink, spool: Spool, *, batch: int = BATCH) -> None:
        self.name = name
        self._sink = sink
        self._spool = spool
        self._batch = batch
        self._failures = 0
        self._chance = random.Random()  # noqa: S311 - jitter, no secret

    def run_once(self, now_ns: int | None = None) -> Progress:
        """Send what is due, one batch.

        Parameters
        ----------
        now_ns
            Wall clock, ns since the epoch; by default the system's.

        Returns
        -------
        Progress
            What became of it.

        Raises
        ------
        OutputError
            If the spool cannot be used; what was sent meanwhile is sent again, marked.
        """
        now = time.time_ns() if now_ns is None else now_ns
        events = self._spool.take(self.name, self._batch, now)
        if not events:
            return Progress()
        receipt = self._sink.send(events)
        self._spool.settle(self.name, receipt, now)
        self._failures = self._failures + 1 if receipt.again and not receipt.delivered else 0
        failures = (*receipt.again, *receipt.refused)
        wait_s = 0.0 if len(events) == self._batch and not receipt.again else POLL_S
        if self._failures:
            wait_s = backoff_s(self._failures - 1, self._chance)
        return Progress(
            len(events),
            len(receipt.delivered),
            len(receipt.again),
            len(receipt.refused),
            failures[0].reason if failures else "",
            max(wait_s, receipt.wait_s),
        )

    def run(self, stop: Stop, report: Callable[[Progress], None] | None = None) -> None:
        """Send until told to stop; a spool that cannot be used is tried again.

        So is a round that failed in a way that nobody foresaw: what was taken is still in the spool
        and goes out again, marked, and the fault is told by its name.

        Parameters
        ----------
        stop
            Ends the loop, at the latest when the batch that is being sent has its answer.
        report
            Called with what each round did that had something to do.
        """
        spool_failures = 0
        while not stop.is_set():
            try:
                progress = self.run_once()
                spool_failures = 0
            except VeilwatchError as error:  # a full disk: what waits is safe
                spool_failures += 1
                wait_s = backoff_s(spool_failures - 1, self._chance)
                progress = Progress(reason=str(error), wait_s=wait_s)
            except Exception as error:  # one fault of ours must not end a sink for months
                spool_failures += 1
                wait_s = backoff_s(spool_failures - 1, self._chance)
                progress = Progress(
                    reason=f"unexpected {type(error).__name__}: {error}", wait_s=wait_s
                )
            if report is not None and (progress.taken or progress.reason):
                report(progress)
            if progress.wait_s:
                stop.wait(progress.wait_s)

    def reconcile(self, from_ns: int, to_ns: int) -> int:
        """Ask the peer what it has of a span of time and deliver the rest once more.

        Parameters
        ----------
        from_ns, to_ns
            When the events were made, ns since the epoch.

        Returns
        -------
        int
            How many events were missing and will be sent again.

        Raises
        ------
        VeilwatchError
            If this kind of sink cannot tell what arrived.
        OSError
            If the peer does not say.
        """
        if not isinstance(self._sink, Reconciled):
            raise VeilwatchError(
                "this kind of sink cannot tell what arrived",
                where=self._sink.address.shown,
                hint="send a span of time once more with Spool.resend",
            )
        found = 0
        for events in self._spool.delivered(self.name, from_ns, to_ns):
            found += self._spool.resend_ids(self.name, self._sink.missing(events))
        return found
