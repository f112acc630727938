"""Sinks that write files: whole lines, whatever happens to the disk; bundles that hold."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.known import known
from tests.sinks import receivers as r
from tests.sinks.events import HOSTILE, make, many
from veilwatch.schema.events import EventKind
from veilwatch.sinks.base import open_sink
from veilwatch.sinks.stix import bundle
from veilwatch.sinks.wire import MAX_ITEMS, MAX_TEXT


def test_one_file_may_be_renamed_at_any_time(tmp_path: Path) -> None:
    path = tmp_path / "eve.json"
    with open_sink(f"eve+file://{path}") as sink:
        sink.send(many(2))
        path.rename(tmp_path / "eve.json.1")
        sink.send(many(3, 2))
    assert len((tmp_path / "eve.json.1").read_bytes().splitlines()) == 2
    assert len(path.read_bytes().splitlines()) == 3
    assert path.stat().st_mode & 0o777 == 0o644 & ~_umask()


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def test_a_line_that_a_power_failure_cut_does_not_spoil_the_next(tmp_path: Path) -> None:
    path = tmp_path / "eve.json"
    path.write_bytes(b'{"half":')
    open_sink(f"eve+file://{path}").send(many(1))
    first, second = path.read_bytes().splitlines()
    assert first == b'{"half":' and r.strict_json(second)


def test_a_disk_that_fills_keeps_whole_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, room = tmp_path / "eve.json", [10_000]
    write = os.write

    def limited(handle: int, data: bytes) -> int:
        size = min(len(data), room[0])
        room[0] -= size
        return write(handle, data[:size])

    monkeypatch.setattr(os, "write", limited)
    events = many(10)
    with open_sink(f"eve+file://{path}") as sink:
        receipt = sink.send(events)
        assert receipt.delivered and receipt.again
        assert "no room" in receipt.again[0].reason and not receipt.again[0].unsure
        room[0] = 10**9
        missing = [e for e in events if e.event_id not in receipt.delivered]
        assert len(sink.send(missing).delivered) == len(missing)
    found = [r.strict_json(line) for line in path.read_bytes().splitlines()]
    assert [f["alert"]["metadata"]["event_id"][0] for f in found] == [e.event_id for e in events]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_device_is_told(tmp_path: Path) -> None:
    path = tmp_path / "eve.json"
    path.symlink_to("/dev/full")
    receipt = open_sink(f"eve+file://{path}").send(many(1))
    assert receipt.again and not receipt.delivered


def test_json_lines_hold_everything_within_bounds(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    event = make(1)
    open_sink(f"jsonl+file://{path}").send([event, make(2, name=HOSTILE["astral"])])
    first, second = path.read_bytes().splitlines()
    document = r.strict_json(first)
    assert document["alert"]["score"] == event.alert.score
    assert document["incident"]["incident_id"] == known(event.incident).incident_id
    assert document["flow"]["tls_sni"] == known(event.flow).tls_sni
    assert len(second) < 1_000_000
    assert len(r.strict_json(second)["alert"]["family"]) == MAX_TEXT and MAX_ITEMS >= 40


# ── STIX ──────────────────────────────────────────────────────────────────────────────────────

COMMON = {"type", "spec_version", "id", "created", "modified"}
REQUIRED = {
    "identity": COMMON | {"name"},
    "incident": COMMON | {"name", "created_by_ref"},
    "observed-data": COMMON | {"first_observed", "last_observed", "number_observed", "object_refs"},
    "attack-pattern": COMMON | {"name", "external_references"},
    "malware": COMMON | {"name", "is_family"},
    "note": COMMON | {"content", "object_refs"},
    "relationship": COMMON | {"relationship_type", "source_ref", "target_ref"},
    "sighting": COMMON | {"sighting_of_ref", "first_seen", "last_seen", "count"},
    "ipv4-addr": {"type", "spec_version", "id", "value"},
    "ipv6-addr": {"type", "spec_version", "id", "value"},
    "domain-name": {"type", "spec_version", "id", "value"},
    "network-traffic": {"type", "spec_version", "id", "protocols", "src_ref", "dst_ref"},
}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


def valid(document: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Check a bundle against the invariants of STIX 2.1; return its objects by type."""
    assert set(document) == {"type", "id", "objects"} and document["type"] == "bundle"
    objects: dict[str, dict[str, Any]] = {}
    for item in (document, *document["objects"]):
        kind, _, number = item["id"].partition("--")
        assert kind == item["type"] and str(UUID(number)) == number
        assert UUID(number).version == 5
    by_type: dict[str, list[dict[str, Any]]] = {}
    for item in document["objects"]:
        assert item["id"] not in objects, "one object twice"
        objects[item["id"]] = item
        by_type.setdefault(item["type"], []).append(item)
        assert set(item) >= REQUIRED[item["type"]], item
        assert item["spec_version"] == "2.1"
        assert not any(name.startswith("x_") for name in item)
        for name in ("created", "modified", "first_observed", "last_observed", "first_seen"):
            assert name not in item or TIME.fullmatch(item[name])
        for first, second in (
            ("created", "modified"),
            ("first_observed", "last_observed"),
            ("first_seen", "last_seen"),
            ("start", "end"),
        ):
            assert first not in item or item[first] <= item[second]
        assert 0 <= item.get("confidence", 0) <= 100
        assert all(item[name] not in ("", [], None) for name in item)
    for item in document["objects"]:
        for name, value in item.items():
            for target in [value] if name.endswith("_ref") else value if "_refs" in name else []:
                assert target in objects, f"{name} leads nowhere"
    return by_type


@pytest.mark.parametrize("name", ["", *HOSTILE])
def test_bundles_keep_to_stix(name: str, tmp_path: Path) -> None:
    event = make(4, name=HOSTILE.get(name, ""))
    assert open_sink(f"stix+file://{tmp_path}").send([event]).delivered
    (path,) = tmp_path.iterdir()
    found = valid(r.strict_json(path.read_bytes()))
    assert len(found["incident"]) == 1 and len(found["observed-data"]) == 1
    assert ("malware" in found) is bool(event.incident and event.incident.family)


def test_states_of_one_incident_are_versions_of_one_object() -> None:
    event = make(4)
    assert event.incident is not None
    later = replace(event, event_id="f" * 32, made_ns=event.made_ns + 10**9)
    closed = replace(event.incident, status="closed", emulated=True)
    first, second = valid(bundle(event, event.incident)), valid(bundle(later, closed))
    (a,), (b,) = first["incident"], second["incident"]
    assert a["id"] == b["id"] and a["created"] == b["created"] and a["modified"] < b["modified"]
    assert "emulated" in b["description"]


def test_known_ids_of_observables() -> None:
    # What other implementations of STIX 2.1, section 2.9, compute.
    event = make(4)
    alert = replace(event.alert, src_ip="198.51.100.3", dst_ip="2001:db8::1", application="")
    assert event.incident is not None
    found = valid(bundle(replace(event, alert=alert), event.incident))
    assert found["ipv4-addr"][0]["id"] == "ipv4-addr--28bb3599-77cd-5a82-a950-b5bc3caf07c4"
    assert found["ipv6-addr"][0]["id"] == "ipv6-addr--6469e3a9-b053-5e34-a025-9396ae051d26"


def test_events_without_an_incident_are_passed_over_and_old_bundles_deleted(
    tmp_path: Path,
) -> None:
    with open_sink(f"stix+file://{tmp_path}?keep-days=2") as sink:
        event = replace(make(1, EventKind.FLOW), incident=None)
        assert sink.send([event]).delivered == (event.event_id,)
        assert not list(tmp_path.iterdir())
        sink.send(many(2))
        old = sorted(tmp_path.iterdir())[0]
        os.utime(old, (0, time.time() - 3 * 86_400))
        (tmp_path / "other.json").write_text("")
        os.utime(tmp_path / "other.json", (0, 0))
        sink.send(many(1, 5))
    names = {path.name for path in tmp_path.iterdir()}
    assert old.name not in names and "other.json" in names and len(names) == 3
