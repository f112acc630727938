"""From alerts to events: what is stored and delivered, under ids that do not change.

An id is a hash over what the evidence is and never over when the sensor noticed it. The same
traffic read twice, before and after a restart, makes the same ids, so that whoever keeps ids
keeps one copy.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Final

from veilwatch.schema.alerts import Alert
from veilwatch.schema.events import Event, EventKind, Incident
from veilwatch.schema.flow_facts import FlowFacts
from veilwatch.schema.units import HOUR_NS

ID_VERSION: Final = 2
"""Part of every hash: a later rule for ids cannot collide with this one."""

EVIDENCE_NS: Final = HOUR_NS
"""Span of traffic time in which what a host does is one piece of evidence: as long as its flows
speak for or against it (`veilwatch.detection.scoring.hosts.HORIZON_NS`)."""

ID_BYTES: Final = 16
"""128 bits: among 10^12 events two share an id with a probability of 10^-15."""


def identity(*parts: str | int) -> str:
    """Return 32 hexadecimal digits that stand for `parts` and their order.

    Examples
    --------
    >>> identity("a", "b") == identity("a", "b"), identity("ab", "") == identity("a", "b")
    (True, False)
    """
    text = json.dumps([ID_VERSION, *parts], ensure_ascii=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=ID_BYTES).hexdigest()


def evidence_id(alert: Alert, sensor: str) -> str:
    """Return what tells the evidence of an alert from other evidence.

    A flow is its 5-tuple, its first packet and its subscriber: an early score and the score at
    its end are of one evidence. A host is its address, its subscriber and the hour of traffic in
    which its latest evidence lies. Its first evidence would not do: of a sensor it is the first of
    the last hour, which slides with every flow, and after a restart another one.
    """
    whose = (sensor, alert.kind, alert.host, alert.subscriber)
    if alert.kind == EventKind.HOST:
        return identity(*whose, "hour", alert.last_ns // EVIDENCE_NS)
    return identity(
        *(*whose, alert.first_ns, alert.src_ip, alert.src_port),
        *(alert.dst_ip, alert.dst_port, alert.protocol),
    )


def alert_id(alert: Alert, sensor: str) -> str:
    """Return the id of an alert's event: its evidence and its severity.

    A rise in severity is told although its evidence was told before. Under the id of the first
    event it would be taken for a repetition by store, spool and receivers, and get lost.
    """
    return identity(evidence_id(alert, sensor), alert.severity)


def alert_event(
    alert: Alert,
    flow: FlowFacts,
    *,
    sensor: str,
    made_ns: int,
    interface: str = "",
    incident: Incident | None = None,
) -> Event:
    """Return the event of one alert.

    Parameters
    ----------
    alert
        Of a flow or of a host.
    flow
        The flow that it points at, `alert.flow_id`.
    sensor, interface
        Who saw it, and where.
    made_ns
        Wall clock now, ns since the epoch.
    incident
        The incident that the alert was added to.
    """
    return Event(
        event_id=alert_id(alert, sensor),
        kind=EventKind(alert.kind),
        made_ns=made_ns,
        alert=alert,
        flow=flow,
        incident=incident,
        sensor=sensor,
        interface=interface,
    )


def incident_event(
    incident: Incident,
    strongest: Alert,
    flow: FlowFacts,
    *,
    sensor: str,
    made_ns: int,
    interface: str = "",
) -> Event:
    """Return the event that tells how an incident stands: opened, risen in severity, or closed.

    One event for each status and severity: told again after a restart it is the same.

    Parameters
    ----------
    incident
        As it stands now.
    strongest, flow
        Its strongest alert, and the flow that it points at.
    sensor, made_ns, interface
        As for `alert_event`.
    """
    told = (incident.incident_id, incident.status, incident.severity)
    return Event(
        event_id=identity(sensor, EventKind.INCIDENT, *told),
        kind=EventKind.INCIDENT,
        made_ns=made_ns,
        alert=strongest,
        flow=flow,
        incident=incident,
        sensor=sensor,
        interface=interface,
    )


def summary_event(
    strongest: Alert,
    flow: FlowFacts,
    *,
    held_back: int,
    hosts: int,
    since_ns: int,
    until_ns: int,
    sensor: str,
    made_ns: int,
) -> Event:
    """Return the event that stands for alerts that were held back.

    Its alert is the strongest of them. `alert.evidence` says how many they were
    (`held_back`) and of how many hosts (`hosts`).

    Parameters
    ----------
    strongest, flow
        The strongest alert held back, and the flow that it points at.
    held_back, hosts
        Counts.
    since_ns, until_ns
        Span in which they were held back, packet time.
    sensor, made_ns
        As for `alert_event`.
    """
    evidence = {**strongest.evidence, "held_back": float(held_back), "hosts": float(hosts)}
    return Event(
        event_id=identity(sensor, EventKind.SUMMARY, alert_id(strongest, sensor), since_ns),
        kind=EventKind.SUMMARY,
        made_ns=made_ns,
        alert=replace(strongest, first_ns=since_ns, last_ns=until_ns, evidence=evidence),
        flow=flow,
        sensor=sensor,
    )
