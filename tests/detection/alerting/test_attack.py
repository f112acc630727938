"""Techniques are named only where the flow shows them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.detection.alerting.samples import make_alert
from veilwatch.detection.alerting.attack import of_alert, techniques
from veilwatch.schema.flow_facts import FlowFacts
from veilwatch.schema.names import protocol_name, tls_version_name

PLAIN = FlowFacts(1, dst_port=443, fwd_payload_bytes=900, bwd_payload_bytes=900)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, []),
        ({"dst_port": 8447}, []),
        ({"service": "tls"}, ["T1573.002"]),
        ({"service": "tls", "dst_port": 8447}, ["T1573.002", "T1571"]),
        ({"service": "tls", "dst_port": 25}, ["T1573.002"]),
        ({"service": "tls", "tls_alpn": ["h2"]}, ["T1573.002", "T1071.001"]),
        ({"service": "tls", "tls_server_alpn": "http/1.1"}, ["T1573.002", "T1071.001"]),
        ({"service": "quic", "tls_alpn": ["h3"]}, ["T1573.002", "T1071.001"]),
        ({"service": "tls", "tls_alpn": ["imap"]}, ["T1573.002"]),
        ({"service": "http", "dst_port": 80}, ["T1071.001"]),
        ({"service": "http", "dst_port": 443}, ["T1071.001", "T1571"]),
        ({"service": "dtls", "dst_port": 51_820}, ["T1573.002"]),
        ({"service": "ssh", "dst_port": 2222}, []),
        ({"fwd_payload_bytes": 1 << 20}, ["T1041"]),
        ({"fwd_payload_bytes": (1 << 20) - 1}, []),
        ({"fwd_payload_bytes": 1 << 20, "bwd_payload_bytes": (1 << 18) + 1}, []),
    ],
)
def test_techniques(change: dict[str, Any], expected: list[str]) -> None:
    assert techniques(replace(PLAIN, **change)) == expected


def test_impact_is_only_context_of_a_known_family() -> None:
    alert = make_alert(ransomware=True)
    assert of_alert(alert, replace(PLAIN, service="tls")) == ["T1573.002", "T1486"]
    assert of_alert(alert, None) == ["T1486"]
    assert of_alert(make_alert(family="Conti"), PLAIN) == []


def test_names() -> None:
    assert [protocol_name(n) for n in (1, 6, 17, 58, 132, 4)] == [
        "ICMP",
        "TCP",
        "UDP",
        "IPv6-ICMP",
        "SCTP",
        "004",
    ]
    assert tls_version_name(0x0304) == "TLS 1.3" and tls_version_name(0x7F1C) == "0x7f1c"
