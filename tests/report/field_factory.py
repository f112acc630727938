"""A sensor's stored past: counters minute by minute, events, verdicts and incidents."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from tests.detection.alerting.samples import make_alert, make_row
from tests.known import known
from tests.report.factory import HOSTILE_NAMES
from veilwatch.detection.alerting.events import alert_event, identity, summary_event
from veilwatch.report.field.build import build_field, field_grid
from veilwatch.report.field.document import FieldDocument
from veilwatch.schema.counters import CountedMinute, CounterStep
from veilwatch.schema.events import Event, EventKind, Incident, Step
from veilwatch.schema.verdicts import Verdict, VerdictKind
from veilwatch.store import Store

MINUTE = 60 * 10**9
SECOND = 10**9
DAY = 86_400 * SECOND
START_NS = 1_780_272_000 * SECOND  # 2026-06-01 00:00 UTC
MADE_AT = datetime(2026, 7, 1, 12, tzinfo=UTC)

Row = tuple[int, str, str, str, float]
"""Minute in ns, sensor, run, name, value."""


@dataclass
class Past:
    """What a store holds of a period."""

    since_ns: int
    until_ns: int
    counters: list[Row] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    incidents: list[Incident] = field(default_factory=list)

    def fill(self, url: str) -> None:
        """Write all of it into a store."""
        groups: dict[tuple[int, str, str], dict[str, float]] = defaultdict(dict)
        for minute, sensor, run, name, value in self.counters:
            groups[minute, sensor, run][name] = value
        with Store(url) as store:
            store.record(self.events, self.incidents)
            for (minute, sensor, run), values in groups.items():
                store.count(values, minute_ns=minute, sensor=sensor, run=run)
            for verdict in self.verdicts:
                store.judge(verdict)

    def document(self, **options: Any) -> FieldDocument:
        """Build the document without a store, from what it would say."""
        latest = {v.event_id: v for v in sorted(self.verdicts, key=lambda v: v.at_ns)}
        return build_field(
            **{
                "since_ns": self.since_ns,
                "until_ns": self.until_ns,
                "counts": steps(self.counters, self.since_ns, self.until_ns),
                "minutes": [
                    CountedMinute(*key) for key in sorted({row[:3] for row in self.counters})
                ],
                "events": [(event, latest.get(event.event_id)) for event in self.events],
                "incidents": self.incidents,
                "made_at": MADE_AT,
                **options,
            }
        )


def steps(rows: Iterable[Row], since_ns: int, until_ns: int) -> list[CounterStep]:
    """Add up counters by step, name by name, as the database is asked to."""
    width = field_grid(since_ns, until_ns).step_ns
    found: dict[tuple[int, str, str], list[tuple[int, float]]] = defaultdict(list)
    for minute, sensor, _, name, value in rows:
        if since_ns // MINUTE * MINUTE <= minute < until_ns:
            found[minute // width * width, sensor, name].append((minute, value))
    return [
        CounterStep(
            start,
            sensor,
            name,
            sum(value for _, value in values),
            max(value for _, value in values),
            len({minute for minute, _ in values}),
            len(values),
        )
        for (start, sensor, name), values in sorted(found.items())
    ]


def alert_at(n: int, at_ns: int, *, delay_s: float = 2.0, **changes: Any) -> Event:
    """Return the `n`-th event; its evidence ends at `at_ns`."""
    alert = make_alert(0.0, **({"src_port": 1024 + n % 60_000, "flow_id": n} | changes))
    alert = replace(alert, first_ns=at_ns - 40 * SECOND, last_ns=at_ns)
    made_ns = at_ns + round(delay_s * SECOND)
    return alert_event(alert, make_row(flow_id=n), sensor="ward-3", made_ns=made_ns)


def past(
    *,
    days: int = 7,
    alerts: int = 160,
    hostile: bool = False,
    emulated: bool = False,
    leak: bool = False,
    every: int = 5,
    seed: int = 5,
) -> Past:
    """Make a sensor's past: two runs with an hour between, a lossy evening, some alerts.

    Parameters
    ----------
    days, alerts
        How long, and how many.
    hostile
        Whether names act.
    emulated
        Whether the traffic came from the lab.
    leak
        Whether a process grows.
    every
        Counters are made for every so many minutes, so that a month takes no minute to make.
    """
    rng = np.random.default_rng(seed)
    made = Past(START_NS, START_NS + days * DAY)
    names = HOSTILE_NAMES if hostile else ("LockBit-like", "Conti-like", "unknown", "")
    total = days * 1440
    for k in range(0, total, every):
        if total * 0.42 < k < total * 0.42 + 60:
            continue
        run = "a" if k < total * 0.42 else "b"
        made.counters += _minute(rng, made.since_ns + k * MINUTE, run, k / total, leak, hostile)
    hosts = [f"10.45.{k // 6}.{k % 6 + 2}" for k in range(max(alerts // 5, 1))]
    for n in range(alerts):
        at = START_NS + int(rng.random() ** 0.7 * days * DAY)
        host = hosts[int(rng.integers(len(hosts)) * rng.random())]
        made.events.append(
            alert_at(
                n,
                at,
                delay_s=float(rng.lognormal(0.4, 0.7)),
                host=host,
                kind="host" if n % 9 == 0 else "flow",
                severity=int(rng.choice([1, 2, 2, 3, 3, 3])),
                score=float(0.5 + rng.random() / 2.001),
                family=str(names[n % len(names)]),
                application=str(names[n % len(names)] if hostile else f"cdn{n % 17}.example"),
                subscriber=f"sub-{host.replace('.', '')}" if not hostile else names[0],
                emulated=emulated,
            )
        )
    kinds = (VerdictKind.TRUE_POSITIVE,) * 5 + (
        *(VerdictKind.FALSE_POSITIVE, VerdictKind.FALSE_POSITIVE, VerdictKind.BENIGN),
        *(VerdictKind.UNKNOWN,),
    )
    for n, event in enumerate(made.events[: alerts // 2]):
        made.verdicts.append(Verdict(event.event_id, kinds[n % 9], "ana", MADE_AT.microsecond + n))
    for n, host in enumerate(hosts[: max(alerts // 8, 1)] if alerts else []):
        opened = START_NS + int(rng.random() * days * DAY * 0.95)
        made.incidents.append(
            Incident(
                identity("incident", n),
                host,
                "",
                "open" if n % 3 else "closed",
                opened,
                opened + 3600 * SECOND,
                int(rng.choice([1, 2, 3])),
                0.9,
                family=str(names[n % len(names)]),
                alerts=3,
                timeline=(Step(opened, "began", 0.9, "e"),),
                emulated=emulated,
            )
        )
    if alerts:
        strongest = made.events[0]
        made.events.append(
            summary_event(
                strongest.alert,
                known(strongest.flow),
                held_back=40,
                hosts=3,
                since_ns=strongest.alert.first_ns,
                until_ns=strongest.alert.last_ns,
                sensor="ward-3",
                made_ns=strongest.made_ns,
            )
        )
    return made


def _minute(
    rng: np.random.Generator, at_ns: int, run: str, place: float, leak: bool, hostile: bool
) -> list[Row]:
    hour = at_ns // (3600 * SECOND) % 24
    busy = 0.25 + np.exp(-((hour - 14) ** 2) / 22) + 0.05 * rng.random()
    packets = int(busy * 900_000)
    refused = {"NOT_IP": packets // 4000, "LATER_FRAGMENT": packets // 9000}
    flows = packets // 60
    dropped = int(rng.integers(0, 30_000)) if 19 <= hour < 21 and place > 0.6 else 0
    shares = {"tls": 0.44, "quic": 0.27, "dns": 0.2, "http": 0.05, "unknown": 0.03, "other": 0.01}
    if hostile:
        shares |= dict.fromkeys(HOSTILE_NAMES, 0.001)
    values: dict[str, float] = {
        "packets": packets,
        "decoded": packets - sum(refused.values()),
        "kernel_dropped": dropped,
        "interruptions": float(0.5 < place < 0.501),
        **{f"refused/{name}": count for name, count in refused.items()},
        "rows_early": flows // 3,
        "rows_ended": flows + 12,
        "dropped/early": flows // 300 if dropped else 0,
        "dropped/ended": 12,
        "dropped/archive": 400 if dropped else 0,
        "archive_files_dropped": float(rng.random() < 0.002),
        "store_faults": 0,
        "flows": flows,
        "bytes": packets * 610,
        "flows_gtp": flows * 0.93 // 1,
        "flows_encrypted": flows * 0.71 // 1,
        "bytes_encrypted": packets * 520,
        "flows_attributed": flows * 0.9 // 1,
        **{f"service/{name}": flows * share // 1 for name, share in shares.items()},
        "subscribers_seen": int(busy * 420),
        "hosts_seen": int(busy * 480),
        "alerts/flow": int(rng.random() < 0.02) * 3,
        "alerts/host": int(rng.random() < 0.01),
        **{f"score/{k}": flows // 4 ** (k + 1) for k in range(10)},
        "delay_sum_s": 2.2,
        "delay_max_s": float(rng.random() * 4),
        "delay_count": 1,
        "up_s": 59.9,
        "restarts/judge": float(rng.random() < 0.003),
        "cpu_s/ingest-0": busy * 21,
        "cpu_s/judge": busy * 34,
        "cpu_s/deliver": 0.6,
        "gauge/rss/ingest-0": 310e6 + 6e6 * rng.random(),
        "gauge/rss/judge": 520e6 + 4e6 * rng.random() + (place * 400e6 if leak else 0),
        "gauge/rss/deliver": 140e6,
        "gauge/live_flows": busy * 30_000,
        "gauge/hosts": busy * 700,
        "gauge/waiting_rows": dropped / 10,
        "gauge/pending/0": 0,
        "gauge/score_psi": 0.04 + 0.12 * place + 0.01 * rng.random(),
    }
    alerts = values["alerts/flow"] + values["alerts/host"]
    values |= {"fate/told": alerts // 2, "fate/repeat": alerts - alerts // 2}
    return [(at_ns, "ward-3", run, name, float(value)) for name, value in values.items()]


def event_on_request(at_ns: int) -> Event:
    """Return an event that was sent on request."""
    event = alert_at(9_999, at_ns, emulated=True)
    return replace(event, kind=EventKind.TEST, event_id=identity("test", at_ns))
