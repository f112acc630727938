"""Alerts and events as EVE JSON lines: what Suricata writes and every SIEM reads.

A host alert is written on its highest-scoring flow, under a signature of its own. Its times
are those of the alert's whole evidence, its counters those of that one flow.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Final

import polars as pl

from veilwatch.detection.alerting import attack
from veilwatch.errors import OutputError
from veilwatch.export.clean import compact_json
from veilwatch.files import replacing
from veilwatch.schema.alerts import Alert
from veilwatch.schema.events import Event, EventKind
from veilwatch.schema.flow_facts import FlowFacts, flow_facts_by_id
from veilwatch.schema.flows import EndReason
from veilwatch.schema.forms import teid_text
from veilwatch.schema.names import protocol_name, tls_version_name
from veilwatch.sinks import eve_types as eve

GID: Final = 1
"""Generator of ordinary rules: readers that filter by gid keep the event."""

REVISION: Final = 1

SIGNATURES: Final = {
    ("flow", False): (41_730_001, "VEILWATCH flow like malware"),
    ("host", False): (41_730_002, "VEILWATCH host with flows like malware"),
    ("incident", False): (41_730_003, "VEILWATCH incident of a host"),
    ("summary", False): (41_730_004, "VEILWATCH summary of alerts held back"),
    ("test", False): (41_730_009, "VEILWATCH TEST nothing was found"),
    ("flow", True): (41_730_011, "VEILWATCH EMULATED flow like malware"),
    ("host", True): (41_730_012, "VEILWATCH EMULATED host with flows like malware"),
    ("incident", True): (41_730_013, "VEILWATCH EMULATED incident of a host"),
    ("summary", True): (41_730_014, "VEILWATCH EMULATED summary of alerts held back"),
    ("test", True): (41_730_019, "VEILWATCH EMULATED TEST nothing was found"),
}
"""Signature by kind and whether the traffic is emulated.

The range 41730000–41730099 is ours: it lies outside the ranges of the common public rule sets
(below 3,000,000) and outside 66778899, 20110000–04, 20130000–10 and 20310001, which other
modules of SecBuzzer ESM use. No text begins with DTM: ESM files such alerts elsewhere. Emulated
traffic has its own numbers, so that one rule silences it.
"""

CATEGORY: Final = "A Network Trojan was detected"
"""Text of the class type trojan-activity, the one for malware of whatever purpose."""

MAX_LINE_BYTES: Final = 31_999
"""Longest line, newline included: a reader behind a Unix datagram socket takes less than
32,000 bytes at once and loses the rest."""

MAX_NAME: Final = 255
"""Characters kept of a name: a DNS name has no more."""

MAX_PATH: Final = 512
"""Characters kept of a capture's path: names and path together stay below the longest line even
where JSON needs twelve bytes a character."""

MAX_REASONS: Final = 10
"""Reasons kept; what comes after moved the score little."""

MAX_REASON: Final = 500
"""Characters kept of one reason."""

MAX_STEPS: Final = 20
"""Lines of an incident's timeline kept, the newest: what came before is in their own events."""

MAX_PLACE: Final = 64
"""Characters kept of names that our own configuration gives: sensor, interface, ids."""

TEST_CATEGORY: Final = "Not Suspicious Traffic"
"""Text of the class type not-suspicious."""

TAIPEI: Final = timezone(timedelta(hours=8))
"""The zone in which SecBuzzer ESM keeps its times."""

_CONFIDENCE: Final = {1: "High", 2: "Medium", 3: "Low"}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_PORTLESS: Final = frozenset({1, 58})  # ICMP has a type and a code instead


def write_alerts(
    path: Path,
    alerts: Sequence[Alert],
    flows: pl.DataFrame,
) -> None:
    """Write one line for each alert, all of them or, on a fault, none.

    Parameters
    ----------
    path
        File to write; what stood there stays until the new content is complete.
    alerts
        In the order in which they are to be written.
    flows
        Scored flows, among them every `flow_id` of the alerts.

    Raises
    ------
    OutputError
        If the file cannot be written or an alert's flow is not in `flows`.
    """
    known = flow_facts_by_id(flows, [alert.flow_id for alert in alerts])
    with replacing(path) as stream:
        for alert in alerts:
            if alert.flow_id not in known:
                raise OutputError(f"flow {alert.flow_id} of an alert is unknown", where=path)
            stream.write(line(alert, known[alert.flow_id]))


@dataclass(frozen=True, slots=True)
class _Form:
    """How much of an event is written."""

    reasons: int = MAX_REASONS
    steps: int = MAX_STEPS
    name: int = MAX_NAME
    path: int = MAX_PATH
    zone: timezone = UTC


def line(alert: Alert, flow: FlowFacts) -> bytes:
    """Return the event as one ASCII line of at most `MAX_LINE_BYTES` bytes.

    Reasons are dropped from the weakest on until the line fits; `alert.metadata.shortened` then
    says so.
    """
    for form in _forms(min(len(alert.reasons), MAX_REASONS), 0, UTC):
        text = compact_json(_event(alert, alert.kind, flow, form).model_dump(exclude_none=True))
        if len(text) < MAX_LINE_BYTES:
            return text + b"\n"
    raise AssertionError("the bounds on names keep an event without reasons below the limit")


def event_text(item: Event, *, zone: timezone = UTC, limit: int = MAX_LINE_BYTES) -> bytes:
    """Return what a sensor tells as one ASCII line of less than `limit` bytes, without its end.

    What does not fit is left out: first reasons and the timeline, then parts of names;
    `alert.metadata.shortened` says so.

    Parameters
    ----------
    item
        Its texts are free of half surrogates (`veilwatch.export.clean.clean`).
    zone
        Zone of the timestamps.
    limit
        First length that is too long, bytes; at least 8,000.

    Raises
    ------
    ValueError
        If EVE has no form for it, such as a port above 65535.
    """
    steps = len(item.incident.timeline) if item.incident else 0
    for form in _forms(min(len(item.alert.reasons), MAX_REASONS), min(steps, MAX_STEPS), zone):
        document = _event(item.alert, item.kind.value, item.flow, form, item)
        text = compact_json(document.model_dump(exclude_none=True))
        if len(text) < limit:
            return text
    raise ValueError(f"longer than {limit} bytes however much is left out")


def _forms(reasons: int, steps: int, zone: timezone) -> Iterable[_Form]:
    most = max(reasons, steps)
    for kept in range(most, -1, -1):
        yield _Form(min(kept, reasons), min(kept, steps), zone=zone)
    yield _Form(0, 0, 64, 64, zone)
    yield _Form(0, 0, 16, 16, zone)


def event(alert: Alert, flow: FlowFacts, max_reasons: int = MAX_REASONS) -> eve.Event:
    """Return the event of one alert.

    Parameters
    ----------
    alert
        The alert.
    flow
        The flow that it points at, `alert.flow_id`.
    max_reasons
        Reasons to keep.
    """
    return _event(alert, alert.kind, flow, _Form(max_reasons))


def _event(
    alert: Alert,
    kind: str,
    flow: FlowFacts | None,
    form: _Form,
    item: Event | None = None,
) -> eve.Event:
    portless = alert.protocol in _PORTLESS
    techniques = attack.of_alert(alert, flow)
    metadata = _metadata(alert, kind, techniques, form) | (_told(item, form) if item else {})
    over_quic = flow is not None and flow.service == "quic"
    return eve.Event(
        timestamp=timestamp(event_time_ns(item) if item else alert.last_ns, form.zone),
        flow_id=alert.flow_id,
        host=(item.sensor[:MAX_PLACE] or None) if item else None,
        in_iface=(item.interface[:MAX_PLACE] or None) if item else None,
        src_ip=alert.src_ip,
        src_port=None if portless else alert.src_port,
        dest_ip=alert.dst_ip,
        dest_port=None if portless else alert.dst_port,
        proto=protocol_name(alert.protocol),
        ip_v=6 if ":" in alert.src_ip else 4,
        icmp_type=flow.icmp_type if flow and portless else None,
        icmp_code=flow.icmp_code if flow and portless else None,
        app_proto=alert.service[: form.name] or None,
        capture_file=alert.capture[: form.path] or None,
        tunnel=_tunnel(alert),
        alert=_alert(alert, kind, metadata),
        tls=_tls(flow, form) if flow and not over_quic else None,
        quic=_quic(flow, form) if flow and over_quic else None,
        flow=_flow(flow, form) if flow else None,
    )


def timestamp(ns: int, zone: timezone = UTC) -> str:
    """Return a time as `2026-06-01T08:40:00.000000+0000`, in the zone asked for."""
    time = (_EPOCH + timedelta(microseconds=ns // 1000)).astimezone(zone)
    return time.strftime("%Y-%m-%dT%H:%M:%S.%f%z")


def utc_timestamp(ns: int) -> str:
    """Return a time as `2026-06-01T08:40:00.000000Z`: what most receivers but EVE's take."""
    return timestamp(ns).removesuffix("+0000") + "Z"


def event_time_ns(item: Event) -> int:
    """Return the time that an event carries: that of its last evidence, ns since the epoch."""
    if item.kind is EventKind.INCIDENT and item.incident is not None:
        return item.incident.last_ns
    return item.alert.last_ns


def _metadata(alert: Alert, kind: str, techniques: list[str], form: _Form) -> dict[str, list[str]]:
    tunnel = alert.tunnel
    reasons = [reason.text[:MAX_REASON] for reason in alert.reasons[: form.reasons]]
    names = (alert.subscriber, alert.family, alert.application)
    return {
        "kind": [kind],
        "host": [alert.host[:MAX_PLACE]],
        "subscriber": [alert.subscriber[: form.name]],
        "score": [f"{alert.score:.6f}"],
        "threshold": [f"{alert.threshold:.6f}"],
        "confidence": [_CONFIDENCE.get(alert.severity, "")],
        "malware_family": [alert.family[: form.name]],
        "family_probability": [f"{alert.family_probability:.3f}"]
        if alert.family_probability
        else [],
        "application": [alert.application[: form.name]],
        "mitre_technique_id": techniques,
        "teid": [teid_text(teid) for teid in (tunnel.fwd_teid, tunnel.bwd_teid) if teid]
        if tunnel
        else [],
        "qfi": [str(tunnel.qfi)] if tunnel and tunnel.qfi is not None else [],
        "evidence": [f"{name} {count}" for name, count in sorted(alert.evidence.items())],
        "little_evidence": ["true"] if alert.thin else [],
        "traffic": ["emulated"] if alert.emulated else [],
        "reasons": reasons,
        "shortened": (["reasons"] if len(reasons) < len(alert.reasons) else [])
        + (["names"] if form.name < min(MAX_NAME, max(map(len, names))) else []),
    }


def _told(item: Event, form: _Form) -> dict[str, list[str]]:
    """Metadata that an event has and an alert alone has not."""
    incident, ended = item.incident, None if item.flow is None else item.flow.end_reason
    told = {
        "event_id": [item.event_id[:MAX_PLACE]],
        "resend": ["possible"] if item.again else [],
        "flow_end": [EndReason(ended).name.lower()] if ended in tuple(EndReason) else [],
    }
    if incident is not None:
        told |= {
            "incident": [incident.incident_id[:MAX_PLACE]],
            "incident_status": [incident.status[:MAX_PLACE]],
            "incident_alerts": [str(incident.alerts)],
        }
    if incident is not None and item.kind is EventKind.INCIDENT:
        steps = incident.timeline[len(incident.timeline) - form.steps :]
        told["timeline"] = [
            f"{timestamp(step.at_ns, form.zone)} {step.text[:MAX_REASON]}" for step in steps
        ]
        left_out = len(incident.timeline) - len(steps)
        told["timeline_left_out"] = [str(left_out)] if left_out else []
    return told


def _alert(alert: Alert, kind: str, metadata: Mapping[str, list[str]]) -> eve.Alert:
    number, signature = SIGNATURES[kind, alert.emulated]
    return eve.Alert(
        gid=GID,
        signature_id=number,
        rev=REVISION,
        signature=signature,
        category=TEST_CATEGORY if kind == EventKind.TEST else CATEGORY,
        severity=alert.severity,
        metadata={key: values for key, values in metadata.items() if any(values)},
    )


def _flow(flow: FlowFacts, form: _Form) -> eve.Flow:
    return eve.Flow(
        pkts_toserver=flow.fwd_packets,
        pkts_toclient=flow.bwd_packets,
        bytes_toserver=flow.fwd_bytes,
        bytes_toclient=flow.bwd_bytes,
        start=timestamp(flow.first_ns, form.zone),
    )


def _tunnel(alert: Alert) -> eve.Tunnel | None:
    tunnel = alert.tunnel
    if tunnel is None:
        return None
    return eve.Tunnel(src_ip=tunnel.src_ip, dest_ip=tunnel.dst_ip, depth=tunnel.depth)


def _tls(flow: FlowFacts, form: _Form) -> eve.Tls | None:
    tls = eve.Tls(
        sni=flow.tls_sni[: form.name] or None,
        version=tls_version_name(flow.tls_version) if flow.tls_version else None,
        subject=_common_name(flow.cert_subject[: form.name]),
        issuerdn=_common_name(flow.cert_issuer[: form.name]),
        ja3=eve.Hash(hash=flow.ja3) if flow.ja3 else None,
        ja3s=eve.Hash(hash=flow.ja3s) if flow.ja3s else None,
        ja4=flow.ja4 or None,
    )
    return tls if tls.model_dump(exclude_none=True) else None


def _quic(flow: FlowFacts, form: _Form) -> eve.Quic:
    return eve.Quic(
        version=f"0x{flow.quic_version:08x}" if flow.quic_version else None,
        sni=flow.tls_sni[: form.name] or None,
        ja3=eve.Hash(hash=flow.ja3) if flow.ja3 else None,
        ja4=flow.ja4 or None,
    )


def _common_name(name: str) -> str | None:
    return f"CN={name}" if name else None
