"""From what a sensor stored within a period to its field report."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from veilwatch import __version__
from veilwatch.errors import VeilwatchError
from veilwatch.report.charts import time_grid
from veilwatch.report.field import counts as field_counts
from veilwatch.report.field import document as doc
from veilwatch.report.field import events as field_events
from veilwatch.report.field.figures import MIN_DAYS
from veilwatch.schema.counters import CountedMinute, CounterStep
from veilwatch.schema.events import Event, Incident
from veilwatch.schema.text import MAX_SHOWN_SENTENCE, visible
from veilwatch.schema.units import DAY_NS, MINUTE_NS
from veilwatch.schema.verdicts import Verdict

MAX_DAYS: Final = 1100
"""Longest period: three years. Each of its minutes is looked at for gaps."""

TIME_STEPS: Final = 120
"""About as many steps of time as a drawing has room for."""


def field_grid(since_ns: int, until_ns: int) -> doc.Grid:
    """Return the steps of time of a period, whole minutes each.

    Raises
    ------
    VeilwatchError
        If the period is empty or longer than `MAX_DAYS`.
    """
    if until_ns <= since_ns:
        raise VeilwatchError("the period is empty", hint="--until must be later than --since")
    if until_ns - since_ns > MAX_DAYS * DAY_NS:
        raise VeilwatchError(f"a report covers at most {MAX_DAYS:,} days", hint="give --since")
    _, step, _ = time_grid(since_ns, until_ns - 1, TIME_STEPS)
    step = max(step, MINUTE_NS)
    start = since_ns // step * step
    return doc.Grid(start_ns=start, step_ns=step, steps=int((until_ns - 1 - start) // step) + 1)


def build_field(
    *,
    since_ns: int,
    until_ns: int,
    counts: Iterable[CounterStep],
    minutes: Iterable[CountedMinute],
    events: Iterable[tuple[Event, Verdict | None]],
    incidents: Iterable[Incident],
    title: str = "",
    command: str = "",
    made_at: datetime | None = None,
) -> doc.FieldDocument:
    """Gather what a sensor did within a period.

    Parameters
    ----------
    since_ns, until_ns
        The period, the end outside.
    counts
        Counters by the steps of `field_grid(since_ns, until_ns)`.
    minutes
        Minutes that have any counter.
    events
        Events whose evidence lies in the period, each with the verdict that counts.
    incidents
        Those with evidence in the period; others are left aside.
    title, command
        Title of the report, empty for that of the text catalogue; the command line that made it.
    made_at
        Time of making, now unless given.

    Returns
    -------
    FieldDocument
        Bounded in size whatever the period held.
    """
    grid = field_grid(since_ns, until_ns)
    kept = field_counts.Counts(counts, grid)
    gathered = field_events.gather(grid, since_ns, until_ns, events, incidents)
    uptime = field_counts.uptime(kept, minutes, since_ns, until_ns)
    judged = field_events.judged(gathered, uptime.covered_s, uptime.period_s)
    delays = field_events.delays(gathered, kept)
    loss = field_counts.loss(kept)
    return doc.FieldDocument(
        title=visible(title),
        made_at=made_at or datetime.now(UTC),
        version=__version__,
        command=visible(command, MAX_SHOWN_SENTENCE),
        since_ns=since_ns,
        until_ns=until_ns,
        grid=grid,
        emulated=gathered.emulated,
        counters=bool(kept),
        carried=field_counts.carried(kept),
        loss=loss,
        uptime=uptime,
        found=field_events.found(gathered, kept),
        judged=judged,
        delays=delays,
        load=field_counts.load(kept),
        drift=field_counts.drift(kept),
        scores=field_counts.scores(kept),
        limits=tuple(_limits(gathered.emulated, kept, loss, uptime, judged, delays)),
    )


def _limits(
    emulated: bool,
    counts: field_counts.Counts,
    loss: doc.Loss,
    uptime: doc.Uptime,
    judged: doc.Judged,
    delays: doc.Delays,
) -> Iterable[str]:
    everything = judged.lines[-1]
    decided = everything.true_positive + judged.false_known
    if emulated:
        yield "emulated"
    yield "missed"
    if not counts:
        yield "no_counters"
    elif uptime.gaps:
        yield "gaps"
    if not everything.alerts:
        pass  # nothing to judge
    elif decided == 0:
        yield "no_verdicts"
    else:
        if judged.more_verdicts:
            yield "few_verdicts"
        if decided < everything.alerts:
            yield "chosen"
    if judged.days < MIN_DAYS:
        yield "short"
    if loss.from_files:
        yield "files"
    if loss.mirrored or not loss.from_files:
        yield "mirror"
    yield "distinct"
    if everything.alerts:
        yield "delay"
    if any(delay.left_out for delay in delays.events):
        yield "clock"
    yield "retention"
    if counts.damaged:
        yield "damaged"
