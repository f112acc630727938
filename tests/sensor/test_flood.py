"""A scan that would fill any table: what is lost is counted, and an infection in it is told."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from tests.sensor.field import drop, lines, running, status, until, write_config
from veilwatch.store import Store
from veilwatch.traffic.capture import PcapngWriter

pytestmark = pytest.mark.slow

FLOWS = 20_000
HOSTS = 40
MAX_FLOWS = 2_000
BURST = 20
NS = 10**9


def scan(path: Path) -> None:
    """Write a SYN to each of many destinations, ten thousand a second."""
    start = 1_790_000_000 * NS
    with PcapngWriter(path, link=101) as writer:
        for k in range(FLOWS):
            source, target = 10 << 24 | k % HOSTS + 1, 198 << 24 | 18 << 16 | k
            ip = struct.pack(">BBHHHBBHII", 0x45, 0, 40, k & 0xFFFF, 0, 64, 6, 0, source, target)
            tcp = struct.pack(">HHIIBBHHH", 40_000 + k % 20_000, 445, k, 0, 0x50, 2, 8192, 0, 0)
            writer.write(start + k * 100_000, ip + tcp)


def test_a_scan_costs_neither_memory_nor_silence(place: Path) -> None:
    scan(place / "scan.pcapng")
    config = write_config(
        place,
        source=f'folder = "{place / "drop"}"\nquiet_s = 1.0',
        sinks=[f"jsonl+file://{place / 'out'}"],
        flow=f"idle_timeout_s = 1.0\nmax_flows = {MAX_FLOWS}",
        alerts=f"burst = {BURST}\nper_hour = 1.0\nsummary_s = 5.0",
    )

    def child(name: str) -> dict[str, Any]:
        found: dict[str, Any] = status(place)["children"][name]
        return found

    def dropped() -> int:
        return int(child("ingest-0")["dropped"].get("ended", 0))

    with running(config):
        until(lambda: status(place).get("healthy"))
        before = child("judge")["rss"]
        drop(place / "scan.pcapng", place / "drop", "one.pcapng")
        until(lambda: child("ingest-0").get("packets") == FLOWS, 180)
        until(lambda: child("ingest-0").get("rows_ended") == FLOWS, 180)
        until(lambda: child("judge")["ended_rows"] + dropped() == FLOWS, 180)
        judge, ingest = child("judge"), child("ingest-0")
        assert judge["rss"] < before + 500e6 and ingest["rss"] < 1e9
        assert ingest["live_flows"] == 0 and ingest["decoded"] == FLOWS
        # An infection among it is told of all the same.
        drop(place / "corpus" / "malicious" / "5.pcapng", place / "drop", "two.pcapng")
        until(lambda: any(e["alert"]["host"].startswith("10.0.5.") for e in events(place)), 120)
    fates = child("judge")["fate"]
    assert sum(fates.values()) == sum(child("judge")["alerts"].values())
    with Store(str(place / "state" / "veilwatch.db"), create=False) as store:
        kept = {item.event.event_id for item in store.events()}
    assert {event["event_id"] for event in events(place)} == kept


def events(place: Path) -> list[dict[str, Any]]:
    return lines(place / "out")
