"""The sensor on an interface: several processes, an interface that comes and goes, a burst."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.netns import Wire
from tests.sensor.field import lines, running, status, until, write_config
from veilwatch.traffic.capture import PcapWriter, open_captures

pytestmark = pytest.mark.slow

ETHERNET = bytes.fromhex("0200000000020200000000010800")
BURST = 40


def ethernet(place: Path, number: int, to: Path) -> int:
    """Write a malicious capture as Ethernet frames; return how many packets it has."""
    count = 0
    with (
        open_captures([place / "corpus" / "malicious" / f"{number}.pcapng"]) as stream,
        PcapWriter(to) as writer,
    ):
        for block in stream:
            for record in block.records:
                start, length = int(record["offset"]), int(record["captured"])
                packet = block.buffer[start : start + length].tobytes()
                writer.write(int(record["ts_ns"]), ETHERNET + packet)
                count += 1
    return count


def config(place: Path, wire: Wire, capture: str = "", **more: str) -> Path:
    return write_config(
        place,
        source=f'interfaces = ["{wire.far}"]\n{capture}',
        flow="idle_timeout_s = 1.0",
        sinks=[f"jsonl+file://{place / 'out'}"],
        **more,
    )


def readers(place: Path) -> dict[str, dict[str, Any]]:
    children = status(place).get("children", {})
    return {name: said for name, said in children.items() if name.startswith("ingest")}


def total(place: Path, name: str) -> int:
    return sum(int(said.get(name, 0)) for said in readers(place).values())


def told_of(place: Path, network: str) -> Callable[[], bool]:
    return lambda: any(e["alert"]["host"].startswith(network) for e in lines(place / "out"))


def test_two_processes_share_an_interface(place: Path, wire: Wire) -> None:
    sent = ethernet(place, 5, place / "one.pcap")
    again = ethernet(place, 1, place / "two.pcap")
    path = config(place, wire, "workers = 2\nring_mb = 16")
    with running(path, *wire.command()):
        until(lambda: status(place).get("ready"))
        wire.replay(place / "one.pcap", "--topspeed")
        until(told_of(place, "10.0.5."))
        until(lambda: total(place, "rows_ended") == 16)  # eight connections, eight datagrams
        # Every packet reached one of them, and both had some: a flow is in one piece.
        assert total(place, "packets") == sent
        assert all(said["packets"] for said in readers(place).values())
        # One that was killed joins again. Another interface of that name: both begin anew.
        os.kill(readers(place)["ingest-1"]["pid"], signal.SIGKILL)
        until(lambda: readers(place)["ingest-1"]["restarts"] == 1 and status(place)["ready"])
        wire.run("ip", "link", "delete", wire.near)
        until(lambda: not status(place)["ready"])
        wire.connect()
        until(lambda: status(place)["ready"] and total(place, "restarts") >= 3, 120)
        wire.replay(place / "two.pcap", "--topspeed")
        until(told_of(place, "10.0.1."))
        until(lambda: total(place, "packets") == again)
    said = path.with_suffix(".log").read_text()
    assert "cannot follow" in said and "Traceback" not in said
    assert wire.transmitted() == 0


def test_an_interface_that_comes_back_and_a_burst(place: Path, wire: Wire) -> None:
    ethernet(place, 5, place / "one.pcap")
    burst = ethernet(place, 7, place / "burst.pcap") * BURST * 100
    after = ethernet(place, 1, place / "two.pcap")
    path = config(place, wire, "ring_mb = 1")
    with running(path, *wire.command()):
        until(lambda: status(place).get("ready"))
        wire.run("ip", "link", "set", wire.far, "down")
        until(lambda: status(place)["waiting_for"] == ["ingest-0"])
        wire.run("ip", "link", "set", wire.far, "up")
        until(lambda: status(place)["ready"])
        wire.replay(place / "one.pcap", "--topspeed")
        until(told_of(place, "10.0.5."))
        before = total(place, "packets")
        # Far more than is read in the time, with next to no ring: what is lost is counted.
        wire.replay(place / "burst.pcap", "--topspeed", "--preload-pcap", f"--loop={BURST * 100}")
        until(lambda: total(place, "packets") + total(place, "kernel_dropped") == before + burst)
        wire.replay(place / "two.pcap", "--topspeed")
        until(told_of(place, "10.0.1."))
        until(
            lambda: (
                total(place, "packets") + total(place, "kernel_dropped") == before + burst + after
            )
        )
        assert {said["restarts"] for said in status(place)["children"].values()} == {0}
        assert total(place, "interruptions") == 1
    assert wire.transmitted() == 0
