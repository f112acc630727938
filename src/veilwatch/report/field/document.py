"""A field test as one typed document: what a sensor did within a period. Renderers read it only.

The rules are those of `veilwatch.report.detection.document`: names are made visible and bounded,
markup in them is still there, words stay in the text catalogue. None stands for what nobody
counted, 0 for what was counted and did not happen. Times are ns since the epoch, UTC.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, Literal

from veilwatch.report.part import Part

FORMAT: Final = 1
"""Number of this form; it rises when a field changes its meaning or goes away."""

Series = tuple[float | None, ...]
"""A value for each step of the document's grid, None where no counter was stored."""


class Grid(Part):
    """Steps of time that all series share."""

    start_ns: int
    step_ns: int
    steps: int


class Count(Part):
    """How many have one name."""

    name: str
    count: int


class Balance(Part):
    """A total and what became of it: `sum of parts + rest == total`.

    `rest` is what no counter explains; below 0 where the parts are more than the total.
    """

    total: int
    parts: tuple[Count, ...]
    rest: int


class Estimate(Part):
    """A figure with its 95 % interval, None where there is nothing to estimate it from."""

    value: float | None = None
    low: float | None = None
    high: float | None = None


class Carried(Part):
    """What was read; bytes are sums of IP lengths of flows that ended."""

    packets: int
    flows: int
    bytes: int
    packets_per_s: float | None  # mean over the minutes that have counters
    peak_packets_per_s: float | None  # mean of the busiest minute
    bytes_per_s: float | None
    flows_gtp: int
    flows_encrypted: int
    bytes_encrypted: int
    flows_attributed: int  # with a subscriber
    subscribers_mean: float | None  # distinct in a minute
    subscribers_peak: int | None
    hosts_mean: float | None
    hosts_peak: int | None
    services: tuple[Count, ...]  # by flows, '' those of no recognised service
    more_services: int
    packet_rate: Series
    byte_rate: Series


class Loss(Part):
    """What was lost, and where."""

    kernel_dropped: int
    mirrored: int  # read from interfaces and dropped by the kernel
    from_files: int = 0  # read from files of a folder, which nothing mirrored
    packets: Balance  # read: decoded, or refused for a reason (names of Status)
    records: Balance  # of flows: judged, or dropped at the edge
    early_rows: int
    early_dropped: int
    others: tuple[Count, ...]  # further losses by the counter's name
    drop_share: Series  # of mirrored packets


class SensorTime(Part):
    """How long one sensor ran."""

    name: str
    starts: int
    counted_minutes: int
    up_s: float | None
    up_share: float | None  # of the period
    missing_minutes: int  # in gaps


class Gap(Part):
    """A span without counters: the sensor was off, or could not store them."""

    sensor: str
    place: Literal["before", "within", "after"]
    start_ns: int
    end_ns: int


class Mishap(Part):
    """Something that happened to the sensor, known to one step of the grid."""

    sensor: str
    at_ns: int
    kind: Literal["restart", "interruption", "store_fault"]
    name: str  # of the process that was restarted
    count: int


class Uptime(Part):
    """The sensor itself."""

    period_s: float
    covered_s: float  # minutes with counters of any sensor
    up_share: float | None  # mean over sensors
    sensors: tuple[SensorTime, ...]
    more_sensors: int
    gaps: tuple[Gap, ...]
    more_gaps: int
    mishaps: tuple[Mishap, ...]
    more_mishaps: int
    restarts: int
    interruptions: int


class SeverityLine(Part):
    """Alerts and incidents of one severity."""

    severity: int
    flow_alerts: int
    host_alerts: int
    incidents: int


class HostLine(Part):
    """One host that was told of."""

    name: str
    subscriber: str
    alerts: int
    incidents: int
    severity: int
    score: float
    family: str


class Day(Part):
    """One day, UTC."""

    start_ns: int
    high: int
    medium: int
    low: int
    incidents: int  # opened


class Found(Part):
    """Alerts that were told and incidents with evidence in the period."""

    flow_alerts: int
    host_alerts: int
    incidents: int
    open_incidents: int
    hosts_told: int  # with alerts or incidents
    hosts_alerted: int
    severities: tuple[SeverityLine, ...]
    families: tuple[Count, ...]  # '' not named
    more_families: int
    applications: tuple[Count, ...]
    more_applications: int
    hosts: tuple[HostLine, ...]
    more_hosts: int
    days: tuple[Day, ...]  # with anything, the latest last
    more_days: int
    high: tuple[int, ...]  # alerts on the grid, by severity
    medium: tuple[int, ...]
    low: tuple[int, ...]
    policy: Balance  # alerts before the policy, by fate
    summaries: int
    tests: int

    @property
    def alerts(self) -> int:
        """Alerts of both kinds."""
        return self.flow_alerts + self.host_alerts


class VerdictLine(Part):
    """What analysts said of one kind of alert; the counts add up to `alerts`."""

    kind: Literal["flow", "host", "all"]
    alerts: int
    true_positive: int
    false_positive: int
    benign: int
    unknown: int
    unjudged: int
    precision: Estimate  # malware among alerts with a result, None of too few


class Judged(Part):
    """Verdicts, and what follows from them."""

    lines: tuple[VerdictLine, ...]
    false_known: int
    false_per_day: Estimate
    days: float
    days_counted: bool  # days of running, by counters; else of the period
    more_verdicts: int  # that an estimate still needs
    more_s: float  # time of running that an estimate still needs


class Delay(Part):
    """Seconds from packets to the stored event, over alerts that were told."""

    since: Literal["last", "first"]  # packet of the evidence
    alerts: int
    left_out: int  # stored before their packets came, by the clocks
    median_s: float | None
    p90_s: float | None
    max_s: float | None


class Delays(Part):
    """Detection delay, from stored events and from counters."""

    events: tuple[Delay, ...]
    counted: int
    counted_mean_s: float | None
    counted_max_s: float | None


class Process(Part):
    """One process of a sensor. CPU in seconds of one core a second, memory in bytes."""

    sensor: str
    name: str
    cpu_mean: float | None
    cpu_peak: float | None  # busiest minute
    memory_first: float | None
    memory_last: float | None
    memory_peak: float | None
    trend: Literal["flat", "growing", "shrinking", "short"]
    growth_per_day: float | None
    restarts: int
    memory: Series


class Gauge(Part):
    """A quantity that has a value and not a sum."""

    name: str
    mean: float
    peak: float
    last: float


class Load(Part):
    """Load and headroom."""

    processes: tuple[Process, ...]
    more_processes: int
    cores: int | None
    cpu_mean: float | None  # all processes
    cpu_peak: float | None  # sum of their busiest minutes: no minute had more
    cpu: Series
    gauges: tuple[Gauge, ...]
    more_gauges: int


class Drift(Part):
    """How far scores of an hour moved from those before it (population stability index).

    None where too few flows ended for chance to be told from movement.
    """

    flows: int  # that ended with a score
    high: int  # of them with a score of 0.5 or more
    last: float | None
    most: float | None
    psi: Series


class FieldDocument(Part):
    """All that a field report says."""

    format: int = FORMAT
    title: str
    made_at: datetime
    version: str
    command: str
    zone: Literal["UTC"] = "UTC"
    since_ns: int
    until_ns: int
    grid: Grid
    emulated: bool
    counters: bool  # whether any were stored
    carried: Carried
    loss: Loss
    uptime: Uptime
    found: Found
    judged: Judged
    delays: Delays
    load: Load
    drift: Drift
    scores: tuple[int, ...]  # ended flows by tenth of score
    limits: tuple[str, ...]  # keys of the text catalogue

    def to_json(self) -> dict[str, Any]:
        """Return the document as plain JSON values."""
        return self.model_dump(mode="json")
