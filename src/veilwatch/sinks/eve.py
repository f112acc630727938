"""Alerts as EVE JSON lines: what Suricata writes and every SIEM reads.

A host alert is written on its highest-scoring flow, under a signature of its own. Its times
are those of the alert's whole evidence, its counters those of that one flow.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import polars as pl

from veilwatch.alerting import attack
from veilwatch.alerting.names import protocol_name, tls_version_name
from veilwatch.errors import OutputError
from veilwatch.files import replacing
from veilwatch.schema.alerts import Alert
from veilwatch.sinks import eve_types as eve

GID: Final = 1
"""Generator of ordinary rules: readers that filter by gid keep the event."""

REVISION: Final = 1

SIGNATURES: Final = {
    ("flow", False): (41_730_001, "VEILWATCH flow like malware"),
    ("host", False): (41_730_002, "VEILWATCH host with flows like malware"),
    ("flow", True): (41_730_011, "VEILWATCH EMULATED flow like malware"),
    ("host", True): (41_730_012, "VEILWATCH EMULATED host with flows like malware"),
}
"""Signature by kind and whether the traffic is emulated.

The range 41730000–41730099 is ours: it lies outside the ranges of the common public rule sets
(below 3,000,000) and outside 66778899, 20110000–04, 20130000–10 and 20310001, which other
modules of SecBuzzer ESM use. Emulated traffic has its own numbers, so that one rule silences it.
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

_CONFIDENCE: Final = {1: "High", 2: "Medium", 3: "Low"}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_PORTLESS: Final = frozenset({1, 58})  # ICMP has a type and a code instead
_FLOW_COLUMNS: Final = (
    *("flow_id", "ip_version", "icmp_type", "icmp_code", "service", "dst_port"),
    *("fwd_packets", "bwd_packets", "fwd_bytes", "bwd_bytes"),
    *("fwd_payload_bytes", "bwd_payload_bytes", "first_ns"),
    *("tls_sni", "tls_version", "tls_alpn", "tls_server_alpn", "ja3", "ja3s", "ja4"),
    *("cert_subject", "cert_issuer", "quic_version"),
)


def write_alerts(
    path: Path,
    alerts: Sequence[Alert],
    flows: pl.DataFrame,
    *,
    ransomware_families: Iterable[str] = (),
) -> None:
    """Write one line for each alert, all of them or, on a fault, none.

    Parameters
    ----------
    path
        File to write; what stood there stays until the new content is complete.
    alerts
        In the order in which they are to be written.
    flows
        Flow table that holds every `flow_id` of the alerts.
    ransomware_families
        Family names for which T1486 is added as context.

    Raises
    ------
    OutputError
        If the file cannot be written or an alert's flow is not in `flows`.
    """
    ransomware = frozenset(ransomware_families)
    wanted = pl.Series("flow_id", [alert.flow_id for alert in alerts], dtype=pl.Int64).unique()
    rows = {
        row["flow_id"]: row
        for row in flows.lazy()
        .select(_FLOW_COLUMNS)
        .filter(pl.col("flow_id").is_in(wanted.implode()))
        .collect()
        .iter_rows(named=True)
    }
    with replacing(path) as stream:
        for alert in alerts:
            if alert.flow_id not in rows:
                raise OutputError(f"flow {alert.flow_id} of an alert is unknown", where=path)
            stream.write(line(alert, rows[alert.flow_id], alert.family in ransomware))


def line(alert: Alert, flow: Mapping[str, Any], ransomware: bool = False) -> bytes:
    """Return the event as one ASCII line of at most `MAX_LINE_BYTES` bytes.

    Reasons are dropped from the weakest on until the line fits; `alert.metadata.shortened` then
    says so.
    """
    for kept in range(min(len(alert.reasons), MAX_REASONS), -1, -1):
        document = event(alert, flow, ransomware, kept).model_dump(exclude_none=True)
        # ASCII only: a name may hold U+2028 or U+0085, which some readers take for line ends.
        text = json.dumps(document, ensure_ascii=True, separators=(",", ":"))
        if len(text) < MAX_LINE_BYTES:
            return text.encode() + b"\n"
    raise AssertionError("the bounds on names keep an event without reasons below the limit")


def event(
    alert: Alert, flow: Mapping[str, Any], ransomware: bool = False, max_reasons: int = MAX_REASONS
) -> eve.Event:
    """Return the event of one alert.

    Parameters
    ----------
    alert
        The alert.
    flow
        Row of the flow table for `alert.flow_id`.
    ransomware
        Whether the alert's family is known ransomware.
    max_reasons
        Reasons to keep.
    """
    portless = alert.protocol in _PORTLESS
    return eve.Event(
        timestamp=timestamp(alert.last_ns),
        flow_id=alert.flow_id,
        src_ip=alert.src_ip,
        src_port=None if portless else alert.src_port,
        dest_ip=alert.dst_ip,
        dest_port=None if portless else alert.dst_port,
        proto=protocol_name(alert.protocol),
        ip_v=flow["ip_version"],
        icmp_type=flow["icmp_type"] if portless else None,
        icmp_code=flow["icmp_code"] if portless else None,
        app_proto=alert.service[:MAX_NAME] or None,
        capture_file=alert.capture[:MAX_PATH] or None,
        tunnel=_tunnel(alert),
        alert=_alert(alert, attack.techniques(flow, ransomware=ransomware), max_reasons),
        tls=_tls(flow) if flow["service"] != "quic" else None,
        quic=_quic(flow) if flow["service"] == "quic" else None,
        flow=eve.Flow(
            pkts_toserver=flow["fwd_packets"],
            pkts_toclient=flow["bwd_packets"],
            bytes_toserver=flow["fwd_bytes"],
            bytes_toclient=flow["bwd_bytes"],
            start=timestamp(flow["first_ns"]),
        ),
    )


def timestamp(ns: int) -> str:
    """Return a packet time as `2026-06-01T08:40:00.000000+0000`."""
    return (_EPOCH + timedelta(microseconds=ns // 1000)).strftime("%Y-%m-%dT%H:%M:%S.%f+0000")


def _alert(alert: Alert, techniques: list[str], max_reasons: int) -> eve.Alert:
    number, signature = SIGNATURES[alert.kind, alert.emulated]
    tunnel = alert.tunnel
    reasons = [reason.text[:MAX_REASON] for reason in alert.reasons[:max_reasons]]
    metadata = {
        "kind": [alert.kind],
        "host": [alert.host],
        "subscriber": [alert.subscriber[:MAX_NAME]],
        "score": [f"{alert.score:.6f}"],
        "threshold": [f"{alert.threshold:.6f}"],
        "confidence": [_CONFIDENCE[alert.severity]],
        "malware_family": [alert.family[:MAX_NAME]],
        "family_probability": [f"{alert.family_probability:.3f}"]
        if alert.family_probability
        else [],
        "application": [alert.application[:MAX_NAME]],
        "mitre_technique_id": techniques,
        "teid": [str(teid) for teid in (tunnel.fwd_teid, tunnel.bwd_teid) if teid]
        if tunnel
        else [],
        "qfi": [str(tunnel.qfi)] if tunnel and tunnel.qfi is not None else [],
        "evidence": [f"{name} {count}" for name, count in sorted(alert.evidence.items())],
        "traffic": ["emulated"] if alert.emulated else [],
        "reasons": reasons,
        "shortened": ["reasons"] if len(reasons) < len(alert.reasons) else [],
    }
    return eve.Alert(
        gid=GID,
        signature_id=number,
        rev=REVISION,
        signature=signature,
        category=CATEGORY,
        severity=alert.severity,
        metadata={key: values for key, values in metadata.items() if any(values)},
    )


def _tunnel(alert: Alert) -> eve.Tunnel | None:
    tunnel = alert.tunnel
    if tunnel is None:
        return None
    return eve.Tunnel(src_ip=tunnel.src_ip, dest_ip=tunnel.dst_ip, depth=tunnel.depth)


def _tls(flow: Mapping[str, Any]) -> eve.Tls | None:
    tls = eve.Tls(
        sni=flow["tls_sni"][:MAX_NAME] or None,
        version=tls_version_name(flow["tls_version"]) if flow["tls_version"] else None,
        subject=_common_name(flow["cert_subject"]),
        issuerdn=_common_name(flow["cert_issuer"]),
        ja3=eve.Hash(hash=flow["ja3"]) if flow["ja3"] else None,
        ja3s=eve.Hash(hash=flow["ja3s"]) if flow["ja3s"] else None,
        ja4=flow["ja4"] or None,
    )
    return tls if tls.model_dump(exclude_none=True) else None


def _quic(flow: Mapping[str, Any]) -> eve.Quic:
    return eve.Quic(
        version=f"0x{flow['quic_version']:08x}" if flow["quic_version"] else None,
        sni=flow["tls_sni"][:MAX_NAME] or None,
        ja3=eve.Hash(hash=flow["ja3"]) if flow["ja3"] else None,
        ja4=flow["ja4"] or None,
    )


def _common_name(name: str) -> str | None:
    return f"CN={name[:MAX_NAME]}" if name else None
