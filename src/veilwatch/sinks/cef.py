"""Events in the Common Event Format, which most SIEMs read from syslog."""

from __future__ import annotations

from typing import Final

from veilwatch import __version__
from veilwatch.detection.alerting import attack
from veilwatch.schema.events import Event
from veilwatch.schema.names import protocol_name
from veilwatch.schema.text import one_line
from veilwatch.sinks.eve import MAX_NAME, MAX_PLACE, SIGNATURES, event_time_ns

MAX_MESSAGE: Final = 500
"""Characters of the reasons together: the form keeps 1023 of `msg`, and bytes count fourfold."""

_SEVERITY: Final = {1: 8, 2: 5, 3: 3}


def cef(event: Event) -> bytes:
    """Return an event as one CEF line in UTF-8, without its end."""
    alert, flow, incident = event.alert, event.flow, event.incident
    number, signature = SIGNATURES[event.kind.value, alert.emulated]
    severity = 0 if event.kind.value == "test" else _SEVERITY[alert.severity]
    head = "|".join(
        ("CEF:0", "Veilwatch", "Veilwatch", _head(__version__), str(number), _head(signature))
    )
    six = ":" in alert.src_ip
    fields = {
        "externalId": event.event_id[:MAX_PLACE],
        "rt": str(event.made_ns // 10**6),
        "start": str(alert.first_ns // 10**6),
        "end": str(event_time_ns(event) // 10**6),
        "cat": event.kind.value,
        "c6a2" if six else "src": alert.src_ip,
        "c6a2Label": "Source IPv6 Address" if six else "",
        "spt": str(alert.src_port),
        "c6a3" if six else "dst": alert.dst_ip,
        "c6a3Label": "Destination IPv6 Address" if six else "",
        "dpt": str(alert.dst_port),
        "proto": protocol_name(alert.protocol),
        "app": alert.service[:MAX_NAME],
        "dhost": alert.application[:MAX_NAME],
        "out": "" if flow is None else str(flow.fwd_bytes),
        "in": "" if flow is None else str(flow.bwd_bytes),
        "dvchost": event.sensor[:MAX_PLACE],
        "deviceInboundInterface": event.interface[:MAX_PLACE],
        "cfp1": f"{alert.score:.6f}",
        "cfp1Label": "score",
        "cs1": alert.family[:MAX_NAME],
        "cs1Label": "family",
        "cs2": alert.subscriber[:MAX_NAME],
        "cs2Label": "subscriber",
        "cs3": f"{incident.incident_id[:MAX_PLACE]} {incident.status[:MAX_PLACE]}"
        if incident
        else "",
        "cs3Label": "incident",
        "cs4": " ".join(attack.of_alert(alert, flow)),
        "cs4Label": "ATT&CK",
        "cs5": "possible" if event.again else "",
        "cs5Label": "resend",
        "cs6": "little" if alert.thin else "",
        "cs6Label": "evidence",
        "msg": "; ".join(reason.text for reason in alert.reasons)[:MAX_MESSAGE],
    }
    told = {name: value for name, value in fields.items() if value}
    for name in [name for name in told if name.endswith("Label")]:
        if name.removesuffix("Label") not in told:
            del told[name]
    extension = " ".join(f"{name}={_value(value)}" for name, value in told.items())
    return f"{head}|{severity}|{extension}".encode()


def _head(text: str) -> str:
    return one_line(text).replace("\\", "\\\\").replace("|", "\\|")


def _value(text: str) -> str:
    return one_line(text).replace("\\", "\\\\").replace("=", "\\=")
