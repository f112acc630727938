"""Two days of traffic, with memory that stays; a disk that is full, and full again."""

from __future__ import annotations

import struct
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.sensor.field import drop, lines, running, status, until, write_config
from tests.store.conftest import small_disk
from veilwatch.store import Store
from veilwatch.traffic.capture import PcapngWriter, open_captures

__all__ = ["small_disk"]

pytestmark = pytest.mark.slow

NS = 10**9
START = 1_790_000_000 * NS
HOURS = 48
HOSTS = 200
FLOWS = 3000


def hour(path: Path, number: int, infection: Path) -> None:
    """Write questions and answers of many hosts over an hour, and an infection amid them."""
    begin, rng = START + number * 3600 * NS, np.random.default_rng(number)
    packets = []
    for flow, at in enumerate(np.sort(rng.integers(0, 3600 * NS, FLOWS)).tolist()):
        host, server = 10 << 24 | 200 << 16 | flow % HOSTS + 1, 192 << 24 | 2 << 8 | flow % 50
        port, size = 20_000 + int(rng.integers(40_000)), int(rng.integers(30, 300))
        for late, (source, target, ports) in enumerate(
            ((host, server, (port, 53)), (server, host, (53, port)))
        ):
            udp = struct.pack(">HHHH", *ports, 8 + size, 0) + bytes(size)
            ip = struct.pack(
                ">BBHHHBBHII", 0x45, 0, 20 + len(udp), flow, 0, 64, 17, 0, source, target
            )
            packets.append((begin + at + late * 20_000_000, ip + udp))
    with open_captures([infection]) as stream:
        for block in stream:
            first = int(block.records["ts_ns"][0])
            for record in block.records:
                at, length = int(record["offset"]), int(record["captured"])
                content = block.buffer[at : at + length].tobytes()
                packets.append((begin + 1800 * NS + int(record["ts_ns"]) - first, content))
    with PcapngWriter(path, link=101) as writer:
        for when, packet in sorted(packets):
            writer.write(when, packet)


def child(place: Path, name: str) -> dict[str, Any]:
    return dict(status(place).get("children", {}).get(name, {}))


def test_memory_is_flat_from_one_day_to_the_next(place: Path) -> None:
    config = write_config(
        place,
        source=f'folder = "{place / "drop"}"\nquiet_s = 600.0',
        sinks=[f"jsonl+file://{place / 'out'}"],
        archive="days = 0.25",
    )
    resident: list[dict[str, float]] = []

    def judged(more_than: int) -> bool:
        return bool(child(place, "judge").get("ended_rows", 0) > more_than)

    with running(config):
        until(lambda: status(place).get("healthy"))
        for number in range(HOURS):
            file = place / "hour.pcapng"
            infection = place / "corpus" / "malicious" / f"{2 * (number % 10) + 1}.pcapng"
            hour(file, number, infection)
            drop(file, place / "drop", f"{number:02d}.pcapng")
            # The last flows of an hour end in the next one.
            until(partial(judged, number * FLOWS), 120)
            resident.append({n: child(place, n)["rss"] for n in ("ingest-0", "judge", "deliver")})
        assert {one["restarts"] for one in status(place)["children"].values()} == {0}
        assert child(place, "judge")["hosts"] < 2 * HOSTS
        assert child(place, "ingest-0")["live_flows"] < FLOWS
    for name in resident[0]:
        # What is bounded (evidence, incidents, windows, allocators) is full after 18 hours.
        early = max(one[name] for one in resident[18:33])
        late = max(one[name] for one in resident[33:])
        assert late < early + 40e6, (name, [round(one[name] / 1e6) for one in resident])
    with Store(str(place / "state" / "veilwatch.db"), create=False) as store:
        kept = {item.event.event_id for item in store.events()}
    assert {event["event_id"] for event in lines(place / "out")} == kept
    assert len({event["alert"]["host"] for event in lines(place / "out")}) > 10


def test_a_disk_that_is_full_and_full_again(place: Path, small_disk: Any) -> None:
    disk = small_disk(49_152)
    (place / "state").symlink_to(disk)
    disk.chmod(0o700)
    config = write_config(
        place,
        source=f'folder = "{place / "drop"}"\nquiet_s = 1.0',
        flow="idle_timeout_s = 1.0",
        sinks=[f"jsonl+file://{place / 'out'}"],
    )

    def told(number: int) -> bool:
        network = f"10.0.{number}."
        return any(e["alert"]["host"].startswith(network) for e in lines(place / "out"))

    def refused() -> int:  # the status lies on that disk as well
        return config.with_suffix(".log").read_text().count("disk is full")

    def refused_since(before: int) -> bool:
        return refused() > before

    with running(config):
        until(lambda: status(place).get("ready"))
        for number in (1, 5):
            before = refused()
            ballast = disk / "ballast"
            with ballast.open("wb", buffering=0) as stream, pytest.raises(OSError, match="space"):
                while True:
                    stream.write(bytes(4096))
            capture = place / "corpus" / "malicious" / f"{number}.pcapng"
            drop(capture, place / "drop", f"{number}.pcapng")
            until(partial(refused_since, before))
            ballast.unlink()
            until(partial(told, number))
            until(lambda: child(place, "judge").get("backlog") == 0)
        assert {one["restarts"] for one in status(place)["children"].values()} == {0}
    assert refused() < 10  # what lasts is not said every second
    with Store(str(place / "state" / "veilwatch.db"), create=False) as store:
        kept = sorted(item.event.event_id for item in store.events())
    assert sorted({event["event_id"] for event in lines(place / "out")}) == kept
