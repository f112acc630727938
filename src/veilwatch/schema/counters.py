"""Counters of a sensor: which there are, and how they are read back from the store.

A process of the sensor counts, its parent collects what all of them count in one status, and from
there it goes to three readers: metrics, the store by minute, and the field report. `REGISTRY` is
the one list of what is counted; who writes a counter and who reads it use the same constant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any, Final

MIN_DRIFT_FLOWS: Final = 1000
"""Fewest flows on either side of an index of drift over tenths of the score. Chance alone gives an
index of (10 - 1) (1/n + 1/m) on average (Yurdakul, Western Michigan University, 2018): 0.018 from
here on, well below the 0.1 that counts as movement."""


GAUGE_PREFIX: Final = "gauge/"
"""What the names of gauges begin with in the store."""


class Kind(StrEnum):
    """How a value changes."""

    COUNTER = "counter"  # grows from 0 with each start of its process
    GAUGE = "gauge"  # holds at the time it is read
    MINUTE = "minute"  # of the last whole minute


class Process(StrEnum):
    """What counts."""

    PARENT = "parent"
    INGEST = "ingest"
    JUDGE = "judge"
    DELIVER = "deliver"
    SINK = "sink"  # one entry of `sinks` in the status of the delivering process
    EACH = "each"  # the parent, for each of its processes


@dataclass(frozen=True, slots=True)
class CounterSpec:
    """One counter.

    Attributes
    ----------
    process, name
        What counts, and the key in its status.
    unit, help
        What one of it is, and what is counted, in words.
    kind
        How it changes.
    label
        What the entries of a table of counts are, '' for a single value.
    metric
        Name of the metric, without `veilwatch_` and what Prometheus adds; '' none.
    stored
        Whether the store has it by minute.
    stored_as
        Its name in the store where that is not `name`: names on disk do not change.
    """

    process: Process
    name: str
    unit: str
    help: str
    kind: Kind = Kind.COUNTER
    label: str = ""
    metric: str = ""
    stored: bool = False
    stored_as: str = ""

    @property
    def key(self) -> str:
        """Name in the store, '' where it is not stored; of a table what its names begin with."""
        if not self.stored:
            return ""
        prefix = GAUGE_PREFIX if self.kind is Kind.GAUGE else ""
        return f"{prefix}{self.stored_as or self.name}"

    @property
    def prefix(self) -> str:
        """What the names of a table's entries begin with in the store."""
        return f"{self.key}/"

    def entry(self, name: object) -> str:
        """Return the name of one entry of a table in the store."""
        found = f"{self.prefix}{name}"
        return _ENTRIES_STORED_AS.get(found, found)


_ENTRIES_STORED_AS: Final = {"faults/store": "store_faults"}
"""Entries of tables that were stored under a name of their own from the first release on."""


_ingest = partial(CounterSpec, Process.INGEST)
_judge = partial(CounterSpec, Process.JUDGE)
_deliver = partial(CounterSpec, Process.DELIVER)
_sink = partial(CounterSpec, Process.SINK)
_parent = partial(CounterSpec, Process.PARENT)
_each = partial(CounterSpec, Process.EACH)

# The capturing processes.
PACKETS: Final = _ingest("packets", "packets", "Packets read.", metric="packets", stored=True)
PACKETS_FROM_FILES: Final = _ingest(
    "packets_from_files", "packets", "Packets read from files.", stored=True
)
DECODED: Final = _ingest(
    "decoded", "packets", "Packets decoded.", metric="packets_decoded", stored=True
)
REFUSED: Final = _ingest(
    "refused", "packets", "Packets refused.", label="reason", metric="packets_refused", stored=True
)
KERNEL_DROPPED: Final = _ingest(
    "kernel_dropped",
    "packets",
    "Packets that the kernel dropped.",
    metric="packets_kernel_dropped",
    stored=True,
)
INTERRUPTIONS: Final = _ingest(
    "interruptions",
    "times",
    "Times the interface went away.",
    metric="interface_interruptions",
    stored=True,
)
ROWS_EARLY: Final = _ingest(
    "rows_early", "rows", "Reports of live flows.", metric="rows_early", stored=True
)
ROWS_ENDED: Final = _ingest(
    "rows_ended", "rows", "Records of flows that ended.", metric="rows_ended", stored=True
)
DROPPED: Final = _ingest(
    "dropped",
    "rows",
    "Rows dropped before they were scored.",
    label="kind",
    metric="rows_dropped",
    stored=True,
)
LIVE_FLOWS: Final = _ingest(
    "live_flows", "flows", "Flows alive.", Kind.GAUGE, metric="live_flows", stored=True
)
WAITING_ROWS: Final = _ingest(
    "waiting_rows",
    "rows",
    "Rows that wait for the scoring process.",
    Kind.GAUGE,
    metric="waiting_rows",
    stored=True,
)
SENT_ROWS: Final = _ingest("sent_rows", "rows", "Rows that the scoring process has taken.")
CONNECTIONS: Final = _ingest("connections", "times", "Times the scoring process was connected to.")
EVICTED_FLOWS: Final = _ingest("evicted_flows", "flows", "Flows ended early for want of room.")
COPIES_OF_PACKETS: Final = _ingest(
    "copies_of_packets", "packets", "Packets seen a second time and counted once."
)
LATER_FRAGMENTS: Final = _ingest(
    "later_fragments", "packets", "Later IP fragments that were counted to their flow."
)
AMBIGUOUS_PACKETS: Final = _ingest(
    "ambiguous_packets",
    "packets",
    "Packets that could as well have belonged to another flow of their 5-tuple.",
)
HANDSHAKES_CUT: Final = _ingest(
    "handshakes_cut", "flows", "Handshakes of which not all could be kept."
)

# The scoring process.
FLOWS: Final = _judge(
    "flows", "flows", "Flows scored at their end.", metric="flows_scored", stored=True
)
BYTES: Final = _judge(
    "bytes", "bytes", "IP bytes of flows that ended.", metric="flow_bytes", stored=True
)
FLOWS_GTP: Final = _judge(
    "flows_gtp", "flows", "Flows in GTP-U tunnels.", metric="flows_in_gtp", stored=True
)
FLOWS_ENCRYPTED: Final = _judge(
    "flows_encrypted",
    "flows",
    "Flows with a handshake of TLS, DTLS or QUIC.",
    metric="flows_encrypted",
    stored=True,
)
BYTES_ENCRYPTED: Final = _judge(
    "bytes_encrypted",
    "bytes",
    "IP bytes of flows with a handshake of TLS, DTLS or QUIC.",
    stored=True,
)
FLOWS_ATTRIBUTED: Final = _judge(
    "flows_attributed", "flows", "Flows whose subscriber is known.", stored=True
)
SERVICE: Final = _judge(
    "service", "flows", "Flows by what they were recognised as.", label="service", stored=True
)
SCORE: Final = _judge(
    "score",
    "flows",
    "Flows by tenth of their score.",
    label="tenth",
    metric="flow_scores",
    stored=True,
)
ALERTS: Final = _judge(
    "alerts",
    "alerts",
    "Alerts before the policy.",
    label="kind",
    metric="alerts_raised",
    stored=True,
)
DISPOSITIONS: Final = _judge(
    "fate",
    "alerts",
    "Alerts by what the policy made of them.",
    label="fate",
    metric="alerts_ruled",
    stored=True,
)
DELAY_SUM: Final = _judge(
    "delay_sum_s", "seconds", "Time from last packets to their alerts, added up.", stored=True
)
DELAY_COUNT: Final = _judge(
    "delay_count", "alerts", "Alerts whose delay is in `delay_sum_s`.", stored=True
)
DELAY_MAX: Final = _judge(
    "delay_max_s", "seconds", "Longest delay of an alert.", Kind.MINUTE, stored=True
)
HOSTS_SEEN: Final = _judge(
    "hosts_seen", "hosts", "Hosts whose flows ended.", Kind.MINUTE, stored=True
)
SUBSCRIBERS_SEEN: Final = _judge(
    "subscribers_seen", "subscribers", "Subscribers whose flows ended.", Kind.MINUTE, stored=True
)
ARCHIVE_LOST: Final = _judge(
    "archive_lost",
    "flows",
    "Flows for which the archive had no room.",
    metric="archive_flows_lost",
    stored=True,
)
ARCHIVE_DROPPED: Final = _judge(
    "archive_dropped",
    "files",
    "Files of the archive removed as the disk was full.",
    stored=True,
    stored_as="archive_files_dropped",
)
FAULTS: Final = _judge(
    "faults",
    "times",
    "Times something could not be written.",
    label="of",
    metric="faults",
    stored=True,
)
HOSTS: Final = _judge(
    "hosts", "hosts", "Hosts whose evidence is kept.", Kind.GAUGE, metric="hosts", stored=True
)
INCIDENTS: Final = _judge(
    "incidents", "incidents", "Incidents open.", Kind.GAUGE, metric="open_incidents"
)
BACKLOG: Final = _judge(
    "backlog",
    "events",
    "Events that the disk had no room for yet.",
    Kind.GAUGE,
    metric="backlog_events",
)
MEMORY: Final = _judge(
    "memory",
    "level",
    "0 enough memory, 1 no archive, 2 no early reports.",
    Kind.GAUGE,
    metric="memory_level",
)
EMULATED_MODEL: Final = _judge(
    "emulated_model",
    "0 or 1",
    "1 where the model learned emulated traffic.",
    Kind.GAUGE,
    metric="model_emulated",
)
SCORE_PSI: Final = _judge(
    "score_psi",
    "index",
    "Drift of the scores of this hour.",
    Kind.GAUGE,
    metric="score_stability_index",
    stored=True,
)
TABLE_DELAY: Final = _judge(
    "delay_s",
    "seconds",
    "Age of the last table when it was scored.",
    Kind.GAUGE,
    metric="table_delay_seconds",
)
HOSTS_WITHOUT_FLOW: Final = _judge(
    "hosts_without_flow", "alerts", "Alerts of hosts that could point at no flow."
)
EARLY_ROWS: Final = _judge("early_rows", "rows", "Reports of live flows taken.")
ENDED_ROWS: Final = _judge("ended_rows", "rows", "Records of flows taken.")
ARCHIVE_ROWS: Final = _judge("archive_rows", "rows", "Rows taken that the archive may have.")
ALERTED_ROWS: Final = _judge(
    "alerted_rows", "rows", "Rows whose score is at the threshold or above."
)
SENDERS: Final = _judge(
    "senders", "processes", "Capturing processes that are connected.", Kind.GAUGE
)
REPEATED: Final = _judge("repeated", "tables", "Tables that came again and had been handled.")
HOST_FLOWS: Final = _judge("host_flows", "flows", "Flows that are evidence of hosts.", Kind.GAUGE)
EVICTED_HOSTS: Final = _judge(
    "evicted_hosts", "hosts", "Hosts whose evidence was given up for want of room."
)
SUMMED_FLOWS: Final = _judge(
    "summed_flows", "flows", "Flows whose evidence was added up for want of room."
)
WINDOW_FLOWS: Final = _judge(
    "window_flows", "flows", "Flows that host windows are made of.", Kind.GAUGE
)
DROPPED_WINDOW_FLOWS: Final = _judge(
    "dropped_window_flows", "flows", "Flows left out of host windows for want of room."
)
REPLACED_MODELS: Final = _judge("replaced_models", "times", "Times a model was read anew.")

# The delivering process, and each of its sinks.
PENDING_EVENTS: Final = _deliver(
    "pending_events", "events", "Events that wait, sinks added up.", Kind.GAUGE, stored=True
)
STORE_FAULTS: Final = _deliver(
    "store_faults", "times", "Times the store or the spool could not be used.", stored=True
)
SINK_PENDING: Final = _sink(
    "pending",
    "events",
    "Events that wait for the sink.",
    Kind.GAUGE,
    label="sink",
    metric="sink_pending_events",
    stored=True,
)
SINK_SET_ASIDE: Final = _sink(
    "set_aside",
    "events",
    "Events that the sink will never take.",
    Kind.GAUGE,
    label="sink",
    metric="sink_set_aside_events",
)
SINK_LAG: Final = _sink(
    "lag_s",
    "seconds",
    "Age of the oldest event that waits.",
    Kind.GAUGE,
    label="sink",
    metric="sink_lag_seconds",
)
SINK_DELIVERED: Final = _sink(
    "delivered", "events", "Events delivered.", label="sink", metric="sink_delivered_events"
)
SINK_DROPPED: Final = _sink(
    "dropped", "events", "Events dropped.", label="sink", metric="sink_dropped_events"
)

# The parent, of itself and of each process.
UP: Final = _parent("up_s", "seconds", "Time for which all processes ran.", stored=True)
CORES: Final = _parent("cores", "cores", "Processors of the machine.", Kind.GAUGE, stored=True)
HEALTHY: Final = _parent(
    "healthy", "0 or 1", "Whether all processes run.", Kind.GAUGE, metric="healthy"
)
READY: Final = _parent(
    "ready",
    "0 or 1",
    "Whether packets can be read and tables be scored.",
    Kind.GAUGE,
    metric="ready",
)
RESTARTS: Final = _each(
    "restarts",
    "times",
    "Times it was started again.",
    label="process",
    metric="process_restarts",
    stored=True,
)
CPU: Final = _each(
    "cpu_s",
    "seconds",
    "CPU time of its present start.",
    label="process",
    metric="process_cpu_seconds",
    stored=True,
)
RESIDENT: Final = _each(
    "rss",
    "bytes",
    "Resident memory.",
    Kind.GAUGE,
    label="process",
    metric="process_resident_bytes",
    stored=True,
)

REGISTRY: Final = tuple(
    value for value in list(globals().values()) if isinstance(value, CounterSpec)
)
"""All of them."""

_BY_PROCESS: Final[Mapping[str, tuple[CounterSpec, ...]]] = {
    process.value: tuple(spec for spec in REGISTRY if spec.process is process)
    for process in Process
}


def counted_by(process: str) -> tuple[CounterSpec, ...]:
    """Return what one kind of process counts; nothing for a kind that is not known."""
    return _BY_PROCESS.get(process, ())


def kind_of(child: str) -> str:
    """Return the kind of process that a process of a sensor is, by its name.

    Examples
    --------
    >>> kind_of("ingest-0")
    'ingest'
    """
    return child.split("-")[0]


def to_status(values: Mapping[CounterSpec, Any]) -> dict[str, Any]:
    """Return counted values by their keys in a status."""
    return {spec.name: value for spec, value in values.items()}


@dataclass(frozen=True, slots=True)
class CounterStep:
    """One counter of one sensor within one step of time.

    Attributes
    ----------
    start_ns
        Beginning of the step, ns since the epoch.
    sensor, name
        Whose, and which.
    total
        Sum of the stored values.
    most
        Largest value of a minute.
    minutes
        Minutes of the step that have a value.
    values
        Values that were added up: more than minutes where the sensor started within one.
    """

    start_ns: int
    sensor: str
    name: str
    total: float
    most: float
    minutes: int
    values: int


@dataclass(frozen=True, slots=True)
class CountedMinute:
    """A minute of which one run of a sensor stored any counter at all.

    Attributes
    ----------
    minute_ns
        Beginning of the minute, ns since the epoch.
    sensor, run
        Whose, and what tells its starts apart.
    """

    minute_ns: int
    sensor: str
    run: str
