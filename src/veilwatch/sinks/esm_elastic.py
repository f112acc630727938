"""SecBuzzer ESM by its Elasticsearch 7.6, as the AI modules of V2.3 write: `eta-malware-%Y-%m`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

from veilwatch.detection.alerting import attack
from veilwatch.export.clean import JsonObject
from veilwatch.schema.events import Event
from veilwatch.schema.names import protocol_name
from veilwatch.sinks.bulk import BulkSink, action
from veilwatch.sinks.eve import (
    CATEGORY,
    GID,
    MAX_NAME,
    MAX_PLACE,
    MAX_REASON,
    MAX_REASONS,
    SIGNATURES,
    TAIPEI,
    TEST_CATEGORY,
    event_text,
    event_time_ns,
    timestamp,
    utc_timestamp,
)
from veilwatch.sinks.http import PARAMETERS

MODULE: Final = "veilwatch"

_ATTACK_PAGE: Final = "https://attack.mitre.org/techniques/"


class EsmElastic(BulkSink):
    """`secbuzzer+http://host:19200`."""

    PARAMETERS: ClassVar[Mapping[str, str]] = PARAMETERS
    PORT: ClassVar[int] = 19200  # where ESM shows its Elasticsearch

    def encode(self, event: Event) -> bytes:
        """Return the two lines of a bulk."""
        event_text(event)  # what EVE has no form for, ESM's pages have none for either
        return action(index_of(event), event.event_id, document(event))

    def index_of(self, event: Event) -> str:
        """Return the index: see the function of this name."""
        return index_of(event)


def index_of(event: Event) -> str:
    """Return the index: by the month of the event's own time in ESM's zone, so always the same."""
    return "eta-malware-" + timestamp(event_time_ns(event), TAIPEI)[:7]


def document(event: Event) -> JsonObject:
    """Return an event with the fields that ESM's pages read."""
    alert = event.alert
    time = _with_colon(timestamp(event_time_ns(event), TAIPEI))
    made = utc_timestamp(event.made_ns)
    number, signature = SIGNATURES[event.kind.value, alert.emulated]
    techniques = attack.of_alert(alert, event.flow)
    test = event.kind.value == "test"
    return {
        "flow_id": str(alert.flow_id),
        "log_time": time,
        "timestamp": time,
        "@timestamp": time,
        # When the sensor made it, not when it was sent: sent again, the document is the same.
        "ingest_timestamp": made,
        "event_type": "alert",
        "src_ip": alert.src_ip,
        "src_port": alert.src_port,
        "dest_ip": alert.dst_ip,
        "dest_port": alert.dst_port,
        "proto": protocol_name(alert.protocol).lower(),
        "in_iface": event.interface[:MAX_PLACE],
        "module": MODULE,
        "log_type": "traffic",
        "reference": f"{_ATTACK_PAGE}{techniques[0].replace('.', '/')}/" if techniques else "-",
        "dump_status": 0,
        "ticket": 0,
        "pred_info": _prediction(event),
        "user_data1": _incident(event),
        "alert": {
            "category": TEST_CATEGORY if test else CATEGORY,
            "severity": alert.severity,
            "signature": signature,
            "action": "allowed",
            "signature_id": number,
            "gid": GID,
        },
    }


def _prediction(event: Event) -> str:
    """What the model says, in words: the page shows one text."""
    alert = event.alert
    words = [f"score {alert.score:.4f} (threshold {alert.threshold:.4f})"]
    if alert.thin:
        words.append("little evidence")
    if alert.family:
        words.append(f"family {alert.family[:MAX_NAME]}")
    if alert.application:
        words.append(f"to {alert.application[:MAX_NAME]}")
    words += [reason.text[:MAX_REASON] for reason in alert.reasons[:MAX_REASONS]]
    return "; ".join(words)


def _incident(event: Event) -> str:
    words = [f"event {event.event_id[:MAX_PLACE]}"]
    if event.sensor:
        words.append(f"sensor {event.sensor[:MAX_PLACE]}")
    if event.alert.subscriber:
        words.append(f"subscriber {event.alert.subscriber[:MAX_NAME]}")
    if event.incident is not None:
        incident = event.incident
        words.append(
            f"incident {incident.incident_id[:MAX_PLACE]} {incident.status[:MAX_PLACE]}, "
            f"{incident.alerts} alerts"
        )
    return "; ".join(words)


def _with_colon(time: str) -> str:
    return f"{time[:-2]}:{time[-2:]}"
