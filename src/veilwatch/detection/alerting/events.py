"""From alerts to events: what is stored and delivered, under ids that do not change.

An id is a hash over what the evidence is and never over when the sensor noticed it. The same
traffic read twice, before and after a restart, makes the same ids, so that whoever keeps ids
keeps one copy.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np

from veilwatch.schema.alerts import Alert
from veilwatch.schema.events import Event, EventKind, Incident

ID_VERSION: Final = 2
"""Part of every hash: a later rule for ids cannot collide with this one."""

HOUR_NS: Final = 3600 * 10**9
"""Span of traffic time in which what a host does is one piece of evidence: as long as its flows
speak for or against it (`veilwatch.detection.scoring.hosts.HORIZON_NS`)."""

ID_BYTES: Final = 16
"""128 bits: among 10^12 events two share an id with a probability of 10^-15."""

MAX_ITEMS: Final = 32
"""Items kept of a list in a flow's row: ALPN and cipher lists of real clients are shorter."""

MAX_TEXT: Final = 1024
"""Characters kept of a text in a flow's row: a DNS name has at most 255."""

EVENT_COLUMNS: Final = (
    *("flow_id", "parent_id", "first_ns", "last_ns", "src_ip", "src_port", "dst_ip", "dst_port"),
    *("protocol", "ip_version", "icmp_type", "icmp_code", "tcp_state", "end_reason", "service"),
    *("gtp_depth", "outer_src_ip", "outer_dst_ip", "fwd_teid", "bwd_teid", "fwd_qfi", "bwd_qfi"),
    *("subscriber", "apn", "fwd_packets", "bwd_packets", "fwd_bytes", "bwd_bytes"),
    *("fwd_payload_bytes", "bwd_payload_bytes", "tls_sni", "tls_version", "tls_alpn"),
    *("tls_server_alpn", "ja3", "ja3s", "ja4", "cert_subject", "cert_issuer", "cert_self_signed"),
    *("quic_version", "dns_query", "score"),
)
"""Columns of the flow table that an event carries: what an analyst reads and the forms of the
sinks ask for. The rest stays in the archive of flows."""


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
        return identity(*whose, "hour", alert.last_ns // HOUR_NS)
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


def plain_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of a flow's row that events carry, as plain bounded values.

    Numbers that are not finite become None: JSON has none.

    Examples
    --------
    >>> plain_row({"tls_alpn": ["h2"], "score": float("nan"), "seq_size": [1, 2]})
    {'tls_alpn': ['h2'], 'score': None}
    """
    return {name: _plain(row[name]) for name in EVENT_COLUMNS if name in row}


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value[:MAX_TEXT]
    if value is None or isinstance(value, bool | int):
        return value
    return [_plain(item) for item in list(value)[:MAX_ITEMS]]


def alert_event(
    alert: Alert,
    flow: Mapping[str, Any],
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
        Row of the flow table for `alert.flow_id`.
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
        flow=plain_row(flow),
        incident=incident,
        sensor=sensor,
        interface=interface,
    )


def incident_event(
    incident: Incident,
    strongest: Alert,
    flow: Mapping[str, Any],
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
        Its strongest alert, and the row of that alert's flow.
    sensor, made_ns, interface
        As for `alert_event`.
    """
    told = (incident.incident_id, incident.status, incident.severity)
    return Event(
        event_id=identity(sensor, EventKind.INCIDENT, *told),
        kind=EventKind.INCIDENT,
        made_ns=made_ns,
        alert=strongest,
        flow=plain_row(flow),
        incident=incident,
        sensor=sensor,
        interface=interface,
    )


def summary_event(
    strongest: Alert,
    flow: Mapping[str, Any],
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
        The strongest alert held back, and the row of its flow.
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
        flow=plain_row(flow),
        sensor=sensor,
    )
