"""What a field report takes from events, verdicts and incidents."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Literal

from veilwatch.detection.alerting.gate import Disposition
from veilwatch.report.field import document as doc
from veilwatch.report.field.counts import Counts, balance, top
from veilwatch.report.field.figures import (
    MIN_DAYS,
    MIN_TENTHS,
    MIN_VERDICTS,
    false_per_day,
    quantile,
    wilson,
)
from veilwatch.schema import counters as known
from veilwatch.schema.events import Event, EventKind, Incident
from veilwatch.schema.text import visible
from veilwatch.schema.units import DAY_NS, DAY_S, SECOND_NS
from veilwatch.schema.verdicts import Verdict, VerdictKind

SHOWN_HOSTS: Final = 25
SHOWN_NAMES: Final = 12
SHOWN_DAYS: Final = 93
"""How much of each list a page shows: what a person reads; days of three months."""

MAX_KEPT: Final = 100_000
"""Names that are counted one by one, of hosts, families and applications each: traffic makes
them up, and a hundred thousand take tens of megabytes. What comes later is not listed."""

FALSE: Final = (VerdictKind.FALSE_POSITIVE, VerdictKind.BENIGN)
"""Verdicts of alerts that were no malware: both cost an analyst's time."""

_UNJUDGED: Final = "unjudged"


@dataclass(slots=True)
class _Host:
    alerts: int = 0
    incidents: int = 0
    severity: int = 3
    score: float = 0.0
    subscriber: str = ""
    family: str = ""

    def hear(self, severity: int, score: float, subscriber: str, family: str) -> None:
        """Take in one alert or incident."""
        if (-severity, score) >= (-self.severity, self.score):
            self.severity, self.score = severity, score
            self.family = family or self.family
        self.subscriber = self.subscriber or subscriber
        self.family = self.family or family


@dataclass(slots=True)
class Gathered:
    """Events and incidents of a period, added up as they come."""

    grid: doc.Grid
    since_ns: int
    until_ns: int
    emulated: bool = False
    kinds: Counter[str] = field(default_factory=Counter)
    severities: Counter[tuple[str, int]] = field(default_factory=Counter)
    verdicts: Counter[tuple[str, str]] = field(default_factory=Counter)
    families: Counter[str] = field(default_factory=Counter)
    applications: Counter[str] = field(default_factory=Counter)
    days: Counter[tuple[int, int]] = field(default_factory=Counter)
    steps: Counter[tuple[int, int]] = field(default_factory=Counter)
    hosts: dict[str, _Host] = field(default_factory=dict)
    from_last: array[float] = field(default_factory=lambda: array("d"))
    from_first: array[float] = field(default_factory=lambda: array("d"))
    incidents: int = 0
    open_incidents: int = 0

    def hear(self, event: Event, verdict: Verdict | None) -> None:
        """Add one event with the verdict that counts."""
        alert = event.alert
        if event.kind is not EventKind.TEST:  # a test says nothing of the traffic
            self.emulated |= alert.emulated or (
                event.incident is not None and event.incident.emulated
            )
        self.kinds[event.kind] += 1
        if event.kind not in (EventKind.FLOW, EventKind.HOST):
            return
        grade = _grade(alert.severity)
        self.severities[event.kind, grade] += 1
        self.verdicts[event.kind, str(verdict.kind) if verdict else _UNJUDGED] += 1
        _add(self.families, alert.family)
        if alert.application:
            _add(self.applications, alert.application)
        self.days[alert.last_ns // DAY_NS, grade] += 1
        step = (alert.last_ns - self.grid.start_ns) // self.grid.step_ns
        self.steps[min(max(step, 0), self.grid.steps - 1), grade] += 1
        self.from_last.append((event.made_ns - alert.last_ns) / SECOND_NS)
        self.from_first.append((event.made_ns - alert.first_ns) / SECOND_NS)
        host = self._host(alert.host)
        if host is not None:
            host.alerts += 1
            host.hear(grade, alert.score, alert.subscriber, alert.family)

    def hear_incident(self, incident: Incident) -> None:
        """Add one incident that has evidence in the period."""
        if incident.last_ns < self.since_ns or incident.opened_ns >= self.until_ns:
            return
        grade = _grade(incident.severity)
        self.emulated |= incident.emulated
        self.incidents += 1
        self.open_incidents += incident.status == "open"
        self.severities["incident", grade] += 1
        if incident.opened_ns >= self.since_ns:
            self.days[incident.opened_ns // DAY_NS, 0] += 1
        host = self._host(incident.host)
        if host is not None:
            host.incidents += 1
            host.hear(grade, incident.score, incident.subscriber, incident.family)

    def _host(self, name: str) -> _Host | None:
        if name not in self.hosts and len(self.hosts) >= MAX_KEPT:
            return None
        return self.hosts.setdefault(name, _Host())


def gather(
    grid: doc.Grid,
    since_ns: int,
    until_ns: int,
    events: Iterable[tuple[Event, Verdict | None]],
    incidents: Iterable[Incident],
) -> Gathered:
    """Add up the events and incidents of a period."""
    gathered = Gathered(grid, since_ns, until_ns)
    for event, verdict in events:
        gathered.hear(event, verdict)
    for incident in incidents:
        gathered.hear_incident(incident)
    return gathered


def found(gathered: Gathered, counts: Counts) -> doc.Found:
    """Return alerts and incidents, and what became of alerts before they were told."""
    families, more_families = top(gathered.families, SHOWN_NAMES)
    applications, more_applications = top(gathered.applications, SHOWN_NAMES)
    ordered = sorted(
        gathered.hosts.items(),
        key=lambda item: (item[1].severity, -item[1].alerts, -item[1].score, item[0]),
    )
    days = sorted({day for day, _ in gathered.days})
    kinds, severities = gathered.kinds, gathered.severities
    high, medium, low = (
        tuple(gathered.steps[step, grade] for step in range(gathered.grid.steps))
        for grade in (1, 2, 3)
    )
    return doc.Found(
        flow_alerts=kinds[EventKind.FLOW],
        host_alerts=kinds[EventKind.HOST],
        incidents=gathered.incidents,
        open_incidents=gathered.open_incidents,
        hosts_told=len(gathered.hosts),
        hosts_alerted=sum(host.alerts > 0 for host in gathered.hosts.values()),
        severities=tuple(
            doc.SeverityLine(
                severity=grade,
                flow_alerts=severities[EventKind.FLOW, grade],
                host_alerts=severities[EventKind.HOST, grade],
                incidents=severities["incident", grade],
            )
            for grade in (1, 2, 3)
        ),
        families=families,
        more_families=more_families,
        applications=applications,
        more_applications=more_applications,
        hosts=tuple(
            doc.HostLine(
                name=visible(name),
                subscriber=visible(host.subscriber),
                alerts=host.alerts,
                incidents=host.incidents,
                severity=host.severity,
                score=host.score,
                family=visible(host.family),
            )
            for name, host in ordered[:SHOWN_HOSTS]
        ),
        more_hosts=max(len(ordered) - SHOWN_HOSTS, 0),
        days=tuple(
            doc.Day(
                start_ns=day * DAY_NS,
                high=gathered.days[day, 1],
                medium=gathered.days[day, 2],
                low=gathered.days[day, 3],
                incidents=gathered.days[day, 0],
            )
            for day in days[-SHOWN_DAYS:]
        ),
        more_days=max(len(days) - SHOWN_DAYS, 0),
        high=high,
        medium=medium,
        low=low,
        policy=balance(
            sum(counts.total(known.ALERTS.entry(kind)) for kind in ("flow", "host")),
            [(one.value, counts.total(known.DISPOSITIONS.entry(one))) for one in Disposition],
        ),
        summaries=kinds[EventKind.SUMMARY],
        tests=kinds[EventKind.TEST],
    )


def judged(gathered: Gathered, covered_s: float, period_s: float) -> doc.Judged:
    """Return verdicts, precision and the estimate of false alerts a day.

    Parameters
    ----------
    gathered
        Events with their verdicts.
    covered_s
        Time that has counters, 0 where nothing was counted.
    period_s
        Length of the period.
    """
    days = (covered_s or period_s) / DAY_S
    flow, host = (_tally(gathered, (kind,)) for kind in (EventKind.FLOW, EventKind.HOST))
    everything = _tally(gathered, (EventKind.FLOW, EventKind.HOST))
    false = everything.false_positive + everything.benign
    decided = false + everything.true_positive
    wanted = min(MIN_VERDICTS, everything.alerts)
    return doc.Judged(
        lines=(flow, host, everything),
        false_known=false,
        false_per_day=false_per_day(false, decided, everything.alerts, days),
        days=days,
        days_counted=covered_s > 0,
        more_verdicts=max(wanted - decided, 0),
        more_s=max(MIN_DAYS - days, 0.0) * DAY_S,
    )


def _tally(gathered: Gathered, kinds: tuple[EventKind, ...]) -> doc.VerdictLine:
    by = Counter[str]()
    for (kind, said), count in gathered.verdicts.items():
        if kind in kinds:
            by[said] += count
    true = by[VerdictKind.TRUE_POSITIVE]
    decided = true + sum(by[kind] for kind in FALSE)
    name: Literal["flow", "host", "all"] = (
        "all" if len(kinds) > 1 else "flow" if kinds[0] is EventKind.FLOW else "host"
    )
    return doc.VerdictLine(
        kind=name,
        alerts=sum(by.values()),
        true_positive=true,
        false_positive=by[VerdictKind.FALSE_POSITIVE],
        benign=by[VerdictKind.BENIGN],
        unknown=by[VerdictKind.UNKNOWN],
        unjudged=by[_UNJUDGED],
        precision=wilson(true, decided) if decided >= MIN_VERDICTS else doc.Estimate(),
    )


def delays(gathered: Gathered, counts: Counts) -> doc.Delays:
    """Return detection delay by events and by counters."""
    counted = counts.total(known.DELAY_COUNT.key)
    total_s = counts.amount(known.DELAY_SUM.key)
    return doc.Delays(
        events=(_delay("last", gathered.from_last), _delay("first", gathered.from_first)),
        counted=counted,
        counted_mean_s=total_s / counted if counted else None,
        counted_max_s=counts.most(known.DELAY_MAX.key) if counted else None,
    )


def _delay(since: Literal["last", "first"], seconds: array[float]) -> doc.Delay:
    ordered = sorted(value for value in seconds if value >= 0)
    return doc.Delay(
        since=since,
        alerts=len(ordered),
        left_out=len(seconds) - len(ordered),
        median_s=quantile(ordered, 0.5),
        p90_s=quantile(ordered, 0.9) if len(ordered) >= MIN_TENTHS else None,
        max_s=ordered[-1] if ordered else None,
    )


def _grade(severity: int) -> int:
    """Return the severity; one that this version does not know is the lowest."""
    return severity if severity in (1, 2, 3) else 3


def _add(counts: Counter[str], name: str) -> None:
    if name in counts or len(counts) < MAX_KEPT:
        counts[name] += 1
