"""EVE lines: every one valid, below the size that readers take, hostile names harmless."""

from __future__ import annotations

import dataclasses
import json
import re
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from tests.report import factory
from tests.sinks.events import make
from veilwatch.errors import OutputError
from veilwatch.schema.alerts import Alert
from veilwatch.schema.flow_facts import FlowFacts, flow_facts_by_id
from veilwatch.schema.scores import Reason
from veilwatch.sinks import elastic, esm_elastic, eve, stix
from veilwatch.sinks.cef import cef
from veilwatch.sinks.eve_types import Event, schema_text
from veilwatch.sinks.wire import from_bytes, public_json, to_bytes


@pytest.fixture(scope="module")
def hostile() -> factory.Scene:
    return factory.scene(hostile=True)


def flow_of(scene: factory.Scene, alert: Alert) -> FlowFacts:
    return flow_facts_by_id(scene.scores.flows, [alert.flow_id])[alert.flow_id]


def written(path: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in path.read_bytes().decode("ascii").splitlines()]


def test_one_valid_line_for_each_alert(hostile: factory.Scene, tmp_path: Path) -> None:
    path = tmp_path / "eve.json"
    eve.write_alerts(path, hostile.alerts, hostile.scores.flows)
    lines = path.read_bytes().split(b"\n")
    assert lines.pop() == b"" and len(lines) == len(hostile.alerts)
    for text, alert in zip(lines, hostile.alerts, strict=True):
        event = Event.model_validate_json(text)
        assert event.flow_id == alert.flow_id
        assert event.src_ip == alert.src_ip and event.dest_port == alert.dst_port


def test_the_shipped_schema_is_the_one_of_the_types() -> None:
    assert (files("veilwatch.sinks") / "eve.schema.json").read_text() == schema_text()


def test_names_survive_unchanged(hostile: factory.Scene, tmp_path: Path) -> None:
    path = tmp_path / "eve.json"
    eve.write_alerts(path, hostile.alerts, hostile.scores.flows)
    found = {event.get("tls", {}).get("sni") for event in written(path)}
    assert {name[: eve.MAX_NAME] for name in factory.HOSTILE_NAMES} <= found


@pytest.mark.parametrize("ns", [0, 1, 999, 1_780_303_200_123_456_789, 4_102_444_800 * 10**9 - 1])
def test_timestamp_is_exact_to_the_microsecond(ns: int) -> None:
    text = eve.timestamp(ns)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+0000", text)
    back = datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%f%z") - datetime(1970, 1, 1, tzinfo=UTC)
    assert (back.days * 86400 + back.seconds) * 10**6 + back.microseconds == ns // 1000


def test_a_line_too_long_loses_its_weakest_reasons_and_says_so() -> None:
    scene = factory.scene(infected_hosts=1)
    reasons = tuple(Reason(f"f{i}", 1.0, 9.0 - i, f"reason {i} " + "\U0001f980" * 900)
                    for i in range(12))  # fmt: skip
    alert = dataclasses.replace(
        scene.alerts[0],
        reasons=reasons,
        application="\U0001f980" * 9000,
        family="\U0001f980" * 9000,
        subscriber="\U0001f980" * 9000,
        service="\U0001f980" * 9000,
        capture="\U0001f980" * 90000,
    )
    flow = dataclasses.replace(
        flow_of(scene, alert),
        tls_sni="\U0001f980" * 9000,
        cert_subject="\U0001f980" * 9000,
        cert_issuer="\U0001f980" * 9000,
    )
    text = eve.line(alert, flow)
    assert len(text) < 32_000
    metadata = json.loads(text)["alert"]["metadata"]
    assert metadata["shortened"] == ["reasons"]
    kept = metadata.get("reasons", [])
    assert [reason.split()[1] for reason in kept] == [str(i) for i in range(len(kept))]

    short = eve.line(dataclasses.replace(alert, reasons=reasons[:1], capture=""), flow)
    assert "shortened" not in json.loads(short)["alert"]["metadata"]


@pytest.mark.parametrize("thin", [True, False])
def test_little_evidence_is_told_in_every_form(thin: bool) -> None:
    event = make()
    event = dataclasses.replace(event, alert=dataclasses.replace(event.alert, thin=thin))
    metadata = json.loads(eve.event_text(event))["alert"]["metadata"]
    assert metadata.get("little_evidence") == (["true"] if thin else None)
    assert ("cs6=little cs6Label=evidence" in cef(event).decode()) is thin
    assert ("cs6" in cef(event).decode()) is thin
    document: dict[str, Any] = {**elastic.document(event)}
    assert document["veilwatch"]["little_evidence"] is thin
    of_esm: dict[str, Any] = {**esm_elastic.document(event)}
    assert ("little evidence" in of_esm["pred_info"]) is thin
    assert event.incident is not None
    bundle = json.dumps(stix.bundle(event, event.incident))
    assert ("little evidence" in bundle) is thin
    assert json.loads(public_json(event))["alert"]["thin"] is thin
    assert from_bytes(to_bytes(event)).alert.thin is thin


def test_emulated_traffic_says_so_twice() -> None:
    for emulated in (True, False):
        scene = factory.scene(infected_hosts=1, emulated=emulated)
        for alert in scene.alerts:
            event = json.loads(eve.line(alert, flow_of(scene, alert)))
            assert ("EMULATED" in event["alert"]["signature"]) is emulated
            assert (event["alert"]["metadata"].get("traffic") == ["emulated"]) is emulated


def test_signature_ids_avoid_those_in_use() -> None:
    numbers = [number for number, _ in eve.SIGNATURES.values()]
    taken = {66778899, 20310001, *range(20110000, 20110005), *range(20130000, 20130011)}
    assert len(set(numbers)) == len(numbers) and not taken & set(numbers)
    assert not any(text.startswith("DTM") for _, text in eve.SIGNATURES.values())


def test_tunnel_and_its_identifiers() -> None:
    scene = factory.scene(infected_hosts=1)
    alert = next(a for a in scene.alerts if a.kind == "flow")
    flow = flow_of(scene, alert)
    event = json.loads(eve.line(alert, flow))
    assert event["tunnel"] == {
        "src_ip": flow.outer_src_ip,
        "dest_ip": "192.0.2.100",
        "proto": "GTP-U",
        "depth": 1,
    }
    assert event["alert"]["metadata"]["teid"] == [
        f"0x{flow.fwd_teid:08x}",
        f"0x{flow.bwd_teid:08x}",
    ]
    assert event["flow"]["bytes_toserver"] == flow.fwd_bytes
    outside = json.loads(eve.line(dataclasses.replace(alert, tunnel=None), flow))
    assert "tunnel" not in outside and "teid" not in outside["alert"]["metadata"]


def test_icmp_has_a_type_instead_of_ports() -> None:
    scene = factory.scene(infected_hosts=1)
    alert = dataclasses.replace(scene.alerts[-1], protocol=1, service="", application="")
    flow = flow_of(scene, alert)
    event = json.loads(
        eve.line(alert, dataclasses.replace(flow, icmp_type=8, service="", tls_sni="",
                                            tls_version=0, ja3="", ja4=""))
    )  # fmt: skip
    assert event["proto"] == "ICMP" and event["icmp_type"] == 8
    assert not {"src_port", "dest_port", "tls", "app_proto"} & event.keys()


def test_quic_handshakes_go_under_quic() -> None:
    scene = factory.scene(infected_hosts=1)
    flow = flow_of(scene, scene.alerts[-1])
    event = json.loads(
        eve.line(
            scene.alerts[-1],
            dataclasses.replace(flow, service="quic", quic_version=1, tls_sni="q"),
        )
    )
    assert event["quic"]["version"] == "0x00000001" and event["quic"]["sni"] == "q"
    assert "tls" not in event


def test_a_host_alert_says_how_sure_its_family_is() -> None:
    scene = factory.scene()
    host = next(alert for alert in scene.alerts if alert.kind == "host")
    flow = flow_of(scene, host)
    metadata = eve.event(host, flow).alert.metadata
    assert metadata["malware_family"] == [host.family]
    assert metadata["family_probability"] == ["0.750"]
    unasked = dataclasses.replace(host, family="", family_probability=0.0)
    metadata = eve.event(unasked, flow).alert.metadata
    assert not {"malware_family", "family_probability"} & metadata.keys()


def test_ransomware_context_only_for_named_families(tmp_path: Path) -> None:
    scene = factory.scene()
    alerts = [
        dataclasses.replace(alert, ransomware=alert.family == "Conti-like")
        for alert in scene.alerts
    ]
    eve.write_alerts(tmp_path / "e", alerts, scene.scores.flows)
    seen = set()
    for event in written(tmp_path / "e"):
        metadata = event["alert"]["metadata"]
        is_conti = metadata["malware_family"] == ["Conti-like"]
        assert ("T1486" in metadata["mitre_technique_id"]) is is_conti
        seen.add(is_conti)
    assert seen == {True, False}


def test_an_alert_without_its_flow_leaves_the_old_file(tmp_path: Path) -> None:
    scene = factory.scene(infected_hosts=1)
    path = tmp_path / "eve.json"
    path.write_text("old")
    with pytest.raises(OutputError, match="unknown"):
        eve.write_alerts(path, scene.alerts, scene.scores.flows.head(1))
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["eve.json"]


def test_no_alerts_make_an_empty_file(tmp_path: Path) -> None:
    scene = factory.empty_scene()
    eve.write_alerts(tmp_path / "eve.json", [], scene.scores.flows)
    assert (tmp_path / "eve.json").read_bytes() == b""
