"""The scoring process: tables in, scores handed over to whoever makes alerts of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from veilwatch.detection.scoring.live import LiveScorer
from veilwatch.errors import VeilwatchError
from veilwatch.learning.models import Model
from veilwatch.schema import counters as known
from veilwatch.schema.scores import ScoreFrame
from veilwatch.sensor.clock import TrafficClock
from veilwatch.sensor.link import Inbox, Kind, Parcel
from veilwatch.sensor.supervise import Heart

DRAIN_S: Final = 5.0
"""How long what is on its way is still scored after the process was told to end."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A table with its scores.

    Attributes
    ----------
    scores
        Flows with their scores, hosts whose evidence changed, reasons.
    parcel
        What came: whether the flows are alive still, when the table was made, whether the archive
        may have it.
    """

    scores: ScoreFrame
    parcel: Parcel

    @property
    def early(self) -> bool:
        """Whether these are reports of live flows: no store takes them for records."""
        return self.parcel.kind is Kind.EARLY


HandOver = Callable[[Scored], None]
"""Takes scores. Once it has returned they are its own: it has stored or sent them, or counts them
as lost. Where it raises, the process ends, and the table comes again to the next one."""


def serve(
    heart: Heart,
    inbox: Inbox,
    scorer: LiveScorer,
    hand_over: HandOver,
    *,
    load: Callable[[], Model] | None = None,
    note: Callable[[str], None] = lambda message: None,
    idle: Callable[[], None] = lambda: None,
    status: Callable[[], dict[str, Any]] = dict,
) -> None:
    """Score what comes until told to end; a message is acknowledged once it was handed over.

    Parameters
    ----------
    load
        Reads the model anew when the process is told to reload; a model that cannot be read is
        noted, and the old one goes on.
    note
        Told what people should know.
    idle
        Called between messages, at least four times a second.
    status
        What else the parent is to be told.
    """
    rows = dict.fromkeys(
        (known.EARLY_ROWS, known.ENDED_ROWS, known.ARCHIVE_ROWS, known.ALERTED_ROWS), 0
    )
    delay_s = 0.0
    traffic = TrafficClock()

    def said() -> dict[str, Any]:
        link = {
            known.TABLE_DELAY: round(delay_s, 3),
            known.SENDERS: inbox.senders,
            known.REPEATED: inbox.repeated,
        }
        return status() | scorer.counters | known.to_status({**rows, **link})

    deadline: float | None = None
    for message in inbox.messages():
        heart.beat(said)
        with heart.busy():
            idle()
        if heart.take_reload() and load is not None:
            try:
                scorer.replace(load())
            except VeilwatchError as error:
                note(f"the model was not replaced: {error}")
        if heart.stopping and deadline is None:
            deadline = time.monotonic() + DRAIN_S
        if message is not None:
            parcel = message.parcel
            early = parcel.kind is Kind.EARLY
            now_ns = traffic.advance(parcel.now_ns, parcel.table.frame["last_ns"])
            with heart.busy():  # thousands of flows may take longer than who hangs may live
                scores = scorer.add(parcel.table, early=early, now_ns=now_ns)
                delay_s = max(0.0, (time.time_ns() - parcel.made_ns) / 1e9)
                hand_over(Scored(scores, parcel))
            message.done()
            rows[known.EARLY_ROWS if early else known.ENDED_ROWS] += len(parcel.table)
            rows[known.ARCHIVE_ROWS] += len(parcel.table) * parcel.archive
            rows[known.ALERTED_ROWS] += int(scores.flows["alert"].sum())
        if deadline is not None and (message is None or time.monotonic() > deadline):
            break
    heart.say(said())
