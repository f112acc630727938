"""Elasticsearch and OpenSearch, with the fields of the Elastic Common Schema (ECS)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar, Final

from veilwatch import __version__
from veilwatch.detection.alerting import attack
from veilwatch.errors import VeilwatchError
from veilwatch.export.clean import JsonObject
from veilwatch.schema.events import Event
from veilwatch.schema.flow_facts import FlowFacts
from veilwatch.schema.flows import TLS_SERVICES
from veilwatch.schema.names import protocol_name
from veilwatch.sinks.address import Address
from veilwatch.sinks.bulk import BulkSink, action
from veilwatch.sinks.eve import (
    MAX_NAME,
    MAX_PLACE,
    MAX_REASON,
    MAX_REASONS,
    SIGNATURES,
    event_time_ns,
    timestamp,
    utc_timestamp,
)
from veilwatch.sinks.http import PARAMETERS

DEFAULT_INDEX: Final = "veilwatch-alerts"
"""Begins the name of each month's index."""

ECS_VERSION: Final = "8.11"

_SEVERITY: Final = {1: 73, 2: 47, 3: 21}  # as Elastic's own rules rate high, medium and low
_INDEX: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,199}")


class Elastic(BulkSink):
    """`elastic+http://host:9200/index`; the month follows the index's name."""

    PARAMETERS: ClassVar[Mapping[str, str]] = dict(PARAMETERS) | {
        "api-key-file": "file with an API key, instead of user and password"
    }
    PORT: ClassVar[int] = 9200

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        prefix, _, index = address.path.rstrip("/").rpartition("/")
        self.prefix, self.index = prefix, index or DEFAULT_INDEX
        if not _INDEX.fullmatch(self.index):
            raise VeilwatchError(
                f"{self.index[:40]!r} is no name of an index",
                where=address.shown,
                hint="lower-case letters, digits, - _ and .",
            )

    def encode(self, event: Event) -> bytes:
        """Return the two lines of a bulk."""
        return action(self.index_of(event), event.event_id, document(event))

    def index_of(self, event: Event) -> str:
        """Return the index of the event's month."""
        return f"{self.index}-{timestamp(event_time_ns(event))[:7]}"


def document(event: Event) -> JsonObject:
    """Return an event with ECS fields; what ECS has no name for is under `veilwatch`."""
    alert, flow = event.alert, event.flow
    number, signature = SIGNATURES[event.kind.value, alert.emulated]
    techniques = attack.of_alert(alert, flow)
    return {
        "@timestamp": utc_timestamp(event_time_ns(event)),
        "ecs": {"version": ECS_VERSION},
        "message": signature + (f": {alert.reasons[0].text[:MAX_REASON]}" if alert.reasons else ""),
        "event": {
            "id": event.event_id,
            "kind": "event" if event.kind.value == "test" else "alert",
            "category": ["malware", "network"],
            "type": ["info"],
            "action": event.kind.value,
            "dataset": "veilwatch.alert",
            "module": "veilwatch",
            "created": utc_timestamp(event.made_ns),
            "start": utc_timestamp(alert.first_ns),
            "end": utc_timestamp(alert.last_ns),
            "severity": _SEVERITY[alert.severity],
            "risk_score": round(100 * alert.score, 2),
        },
        "rule": {"id": str(number), "name": signature},
        "observer": {
            "name": event.sensor[:MAX_PLACE],
            "product": "Veilwatch",
            "type": "ids",
            "version": __version__,
            "ingress": {"interface": {"name": event.interface[:MAX_PLACE]}},
        },
        "host": {"ip": [alert.host]},
        "source": _end(alert.src_ip, alert.src_port)
        | ({} if flow is None else {"bytes": flow.fwd_bytes, "packets": flow.fwd_packets}),
        "destination": _end(alert.dst_ip, alert.dst_port)
        | ({} if flow is None else {"bytes": flow.bwd_bytes, "packets": flow.bwd_packets})
        | ({"domain": alert.application[:MAX_NAME]} if alert.application else {}),
        "network": {
            "transport": protocol_name(alert.protocol).lower(),
            "iana_number": str(alert.protocol),
            "type": "ipv6" if ":" in alert.src_ip else "ipv4",
        }
        | ({"protocol": alert.service[:MAX_NAME]} if alert.service else {}),
        "threat": {"framework": "MITRE ATT&CK", "technique": {"id": techniques}}
        if techniques
        else None,
        "tls": _tls(flow),
        "veilwatch": {
            "flow_id": str(alert.flow_id),
            "score": alert.score,
            "threshold": alert.threshold,
            "family": alert.family[:MAX_NAME],
            "subscriber": alert.subscriber[:MAX_NAME],
            "emulated": alert.emulated,
            "little_evidence": alert.thin,
            "reasons": [reason.text[:MAX_REASON] for reason in alert.reasons[:MAX_REASONS]],
            "teid": [t for t in (alert.tunnel.fwd_teid, alert.tunnel.bwd_teid) if t]
            if alert.tunnel
            else [],
            "incident": event.incident.incident_id[:MAX_PLACE] if event.incident else None,
            "incident_status": event.incident.status[:MAX_PLACE] if event.incident else None,
        },
    }


def _end(ip: str, port: int) -> dict[str, str | int]:
    return {"ip": ip, "address": ip, "port": port}


def _tls(flow: FlowFacts | None) -> dict[str, dict[str, str]] | None:
    if flow is None or flow.service not in TLS_SERVICES:
        return None
    return {
        "client": {"server_name": flow.tls_sni[:MAX_NAME], "ja3": flow.ja3},
        "server": {"ja3s": flow.ja3s},
    }
