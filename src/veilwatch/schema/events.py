"""Events: what a sensor stores and hands to its sinks, an alert or news of an incident each."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from veilwatch.schema.alerts import Alert
from veilwatch.schema.flow_facts import FlowFacts


class EventKind(StrEnum):
    """What an event tells."""

    FLOW = "flow"
    """One flow is held to be malicious."""

    HOST = "host"
    """A host's flows and windows together are."""

    INCIDENT = "incident"
    """An incident was opened, rose in severity, or was closed."""

    SUMMARY = "summary"
    """Stands for alerts that the rate limit held back."""

    TEST = "test"
    """Sent on request to see whether it arrives; nothing was found."""


@dataclass(frozen=True, slots=True)
class Step:
    """One line of an incident's timeline.

    Attributes
    ----------
    at_ns
        Packet time, ns since the epoch.
    text
        What happened, in words.
    score
        Score of the alert behind it, 0…1.
    event_id
        The event that tells it in full, '' none.
    """

    at_ns: int
    text: str
    score: float = 0.0
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class Incident:
    """All alerts of one host within a span of time.

    Attributes
    ----------
    incident_id
        The same whenever the same evidence opens it.
    host, subscriber
        Whose it is: the initiator's address, the subscriber's pseudonym ('' unknown).
    status
        "open" or "closed".
    opened_ns, last_ns
        First and last evidence, ns since the epoch.
    severity
        1 high, 2 medium, 3 low: that of the strongest evidence.
    score
        Of the strongest evidence, 0…1.
    family
        As `Alert.family`.
    alerts
        How many alerts were added up, those held back by the rate limit included.
    timeline
        Oldest first, bounded.
    emulated
        Whether the traffic is known to come from the lab.
    """

    incident_id: str
    host: str
    subscriber: str
    status: str
    opened_ns: int
    last_ns: int
    severity: int
    score: float
    family: str = ""
    alerts: int = 0
    timeline: tuple[Step, ...] = ()
    emulated: bool = False


@dataclass(frozen=True, slots=True)
class Event:
    """What sinks deliver.

    Attributes
    ----------
    event_id
        Stable and unique, 32 hexadecimal digits: the same evidence makes the same id after a
        restart, so that a receiver that keeps ids keeps one copy.
    kind
        What it tells.
    made_ns
        When the sensor made it, wall clock, ns since the epoch.
    alert
        The alert; of an incident its strongest one.
    flow
        The flow that the alert points at, `alert.flow_id`; None where it is not known any more.
    incident
        The incident that it belongs to, None where there is none.
    sensor
        Name of the sensor.
    interface
        Where the traffic was seen: interface or file.
    again
        Whether it may have been delivered before.
    """

    event_id: str
    kind: EventKind
    made_ns: int
    alert: Alert
    flow: FlowFacts | None = None
    incident: Incident | None = None
    sensor: str = ""
    interface: str = ""
    again: bool = False
