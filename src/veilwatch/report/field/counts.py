"""What a field report takes from the counters of a sensor."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Final, Literal

from veilwatch.report.field import document as doc
from veilwatch.report.field.figures import memory_trend
from veilwatch.schema import counters as known
from veilwatch.schema.counters import MIN_DRIFT_FLOWS, CountedMinute, CounterStep
from veilwatch.schema.text import visible
from veilwatch.schema.units import MINUTE_NS, SECOND_NS

MAX_VALUE: Final = float(2**63)
"""A sum above it is damage: at 100 Gbit/s a counter of bytes takes twenty years to get there."""

MAX_KEYS: Final = 4096
"""Counters that are read, by sensor and name; a sensor writes about 150 names."""

GAP_MINUTES: Final = 3
"""Minutes in a row without counters that are called a gap. Fewer are missing where the clock was
set, a write came late, or the last minute is not over."""

SHOWN_SERVICES: Final = 14
SHOWN_SENSORS: Final = 8
SHOWN_GAPS: Final = 20
SHOWN_MISHAPS: Final = 20
SHOWN_PROCESSES: Final = 12
SHOWN_GAUGES: Final = 16
SHOWN_REFUSALS: Final = 32
"""How much of each list a page shows: what a person reads."""

OTHER_LOSSES: Final = (
    known.DROPPED.entry("archive"),
    known.ARCHIVE_LOST.key,
    known.ARCHIVE_DROPPED.key,
    known.STORE_FAULTS.key,
)

_MISHAPS: Final[tuple[tuple[str, Literal["restart", "interruption", "store_fault"]], ...]] = (
    (known.RESTARTS.prefix, "restart"),
    (known.INTERRUPTIONS.key, "interruption"),
    (known.STORE_FAULTS.key, "store_fault"),
)


class Counts:
    """Counters by sensor, name and step of the grid.

    Parameters
    ----------
    rows
        From the store, with the steps of `grid`.
    grid
        Steps of time.

    Attributes
    ----------
    damaged
        Rows that no counter can have, or beyond `MAX_KEYS`: left aside.
    """

    def __init__(self, rows: Iterable[CounterStep], grid: doc.Grid) -> None:
        self.grid = grid
        self.damaged = 0
        self._rows: dict[tuple[str, str], dict[int, CounterStep]] = {}
        self._named: dict[str, list[dict[int, CounterStep]]] = {}
        for row in rows:
            step = (row.start_ns - grid.start_ns) // grid.step_ns
            key = (row.sensor, row.name)
            crowded = key not in self._rows and len(self._rows) >= MAX_KEYS
            if crowded or not 0 <= step < grid.steps or not _is_sane(row):
                self.damaged += 1
                continue
            if key not in self._rows:
                self._rows[key] = {}
                self._named.setdefault(row.name, []).append(self._rows[key])
            self._rows[key][step] = row

    def __bool__(self) -> bool:
        return bool(self._rows)

    def keys(self, prefix: str) -> list[tuple[str, str]]:
        """Return (sensor, name) of every counter whose name begins so, in order."""
        return sorted(key for key in self._rows if key[1].startswith(prefix))

    def steps(self, sensor: str, name: str) -> dict[int, CounterStep]:
        """Return one counter by number of the step."""
        return self._rows.get((sensor, name), {})

    def total(self, name: str) -> int:
        """Return the sum over sensors and time, of what is counted in whole numbers."""
        return round(self.amount(name))

    def amount(self, name: str) -> float:
        """Return the sum over sensors and time."""
        return math.fsum(row.total for steps in self._of(name) for row in steps.values())

    def by_name(self, prefix: str) -> Counter[str]:
        """Return sums by what follows `prefix` in the name."""
        sums: Counter[str] = Counter()
        for name in dict.fromkeys(name for _, name in self.keys(prefix)):
            sums[name.removeprefix(prefix)] = self.total(name)
        return sums

    def most(self, name: str) -> float | None:
        """Return the largest value of a minute of one sensor."""
        return max((row.most for steps in self._of(name) for row in steps.values()), default=None)

    def mean(self, name: str) -> float | None:
        """Return the mean value of a minute."""
        rows = [row for steps in self._of(name) for row in steps.values()]
        values = sum(row.values for row in rows)
        return sum(row.total for row in rows) / values if values else None

    def last(self, name: str) -> float | None:
        """Return the mean value of a minute in the latest step, sensors added up."""
        rows = [max(steps.items())[1] for steps in self._of(name)]
        return sum(row.total / row.values for row in rows) if rows else None

    def rate(self, name: str) -> float | None:
        """Return the mean a second over the minutes that have the counter, sensors added up."""
        rates = [
            sum(row.total for row in steps.values()) / (60 * sum(r.minutes for r in steps.values()))
            for steps in self._of(name)
        ]
        return sum(rates) if rates else None

    def rates(self, *names: str) -> doc.Series:
        """Return the same for each step, counters of all `names` added up."""
        found = [steps for name in names for steps in self._of(name)]
        return self._series(found, lambda row: row.total / (60 * row.minutes))

    def gauge(self, sensor: str, name: str) -> doc.Series:
        """Return the mean of a gauge in each step."""
        return self._series([self.steps(sensor, name)], lambda row: row.total / row.values)

    def worst(self, name: str) -> doc.Series:
        """Return the mean of a gauge in each step, of the sensor where it is highest."""
        series = [self.gauge(*key) for key in self.keys(name) if key[1] == name]
        return (
            tuple(
                max((value for value in values if value is not None), default=None)
                for values in zip(*series, strict=True)
            )
            or (None,) * self.grid.steps
        )

    def _of(self, name: str) -> list[dict[int, CounterStep]]:
        return self._named.get(name, [])

    def _series(
        self, found: Sequence[dict[int, CounterStep]], value: Callable[[CounterStep], float]
    ) -> doc.Series:
        out: list[float | None] = [None] * self.grid.steps
        for steps in found:
            for step, row in steps.items():
                out[step] = (out[step] or 0.0) + value(row)
        return tuple(out)


def _is_sane(row: CounterStep) -> bool:
    values = (row.total, row.most)
    return (
        all(math.isfinite(v) and 0 <= v <= MAX_VALUE for v in values)
        and row.minutes > 0
        and row.values > 0
    )


def balance(total: int, parts: Iterable[tuple[str, int]]) -> doc.Balance:
    """Return a total with its parts and what they leave open."""
    counts = tuple(doc.Count(name=visible(name), count=count) for name, count in parts)
    return doc.Balance(total=total, parts=counts, rest=total - sum(c.count for c in counts))


def top(counts: Counter[str], shown: int) -> tuple[tuple[doc.Count, ...], int]:
    """Return the names with the most, and how many are left out."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ordered = [item for item in ordered if item[1] > 0]
    kept = tuple(doc.Count(name=visible(name), count=count) for name, count in ordered[:shown])
    return kept, len(ordered) - len(kept)


def carried(counts: Counts) -> doc.Carried:
    """Return what was read."""
    services, more = top(counts.by_name(known.SERVICE.prefix), SHOWN_SERVICES)
    peak = counts.most(known.PACKETS.key)
    return doc.Carried(
        packets=counts.total(known.PACKETS.key),
        flows=counts.total(known.FLOWS.key),
        bytes=counts.total(known.BYTES.key),
        packets_per_s=counts.rate(known.PACKETS.key),
        peak_packets_per_s=None if peak is None else peak / 60,
        bytes_per_s=counts.rate(known.BYTES.key),
        flows_gtp=counts.total(known.FLOWS_GTP.key),
        flows_encrypted=counts.total(known.FLOWS_ENCRYPTED.key),
        bytes_encrypted=counts.total(known.BYTES_ENCRYPTED.key),
        flows_attributed=counts.total(known.FLOWS_ATTRIBUTED.key),
        subscribers_mean=counts.mean(known.SUBSCRIBERS_SEEN.key),
        subscribers_peak=_whole(counts.most(known.SUBSCRIBERS_SEEN.key)),
        hosts_mean=counts.mean(known.HOSTS_SEEN.key),
        hosts_peak=_whole(counts.most(known.HOSTS_SEEN.key)),
        services=services,
        more_services=more,
        packet_rate=counts.rates(known.PACKETS.key),
        byte_rate=counts.rates(known.BYTES.key),
    )


def loss(counts: Counts) -> doc.Loss:
    """Return what was lost, each stage with its balance."""
    dropped, packets = counts.total(known.KERNEL_DROPPED.key), counts.total(known.PACKETS.key)
    refused, more = top(counts.by_name(known.REFUSED.prefix), SHOWN_REFUSALS)
    from_files = min(counts.total(known.PACKETS_FROM_FILES.key), packets)
    parts = [("OK", counts.total(known.DECODED.key)), *((c.name, c.count) for c in refused)]
    if more:  # names beyond the list still belong into the balance: a reason is never lost
        shown = sum(c.count for c in refused)
        parts.append(("other", sum(counts.by_name(known.REFUSED.prefix).values()) - shown))
    drop_rate = counts.rates(known.KERNEL_DROPPED.key)
    all_rate = counts.rates(known.KERNEL_DROPPED.key, known.PACKETS.key)
    file_rate = counts.rates(known.PACKETS_FROM_FILES.key)
    return doc.Loss(
        kernel_dropped=dropped,
        mirrored=packets - from_files + dropped,
        from_files=from_files,
        packets=balance(packets, parts),
        records=balance(
            counts.total(known.ROWS_ENDED.key),
            [
                ("judged", counts.total(known.FLOWS.key)),
                ("dropped/ended", counts.total(known.DROPPED.entry("ended"))),
            ],
        ),
        early_rows=counts.total(known.ROWS_EARLY.key),
        early_dropped=counts.total(known.DROPPED.entry("early")),
        others=tuple(
            doc.Count(name=name, count=count)
            for name in (
                *OTHER_LOSSES,
                *sorted({name for _, name in counts.keys(known.FAULTS.prefix)}),
            )
            if (count := counts.total(name))
        ),
        drop_share=tuple(
            None if part is None or whole is None else _share(part, whole - (files or 0.0))
            for part, whole, files in zip(drop_rate, all_rate, file_rate, strict=True)
        ),
    )


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0


def uptime(
    counts: Counts, minutes: Iterable[CountedMinute], since_ns: int, until_ns: int
) -> doc.Uptime:
    """Return how long each sensor ran, what happened to it, and when nothing was counted."""
    first, end = since_ns // MINUTE_NS, -(-until_ns // MINUTE_NS)
    period_s = (until_ns - since_ns) / SECOND_NS
    seen: dict[str, list[int]] = {}
    runs: dict[str, set[str]] = {}
    covered = 0
    latest = -1
    for row in sorted(minutes, key=lambda row: row.minute_ns):
        minute = row.minute_ns // MINUTE_NS
        if not first <= minute < end:
            continue
        covered += minute != latest
        latest = minute
        runs.setdefault(row.sensor, set()).add(row.run)
        ours = seen.setdefault(row.sensor, [])
        if not ours or ours[-1] != minute:
            ours.append(minute)
    gaps = [gap for name in sorted(seen) for gap in _gaps(name, seen[name], first, end)]
    sensors = []
    for name in sorted(seen):
        up = counts.steps(name, known.UP.key)
        # A minute in which the sensor started twice can count more than 60 seconds.
        up_s = min(sum(row.total for row in up.values()), period_s) if up else None
        missing = sum(g.end_ns - g.start_ns for g in gaps if g.sensor == visible(name))
        sensors.append(
            doc.SensorTime(
                name=visible(name),
                starts=len(runs[name]),
                counted_minutes=len(seen[name]),
                up_s=up_s,
                up_share=None if up_s is None else up_s / period_s,
                missing_minutes=missing // MINUTE_NS,
            )
        )
    shares = [one.up_share for one in sensors if one.up_share is not None]
    mishaps = _mishaps(counts)
    return doc.Uptime(
        period_s=period_s,
        covered_s=min(covered * 60.0, period_s),
        up_share=sum(shares) / len(shares) if shares else None,
        sensors=tuple(sensors[:SHOWN_SENSORS]),
        more_sensors=max(len(sensors) - SHOWN_SENSORS, 0),
        gaps=tuple(gaps[:SHOWN_GAPS]),
        more_gaps=max(len(gaps) - SHOWN_GAPS, 0),
        mishaps=tuple(mishaps[-SHOWN_MISHAPS:]),
        more_mishaps=max(len(mishaps) - SHOWN_MISHAPS, 0),
        restarts=sum(counts.by_name(known.RESTARTS.prefix).values()),
        interruptions=counts.total(known.INTERRUPTIONS.key),
    )


def _gaps(sensor: str, minutes: Sequence[int], first: int, end: int) -> list[doc.Gap]:
    gaps = []
    marks = [first - 1, *minutes, end]
    for i, (before, after) in enumerate(pairwise(marks)):
        if after - before - 1 >= GAP_MINUTES:
            place: Literal["before", "within", "after"] = (
                "before" if i == 0 else "after" if i == len(marks) - 2 else "within"
            )
            gaps.append(
                doc.Gap(
                    sensor=visible(sensor),
                    place=place,
                    start_ns=(before + 1) * MINUTE_NS,
                    end_ns=after * MINUTE_NS,
                )
            )
    return gaps


def _mishaps(counts: Counts) -> list[doc.Mishap]:
    found = []
    for prefix, kind in _MISHAPS:
        for sensor, name in counts.keys(prefix):
            for row in counts.steps(sensor, name).values():
                if count := round(row.total):
                    found.append(
                        doc.Mishap(
                            sensor=visible(sensor),
                            at_ns=row.start_ns,
                            kind=kind,
                            name=visible(name.removeprefix(prefix)),
                            count=count,
                        )
                    )
    return sorted(found, key=lambda one: (one.at_ns, one.sensor, one.kind, one.name))


def load(counts: Counts) -> doc.Load:
    """Return CPU and memory by process, and how full the queues were."""
    names = {(s, n.removeprefix(known.CPU.prefix)) for s, n in counts.keys(known.CPU.prefix)}
    names |= {
        (s, n.removeprefix(known.RESIDENT.prefix)) for s, n in counts.keys(known.RESIDENT.prefix)
    }
    processes = [_process(counts, sensor, name) for sensor, name in sorted(names)]
    cpu_names = list(dict.fromkeys(name for _, name in counts.keys(known.CPU.prefix)))
    means = [p.cpu_mean for p in processes if p.cpu_mean is not None]
    peaks = [p.cpu_peak for p in processes if p.cpu_peak is not None]
    apart = (known.RESIDENT.prefix, known.SCORE_PSI.key, known.CORES.key)
    gauges = [
        _gauge(counts, name)
        for name in sorted({name for _, name in counts.keys(known.GAUGE_PREFIX)})
        if not name.startswith(apart)
    ]
    return doc.Load(
        processes=tuple(processes[:SHOWN_PROCESSES]),
        more_processes=max(len(processes) - SHOWN_PROCESSES, 0),
        cores=_whole(counts.most(known.CORES.key)),
        cpu_mean=sum(means) if means else None,
        cpu_peak=sum(peaks) if peaks else None,
        cpu=counts.rates(*cpu_names),
        gauges=tuple(gauges[:SHOWN_GAUGES]),
        more_gauges=max(len(gauges) - SHOWN_GAUGES, 0),
    )


def _process(counts: Counts, sensor: str, name: str) -> doc.Process:
    cpu = counts.steps(sensor, known.CPU.entry(name)).values()
    memory = counts.gauge(sensor, known.RESIDENT.entry(name))
    peak = max(
        (r.most for r in counts.steps(sensor, known.RESIDENT.entry(name)).values()), default=None
    )
    step_s = counts.grid.step_ns / SECOND_NS
    points = [(i * step_s, value) for i, value in enumerate(memory) if value is not None]
    trend, growth = memory_trend(points)
    return doc.Process(
        sensor=visible(sensor),
        name=visible(name),
        cpu_mean=sum(r.total for r in cpu) / (60 * sum(r.minutes for r in cpu)) if cpu else None,
        cpu_peak=max(r.most for r in cpu) / 60 if cpu else None,
        memory_first=points[0][1] if points else None,
        memory_last=points[-1][1] if points else None,
        memory_peak=peak,
        trend=trend,
        growth_per_day=growth,
        restarts=round(
            sum(r.total for r in counts.steps(sensor, known.RESTARTS.entry(name)).values())
        ),
        memory=memory,
    )


def _gauge(counts: Counts, name: str) -> doc.Gauge:
    return doc.Gauge(
        name=visible(name.removeprefix(known.GAUGE_PREFIX)),
        mean=counts.mean(name) or 0.0,
        peak=counts.most(name) or 0.0,
        last=counts.last(name) or 0.0,
    )


def drift(counts: Counts) -> doc.Drift:
    """Return how far the scores moved, as far as enough flows ended to tell it."""
    tenths = scores(counts)
    # Two hours with the fewest flows are the least that an index is made of. A sensor that had
    # nothing to compare with may have stored 0.
    most = counts.most(known.SCORE_PSI.key) or 0.0
    told = sum(tenths) >= 2 * MIN_DRIFT_FLOWS and most > 0
    psi = counts.worst(known.SCORE_PSI.key) if told else (None,) * counts.grid.steps
    values = [value for value in psi if value is not None]
    return doc.Drift(
        flows=sum(tenths),
        high=sum(tenths[len(tenths) // 2 :]),
        last=values[-1] if values else None,
        most=most if values else None,
        psi=psi,
    )


def scores(counts: Counts) -> tuple[int, ...]:
    """Return ended flows by tenth of score."""
    return tuple(counts.total(known.SCORE.entry(k)) for k in range(10))


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)
