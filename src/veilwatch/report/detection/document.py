"""The result of one run as one typed document. Renderers read it and nothing else.

Every name in it that came from the network or from a file name has been through
`veilwatch.schema.text.visible`: bounded, and free of characters that act on a screen. Markup
is still in it; escaping that is each renderer's own duty. Words stay in the text catalogue:
the document holds numbers, names and keys.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from veilwatch.report.evaluation.document import Evaluation
from veilwatch.report.part import Part


class FileRead(Part):
    """One input; `fault` says why reading stopped, empty when it was read whole."""

    comments: tuple[str, ...]
    name: str
    format: str
    packets: int
    bytes: int
    first_ns: int | None
    last_ns: int | None
    fault: str


class BalanceLine(Part):
    """How many packets met one `veilwatch.schema.packets.Status`."""

    status: str
    packets: int
    share: float  # of all packets read


class Reading(Part):
    """What was read and what was refused: `decoded + refused == packets`."""

    files: tuple[FileRead, ...]
    more_files: int
    faults: int
    packets: int
    bytes: int
    first_ns: int | None
    last_ns: int | None
    decoded: int
    refused: int
    balance: tuple[BalanceLine, ...]


class Named(Part):
    """Alerted flows under one name."""

    name: str
    flows: int


class Endpoints(Part):
    """A pair of GTP-U tunnel end points (in a mobile core: gNB and UPF)."""

    first: str
    second: str
    flows: int
    teids: int


class Tunnels(Part):
    """GTP-U as far as the capture showed it; `messages` is (name of the counter, packets)."""

    flows: int
    teids: int
    messages: tuple[tuple[str, int], ...]
    endpoints: tuple[Endpoints, ...]
    more_endpoints: int


class Service(Part):
    """All flows of one recognised service, '' those of none."""

    name: str
    flows: int
    bytes: int
    alerts: int
    encrypted: bool


class Traffic(Part):
    """All flows together; bytes are sums of IP lengths."""

    flows: int
    packets: int
    bytes: int
    hosts: int
    encrypted_flows: int
    encrypted_bytes: int
    services: tuple[Service, ...]


class Server(Part):
    """Somebody that an alerted host talked to in its alerted flows."""

    name: str
    address: str
    port: int
    protocol: str
    flows: int
    bytes: int


class Contribution(Part):
    """One reason: `contribution` is in log-odds, positive towards malicious."""

    feature: str
    text: str
    contribution: float


class TunnelFacts(Part):
    """The tunnel of an alerted flow."""

    first: str
    second: str
    fwd_teid: int  # of packets from the initiator
    bwd_teid: int
    qfi: int | None
    depth: int


class AlertEntry(Part):
    """One alert as it is shown."""

    kind: str
    flow_id: int
    first_ns: int
    last_ns: int
    host: str
    subscriber: str
    src_ip: str
    src_port: int
    dst_ip: str
    dst_port: int
    protocol: str
    service: str
    application: str
    family: str
    capture: str
    score: float
    probability: float | None = None  # of an infection, at the model's prior; of hosts only
    thin: bool = False  # see `veilwatch.schema.alerts.Alert`
    threshold: float
    severity: int
    sent_bytes: int
    received_bytes: int
    techniques: tuple[str, ...]
    reasons: tuple[Contribution, ...]
    tunnel: TunnelFacts | None


class Timeline(Part):
    """Flows by the time at which they began, in steps of `step_ns` from `start_ns` on."""

    start_ns: int
    step_ns: int
    flows: tuple[int, ...]
    bytes: tuple[int, ...]
    alerts: tuple[int, ...]


class HostCard(Part):
    """One alerted host.

    `timeline` spans the run, `activity` the time from its first to its last flow.
    """

    alert: AlertEntry
    flows: int
    alerted_flows: int
    families: tuple[Named, ...]
    servers: tuple[Server, ...]
    more_servers: int
    timeline: Timeline
    activity: Timeline


class ScoreHistogram(Part):
    """Flows by score, in equal steps of log-odds between `low` and `high`.

    Scores outside are counted in the first and last step.
    """

    low: float
    high: float
    below: tuple[int, ...]  # flows without alert
    above: tuple[int, ...]  # alerted flows


class ModelCard(Part):
    """What judged the traffic."""

    name: str
    facts: tuple[tuple[str, str], ...]  # (key of the text catalogue or own name, value)
    flow_threshold: float
    host_threshold: float
    target_fpr: float | None
    prior: float | None = None  # share of infected hosts that probabilities are given for
    held_out: Evaluation | None


class Origin(Part):
    """What the model learned from, as far as it puts this result in doubt.

    Attributes
    ----------
    emulated
        Whether the model was trained on emulated traffic.
    learned
        Inputs that it learned from, by name; `more_learned` are not named.
    learned_flows
        About which share of the flows it learned from, told by a sample of them.
    """

    emulated: bool = False
    learned: tuple[str, ...] = ()
    more_learned: int = 0
    learned_flows: float = 0.0


class ReportDocument(Part):
    """All that a report says."""

    title: str
    made_at: datetime
    version: str
    command: str
    emulated: bool
    origin: Origin = Origin()
    reading: Reading
    tunnels: Tunnels
    traffic: Traffic
    model: ModelCard
    alerted_hosts: int
    alerted_flows: int
    written_hosts: int  # of them those that the alerts file holds, one by one
    written_flows: int
    hosts_without_windows: int = 0  # judged by their flows alone, because there were too many
    thin_alerts: int = 0  # of those in the alerts file
    expected_false_alerts: float | None  # at the target rate, if every flow were benign
    hosts: tuple[HostCard, ...]
    alerts: tuple[AlertEntry, ...]  # flow alerts, strongest first
    alerts_file: str
    families: tuple[Named, ...]
    subscribers: tuple[Named, ...]
    applications: tuple[Named, ...]
    timeline: Timeline
    scores: ScoreHistogram
    evaluation: Evaluation | None
    limits: tuple[str, ...]  # keys of the text catalogue

    @property
    def more_hosts(self) -> int:
        """Alerted hosts that are not shown, but are in the alerts file."""
        return self.written_hosts - len(self.hosts)

    @property
    def more_alerts(self) -> int:
        """Flow alerts that are not shown, but are in the alerts file."""
        return self.written_flows - len(self.alerts)

    @property
    def left_out(self) -> int:
        """Alerts that are counted only."""
        return self.alerted_hosts - self.written_hosts + self.alerted_flows - self.written_flows

    def to_json(self) -> dict[str, Any]:
        """Return the document as plain JSON values."""
        return self.model_dump(mode="json")
