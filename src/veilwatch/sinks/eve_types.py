"""The EVE JSON events that Veilwatch writes, as types.

Field names and forms follow Suricata's EVE JSON, so that whatever reads Suricata reads these
lines; only the fields that a flow can fill are here. `schema_text` gives the JSON schema that
is shipped beside this file.
"""

from __future__ import annotations

import json
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

FLOW_ID_LIMIT: Final = 2**53
"""First `flow_id` that a reader with IEEE 754 numbers (JavaScript, jq) would round."""

Timestamp = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+0[08]00$")]
"""Microseconds and a zone without a colon: readers of EVE take no other form. UTC, or the +0800 in
which SecBuzzer ESM keeps its times."""

Port = Annotated[int, Field(ge=0, le=65535)]
Octet = Annotated[int, Field(ge=0, le=255)]
Count = Annotated[int, Field(ge=0)]


class EveModel(BaseModel):
    """A part of an event: no field that is not named here, nothing changed after making."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Alert(EveModel):
    """What was found."""

    action: Literal["allowed"] = "allowed"  # a passive sensor blocks nothing
    gid: int
    signature_id: int
    rev: int
    signature: str
    category: str
    severity: Annotated[int, Field(ge=1, le=3)]
    metadata: dict[str, Annotated[list[str], Field(min_length=1)]]


class Flow(EveModel):
    """Counters of the flow; bytes are sums of IP lengths."""

    pkts_toserver: Count
    pkts_toclient: Count
    bytes_toserver: Count
    bytes_toclient: Count
    start: Timestamp


class Hash(EveModel):
    """MD5 of a JA3 or JA3S string."""

    hash: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]


class Tls(EveModel):
    """What the TLS handshake said in clear."""

    sni: str | None = None
    version: str | None = None
    subject: str | None = None
    issuerdn: str | None = None
    ja3: Hash | None = None
    ja3s: Hash | None = None
    ja4: str | None = None


class Quic(EveModel):
    """What the handshake inside QUIC Initial packets said."""

    version: str | None = None
    sni: str | None = None
    ja3: Hash | None = None
    ja4: str | None = None


class Tunnel(EveModel):
    """Outer end points of the GTP-U tunnel, in the direction of the flow's first packet."""

    src_ip: str
    dest_ip: str
    proto: Literal["GTP-U"] = "GTP-U"
    depth: Annotated[int, Field(ge=1)]


class Event(EveModel):
    """One line."""

    timestamp: Timestamp
    flow_id: Annotated[int, Field(ge=0, lt=FLOW_ID_LIMIT)]
    event_type: Literal["alert"] = "alert"
    host: str | None = None
    in_iface: str | None = None
    src_ip: str
    src_port: Port | None = None
    dest_ip: str
    dest_port: Port | None = None
    proto: str
    ip_v: Literal[4, 6]
    icmp_type: Octet | None = None
    icmp_code: Octet | None = None
    app_proto: str | None = None
    capture_file: str | None = None
    tunnel: Tunnel | None = None
    alert: Alert
    tls: Tls | None = None
    quic: Quic | None = None
    flow: Flow | None = None


def schema_text() -> str:
    """Return the JSON schema of `Event`, as shipped in `eve.schema.json`."""
    return json.dumps(Event.model_json_schema(), indent=2) + "\n"
