"""Alerts and flow rows for tests."""

from __future__ import annotations

from typing import Any

from veilwatch.schema.alerts import Alert
from veilwatch.schema.flow_facts import FlowFacts

SECOND = 10**9
START_NS = 1_780_303_200 * SECOND  # 2026-06-01 08:40 UTC, a Monday


def make_alert(at_s: float = 0.0, **changes: Any) -> Alert:
    """Return an alert of a flow whose last packet came `at_s` after `START_NS`."""
    at_ns = START_NS + int(at_s * SECOND)
    values: dict[str, Any] = {
        "kind": "flow",
        "flow_id": 7,
        "first_ns": at_ns - SECOND,
        "last_ns": at_ns,
        "src_ip": changes.get("host", "10.0.0.5"),
        "src_port": 40_000,
        "dst_ip": "203.0.113.9",
        "dst_port": 443,
        "protocol": 6,
        "host": "10.0.0.5",
        "score": 0.9,
        "threshold": 0.5,
        "severity": 2,
    }
    return Alert(**(values | changes))


def make_row(**changes: Any) -> FlowFacts:
    """Return a flow with what the forms of sinks ask for."""
    values: dict[str, Any] = {
        "flow_id": 7,
        "ip_version": 4,
        "service": "tls",
        "dst_port": 443,
        "fwd_packets": 9,
        "bwd_packets": 8,
        "fwd_bytes": 1200,
        "bwd_bytes": 5400,
        "fwd_payload_bytes": 700,
        "bwd_payload_bytes": 4900,
        "first_ns": START_NS,
        "tls_sni": "cdn.example",
        "tls_version": 0x0304,
        "tls_alpn": ("h2",),
        "tls_server_alpn": "h2",
        "ja3": "0" * 32,
        "ja4": "t13d1516h2_8daaf6152771_02713d6af862",
    }
    return FlowFacts(**(values | changes))
