"""Incidents as STIX 2.1 bundles, a file for each state: what threat-intelligence platforms read.

Events that belong to no incident are passed over: a single flow is not yet worth sharing.
Ids follow from what an object says (random-looking, yet the same each time), so that a platform
which reads two bundles of one incident sees versions of one object.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Final
from uuid import UUID, uuid5

from veilwatch.detection.alerting import attack
from veilwatch.errors import OutputError, VeilwatchError
from veilwatch.export.clean import Json, JsonObject, compact_json
from veilwatch.files import replacing
from veilwatch.schema.events import Event, Incident
from veilwatch.schema.names import protocol_name
from veilwatch.schema.scores import UNKNOWN_FAMILY
from veilwatch.schema.units import DAY_S
from veilwatch.sinks.address import Address
from veilwatch.sinks.base import DeliveryLog, EncodedEvent, Sink
from veilwatch.sinks.eve import MAX_NAME, MAX_REASON, SIGNATURES, utc_timestamp

KEEP_DAYS: Final = 90
"""Days for which bundles are kept unless the URL says otherwise."""

OBSERVABLE_NAMESPACE: Final = UUID("00abedb4-aa42-466c-9c01-fed23315a9b7")
"""That of STIX 2.1, section 2.9, for ids of observables."""

NAMESPACE: Final = UUID("9f0d2c37-3f9a-5c0e-8a5e-5a1c6f1b7e21")
"""Ours, for ids of everything else."""

_DOMAIN: Final = re.compile(r"(?=.{4,253}$)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?\.)+[a-z]{2,63}")
_OBSERVABLES: Final = frozenset({"ipv4-addr", "ipv6-addr", "domain-name", "network-traffic"})


class StixFile(Sink):
    """`stix+file:///folder`."""

    PARAMETERS: ClassVar[Mapping[str, str]] = {"keep-days": "days after which bundles are deleted"}

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        if address.host or not address.path.startswith("/"):
            raise VeilwatchError(
                "a folder's URL has three slashes and an absolute path",
                where=address.shown,
                hint="stix+file:///var/lib/veilwatch/stix",
            )
        self.folder = Path(address.path)
        self._keep = address.number("keep-days", KEEP_DAYS, 1, 3650)

    def encode(self, event: Event) -> bytes:
        """Return the bundle, nothing where the event belongs to no incident."""
        return b"" if event.incident is None else compact_json(bundle(event, event.incident))

    def deliver(self, encoded: Sequence[EncodedEvent], log: DeliveryLog) -> None:
        """Write a file for each."""
        self.folder.mkdir(exist_ok=True)  # one folder: a path that is wrong higher up shows
        for item in encoded:
            event = item.event
            if item.body:
                name = re.sub(r"[^0-9A-Za-z]", "", event.event_id)[:64]
                try:
                    with replacing(self.folder / f"incident-{name}.json") as stream:
                        stream.write(item.body)
                except OutputError as error:
                    log.again(event.event_id, str(error))
                    return
            log.delivered(event.event_id)
        self._delete_old()

    def _delete_old(self) -> None:
        oldest = time.time() - DAY_S * self._keep
        for path in self.folder.glob("incident-*.json"):
            with suppress(OSError):  # deleted by another, or next time
                if path.stat().st_mtime < oldest:
                    path.unlink()


def bundle(event: Event, incident: Incident) -> JsonObject:
    """Return the bundle of one state of an incident."""
    alert = event.alert
    created = utc_timestamp(incident.opened_ns)
    modified = utc_timestamp(max(event.made_ns, incident.opened_ns))
    sensor = event.sensor[:MAX_NAME] or "Veilwatch"
    author = _object(
        "identity", sensor, utc_timestamp(0), utc_timestamp(0), name=sensor, identity_class="system"
    )
    by = {"created_by_ref": author["id"]}

    def made(kind: str, key: str, **fields: Json) -> JsonObject:
        return _object(kind, key, created, modified, **by, **fields)

    observables = _observables(event)
    key = incident.incident_id
    observed = made(
        "observed-data",
        key,
        first_observed=utc_timestamp(alert.first_ns),
        last_observed=utc_timestamp(max(alert.last_ns, alert.first_ns)),
        number_observed=min(max(incident.alerts, 1), 999_999_999),
        object_refs=[item["id"] for item in observables],
    )
    signature = SIGNATURES["incident", incident.emulated][1]
    main = made(
        "incident",
        key,
        name=f"{signature} {incident.host}"[:MAX_NAME],
        description=_description(event, incident),
        confidence=min(max(round(100 * incident.score), 0), 100),
    )
    objects = [author, main, observed, *observables]
    objects.append(
        made(
            "relationship",
            f"{key} observed",
            relationship_type="related-to",
            source_ref=main["id"],
            target_ref=observed["id"],
        )
    )
    for technique in attack.of_alert(event.alert, event.flow):
        pattern = _object(
            "attack-pattern",
            technique,
            utc_timestamp(0),
            utc_timestamp(0),
            name=technique,
            external_references=[{"source_name": "mitre-attack", "external_id": technique}],
        )
        link = made(
            "relationship",
            f"{key} {technique}",
            relationship_type="related-to",
            source_ref=main["id"],
            target_ref=pattern["id"],
        )
        objects += [pattern, link]
    if incident.family and incident.family != UNKNOWN_FAMILY:
        family = incident.family[:MAX_NAME]
        malware = _object(
            "malware", family, utc_timestamp(0), utc_timestamp(0), name=family, is_family=True
        )
        sighting = made(
            "sighting",
            f"{key} {family}",
            sighting_of_ref=malware["id"],
            observed_data_refs=[observed["id"]],
            where_sighted_refs=[author["id"]],
            first_seen=created,
            last_seen=utc_timestamp(max(incident.last_ns, incident.opened_ns)),
            count=min(max(incident.alerts, 1), 999_999_999),
        )
        objects += [malware, sighting]
    if incident.timeline:
        lines = [
            f"{utc_timestamp(step.at_ns)} {step.text[:MAX_REASON]}" for step in incident.timeline
        ]
        objects.append(made("note", key, content="\n".join(lines), object_refs=[main["id"]]))
    return {
        "type": "bundle",
        "id": f"bundle--{uuid5(NAMESPACE, event.event_id)}",
        "objects": objects,
    }


def _object(kind: str, key: str, created: str, modified: str, **fields: Json) -> JsonObject:
    return {
        "type": kind,
        "spec_version": "2.1",
        "id": f"{kind}--{uuid5(NAMESPACE, f'{kind} {key}')}",
        "created": created,
        "modified": modified,
        **fields,
    }


def _observables(event: Event) -> list[JsonObject]:
    alert = event.alert
    source, target = _address(alert.src_ip), _address(alert.dst_ip)
    protocols = ["ipv6" if ":" in alert.src_ip else "ipv4"]
    protocols.append(protocol_name(alert.protocol).lower())
    if alert.service:
        protocols.append(alert.service[:MAX_NAME])
    traffic: JsonObject = {
        "start": utc_timestamp(alert.first_ns),
        "end": utc_timestamp(max(alert.last_ns, alert.first_ns)),
        "src_ref": source["id"],
        "dst_ref": target["id"],
        "src_port": alert.src_port,
        "dst_port": alert.dst_port,
        "protocols": protocols,
    }
    found = [source, target, _observable("network-traffic", **traffic)]
    name = alert.application.lower()
    if _DOMAIN.fullmatch(name):
        found.append(_observable("domain-name", value=name))
    return list({item["id"]: item for item in found}.values())


def _address(text: str) -> JsonObject:
    return _observable("ipv6-addr" if ":" in text else "ipv4-addr", value=text)


def _observable(kind: str, **fields: Json) -> JsonObject:
    assert kind in _OBSERVABLES
    # RFC 8785 of the fields that make the id; ours are text, small numbers and lists of text.
    canonical = json.dumps(fields, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    name = f"{kind}--{uuid5(OBSERVABLE_NAMESPACE, canonical)}"
    return {"type": kind, "spec_version": "2.1", "id": name, **fields}


def _description(event: Event, incident: Incident) -> str:
    words = [
        f"Severity {incident.severity}, {incident.status}, {incident.alerts} alerts, "
        f"score {incident.score:.4f}."
    ]
    if incident.emulated:
        words.append("The traffic was emulated: no malware was there.")
    if event.alert.thin:
        words.append("Behind the latest alert there is little evidence.")
    words += [reason.text[:MAX_REASON] for reason in event.alert.reasons[:3]]
    return "\n".join(words)
