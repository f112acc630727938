"""Which MITRE ATT&CK techniques the evidence of a flow carries.

A technique is named only where the flow's own columns show it. A score alone names none: that
a flow looks like malware does not tell what the malware did.
"""

from __future__ import annotations

from typing import Final

from veilwatch.schema.alerts import Alert
from veilwatch.schema.flow_facts import FlowFacts
from veilwatch.schema.flows import TLS_SERVICES

ASYMMETRIC_CHANNEL: Final = "T1573.002"
"""Encrypted Channel: Asymmetric Cryptography. Shown by a handshake of TLS, DTLS or QUIC."""

WEB_PROTOCOL: Final = "T1071.001"
"""Application Layer Protocol: Web Protocols. Shown by HTTP in clear or by its ALPN names."""

NON_STANDARD_PORT: Final = "T1571"
"""Non-Standard Port. Shown by TLS, QUIC or HTTP on a port that is not registered for it."""

EXFILTRATION: Final = "T1041"
"""Exfiltration Over C2 Channel. Shown by an upload that outweighs the answer by far."""

DATA_ENCRYPTED: Final = "T1486"
"""Data Encrypted for Impact. No flow shows it; it is context of a family known for it."""

REGISTERED_PORTS: Final = {
    "tls": frozenset({443, 465, 636, 853, 989, 990, 992, 993, 994, 995, 5061, 5671, 8443, 8883}),
    "quic": frozenset({443, 853, 8443}),
    "http": frozenset({80, 591, 3128, 8000, 8008, 8080, 8888}),
}
"""Ports that the service is registered for or commonly offered at. DTLS is not among them: calls in
browsers, VPNs and games agree on a port of their own each time."""

# STARTTLS and its like: TLS that begins inside another protocol keeps that protocol's port.
UPGRADED_PORTS: Final = frozenset({21, 25, 110, 143, 389, 587, 1433, 3306, 3389, 5222, 5269, 5432})

HTTP_ALPN: Final = frozenset({"http/1.0", "http/1.1", "h2", "h3"})

EXFILTRATION_BYTES: Final = 1 << 20
"""Least upload taken for exfiltration: a form or a telemetry report stays below 1 MiB."""

EXFILTRATION_RATIO: Final = 4
"""Least ratio of upload to download: a conversation stays below it, a bulk upload does not."""


def of_alert(alert: Alert, flow: FlowFacts | None) -> list[str]:
    """Name the ATT&CK techniques of an alert and of the flow that it points at.

    Parameters
    ----------
    alert
        The alert; of a family known as ransomware T1486 is added as context.
    flow
        As for `techniques`; None where the flow is not known.
    """
    shown = [] if flow is None else techniques(flow)
    return [*shown, DATA_ENCRYPTED] if alert.ransomware else shown


def techniques(flow: FlowFacts) -> list[str]:
    """Name the ATT&CK techniques that an alerted flow shows.

    Parameters
    ----------
    flow
        The flow.

    Returns
    -------
    list of str
        Technique identifiers, empty where the evidence carries none.
    """
    found = []
    service, port = flow.service, flow.dst_port
    offered = {*flow.tls_alpn, flow.tls_server_alpn}
    if service in TLS_SERVICES:
        found.append(ASYMMETRIC_CHANNEL)
    if service == "http" or offered & HTTP_ALPN:
        found.append(WEB_PROTOCOL)
    if (
        service in REGISTERED_PORTS
        and port not in REGISTERED_PORTS[service]
        and not (service == "tls" and port in UPGRADED_PORTS)
    ):
        found.append(NON_STANDARD_PORT)
    up, down = flow.fwd_payload_bytes, flow.bwd_payload_bytes
    if up >= EXFILTRATION_BYTES and up >= EXFILTRATION_RATIO * down:
        found.append(EXFILTRATION)
    return found
