"""Alerts: what people and other systems are told."""

from __future__ import annotations

from dataclasses import dataclass, field

from veilwatch.schema.scores import Reason


@dataclass(frozen=True, slots=True)
class Tunnel:
    """The GTP-U tunnel an alerted flow ran in, as the first packet showed it."""

    src_ip: str
    dst_ip: str
    fwd_teid: int
    bwd_teid: int
    qfi: int | None
    depth: int


@dataclass(frozen=True, slots=True)
class Alert:
    """One flow, or one host, that is held to be malicious.

    Attributes
    ----------
    kind
        "flow" or "host".
    flow_id
        Of the flow; of the host's highest-scoring flow for a host alert.
    first_ns, last_ns
        Span of the evidence, ns since the epoch.
    src_ip, src_port, dst_ip, dst_port, protocol
        The flow's 5-tuple (IANA protocol number).
    host
        Address of the machine held to be infected: the initiator.
    subscriber
        Pseudonym of the mobile subscriber, '' unknown.
    score
        0…1.
    threshold
        The threshold that the score passed.
    severity
        1 high, 2 medium, 3 low, as in Suricata.
    family
        Most similar known family of the host, `veilwatch.schema.scores.UNKNOWN_FAMILY` where it
        is like none, '' where the model names no families or the host as a whole is no alert.
    ransomware
        Whether that family is known as ransomware.
    family_probability
        For a host alert, the likeliest family's probability against the next likeliest, whether
        that was enough for a name or not; 0 where families are not named.
    application
        Server name, service or process that names the traffic, '' unknown.
    reasons
        What decided, strongest first; for a host alert that of its highest-scoring flow, and of
        its most suspicious window where the model has windows.
    tunnel
        None outside a tunnel.
    emulated
        Whether the traffic is known to come from the lab.
    thin
        Whether there is little behind the score: of a flow, that it holds no conversation (a ping,
        a lookup, an attempt that nobody answered); of a host, that it has few flows and none of
        those that were alerted holds one. Such an alert is low, and of no family.
    evidence
        For a host alert, how many of its flows were alerted and seen, the `probability` of an
        infection at the model's prior, and where channels and windows were judged what flows,
        channels and windows say alone (`flow_score`, `channel_score`, `window_score`).
    """

    kind: str
    flow_id: int
    first_ns: int
    last_ns: int
    src_ip: str
    src_port: int
    dst_ip: str
    dst_port: int
    protocol: int
    host: str
    score: float
    threshold: float
    severity: int
    subscriber: str = ""
    family: str = ""
    ransomware: bool = False
    family_probability: float = 0.0
    application: str = ""
    service: str = ""
    reasons: tuple[Reason, ...] = ()
    tunnel: Tunnel | None = None
    emulated: bool = False
    capture: str = ""
    thin: bool = False
    evidence: dict[str, float] = field(default_factory=dict)
