"""Events to send."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import cache
from typing import Any

from tests.report import factory
from veilwatch.schema.alerts import Alert
from veilwatch.schema.events import Event, EventKind, Incident, Step
from veilwatch.schema.flow_facts import FlowFacts, flow_facts_by_id

HOSTILE = {
    "separators": "a\u2028b\u2029c\u0085d",
    "control": "a\x00b\x1b[31mc\r\nd\te\x7f",
    "long": "x" * 10_000,
    "astral": "\U0001f980" * 10_000,
    "half": "a\ud83eb\udd80",
    "halves": "\udd80\ud83e" * 3,
    "syslog": "<13>1 - - - - - - fake\n<13>",
    "cef": "a=b|c\\d src=1.2.3.4",
    "markup": "<script>alert(1)</script>${jndi:ldap://x}",
    "unicode": "病院.example",
}


@cache
def _flows() -> list[tuple[Alert, FlowFacts]]:
    """Alerts for flows, each with its flow."""
    scene = factory.scene(infected_hosts=2, benign_hosts=2, flows_per_host=30)
    alerts = [alert for alert in scene.alerts if alert.kind == "flow"]
    facts = flow_facts_by_id(scene.scores.flows, [alert.flow_id for alert in alerts])
    return [(alert, facts[alert.flow_id]) for alert in alerts]


def make(number: int = 0, kind: EventKind = EventKind.INCIDENT, name: str = "") -> Event:
    """Return event `number`; `name`, where it is given, stands everywhere a name can."""
    alert, flow = _flows()[number % len(_flows())]
    if name:
        flow = replace(flow, tls_sni=name, cert_subject=name, cert_issuer=name)
        alert = replace(
            alert, application=name, family=name, subscriber=name, service=name, capture=name
        )
    made = alert.last_ns + 10**9
    incident = Incident(
        incident_id=f"inc{number:029x}",
        host=alert.host,
        subscriber=name or alert.subscriber,
        status="open",
        opened_ns=alert.first_ns,
        last_ns=alert.last_ns,
        severity=alert.severity,
        score=alert.score,
        family=name or alert.family,
        alerts=3,
        timeline=(Step(alert.first_ns, name or "first flow", 0.9, "e1"),) * 40,
        emulated=alert.emulated,
    )
    event_id = hashlib.sha256(f"{number} {kind} {name!a}".encode()).hexdigest()[:32]
    return Event(
        event_id, kind, made, alert, flow, incident, sensor=name or "edge-1",
        interface=name or "mirror0",
    )  # fmt: skip


def many(count: int, start: int = 0) -> list[Event]:
    """Return `count` events."""
    return [make(number) for number in range(start, start + count)]


def poison(number: int = 0) -> Event:
    """Return an event that no form here has room for."""
    event = make(number)
    unfit: Any = object()
    assert event.flow is not None
    bad = replace(event.alert, src_port=70_000, severity=9, score=float("nan"))
    incident = None if event.incident is None else replace(event.incident, score=float("nan"))
    return replace(
        event,
        event_id="bad" + event.event_id[3:],
        alert=bad,
        incident=incident,
        flow=replace(event.flow, fwd_bytes=unfit),
    )
