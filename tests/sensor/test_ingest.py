"""From packets to early scores through real processes, and what is lost when one is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cli.helpers import exchange
from tests.learning.training.factory import make_model
from tests.netns import Wire, wire
from tests.sensor.stubs import stand_in
from veilwatch.learning.models import save_model
from veilwatch.sensor import ingest
from veilwatch.sensor.ingest import first_flow_id
from veilwatch.traffic.capture import PcapWriter
from veilwatch.traffic.capture.live import MAX_WORKERS
from veilwatch.traffic.pipeline.workers import FLOW_IDS

__all__ = ["wire"]

ROOT = Path(__file__).parents[2]
START = 1_700_000_000 * 10**9
PATIENCE_S = 120.0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    return save_model(folder / "model", make_model(folder)[0])


class Sensor:
    """The process of `tests/sensor/watch.py`."""

    def __init__(self, process: subprocess.Popen[str], scores: Path) -> None:
        self.process = process
        self.scores = scores
        self.events: list[dict[str, Any]] = []
        self.status: dict[str, dict[str, Any]] = {}
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            said = json.loads(line)
            if said["what"] == "event":
                self.events.append(said["body"])
            else:
                self.status = said["body"]

    def rows(self, *, early: bool) -> list[dict[str, Any]]:
        """What was scored."""
        if not self.scores.exists():
            return []
        # The last line may be in the making.
        whole = self.scores.read_text().rpartition("\n")[0].splitlines()
        return [row for row in map(json.loads, whole) if row.get("early") is early]

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert self.process.poll() is None, "the sensor is gone"
            assert time.monotonic() < deadline, (self.status, self.events)
            time.sleep(0.05)

    def ready(self) -> None:
        """Wait until packets are taken and the scorer hears of them."""
        self.until(lambda: self.status.get("scorer", {}).get("senders", None) is not None)
        self.until(lambda: "packets" in self.status["ingest"])

    def kill(self, child: str) -> dict[str, Any]:
        """Kill a child and return the event of its death."""
        pid, before = self.status[child]["pid"], len(self.events)
        os.kill(pid, signal.SIGKILL)
        self.until(lambda: any(e["pid"] == pid and e["what"] == "died" for e in self.events))
        return next(e for e in self.events[before:] if e["pid"] == pid)

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0
        self._reader.join()


@contextmanager
def watching(command: list[str], place: Path) -> Iterator[Sensor]:
    process = subprocess.Popen(
        command,
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"},
        stdout=subprocess.PIPE,
        text=True,
    )
    sensor = Sensor(process, place / "scores")
    try:
        yield sensor
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()


def write(path: Path, *clients: int, at: int = 0) -> None:
    """A capture of connections that stay open, put in place at once."""
    hidden = path.with_name(f".{path.name}")
    with PcapWriter(hidden) as writer:
        for client in clients:
            for k, frame in enumerate(exchange(f"10.0.0.{client}", 40_000 + client)):
                writer.write(START + at * 10**9 + client * 10**6 + k * 1000, frame)
    hidden.rename(path)


@pytest.mark.slow
def test_what_each_death_costs(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "captures"
    folder.mkdir()
    script = ROOT / "tests/sensor/watch.py"
    command = [sys.executable, str(script), str(folder), str(model), str(tmp_path)]
    with watching(command, tmp_path) as sensor:
        sensor.ready()
        write(folder / "a.pcap", 1, 2, 3)
        sensor.until(lambda: len(sensor.rows(early=True)) == 3)
        assert {row["fwd_packets"] + row["bwd_packets"] for row in sensor.rows(early=True)} == {8}
        sensor.until(lambda: sensor.status["ingest"]["live_flows"] == 3)
        sensor.until(lambda: sensor.status["scorer"]["hosts"] == 3)
        said = sensor.status["ingest"]
        assert said["packets_from_files"] == said["packets"] == 3 * len(exchange("10.0.0.1", 1))

        # The scorer dies: no table is lost, what it knew of hosts is.
        gone = sensor.kill("scorer")
        assert gone["lost"] == "evidence of 3 hosts; no table"
        write(folder / "b.pcap", 4, 5, at=1)
        sensor.until(lambda: len(sensor.rows(early=True)) == 5)
        sensor.until(lambda: sensor.status["ingest"]["live_flows"] == 5)
        assert not sensor.rows(early=False)

        # The ingest dies: flows that were alive are lost, and counted; files are not read twice.
        gone = sensor.kill("ingest")
        assert "5 flows that were alive" in gone["lost"]
        write(folder / "c.pcap", 6, at=2)
        sensor.until(lambda: len(sensor.rows(early=True)) == 6)

        # Both die.
        for child in ("ingest", "scorer"):
            sensor.kill(child)
        write(folder / "d.pcap", 7, 8, at=3)
        sensor.until(lambda: len(sensor.rows(early=True)) == 8)
        sensor.end()
    # At the end live flows are ended and sent; 6 died with the ingest.
    ended = sensor.rows(early=False)
    assert [row["src_ip"] for row in ended] == ["10.0.0.7", "10.0.0.8"]
    early = sensor.rows(early=True)
    assert sorted(row["src_ip"] for row in early) == [f"10.0.0.{k}" for k in range(1, 9)]
    assert len({row["flow_id"] for row in early}) == 8
    # A record has the id under which its flow was reported.
    assert {row["flow_id"] for row in ended} < {row["flow_id"] for row in early}
    assert [e["what"] for e in sensor.events if e["child"] == "ingest"][-1] == "ended"


@pytest.mark.slow
def test_a_live_flow_is_scored_within_two_seconds(model: Path, tmp_path: Path, wire: Wire) -> None:
    capture = tmp_path / "sent.pcap"
    with PcapWriter(capture) as writer:
        for client in range(1, 41):
            for k, frame in enumerate(exchange(f"10.0.0.{client}", 40_000 + client)):
                writer.write(START + client * 10**8 + k * 10**6, frame)
    script = ROOT / "tests/sensor/watch.py"
    command = wire.command(sys.executable, str(script), wire.far, str(model), str(tmp_path))
    with watching(command, tmp_path) as sensor:
        sensor.ready()
        wire.replay(capture)
        sensor.until(lambda: len(sensor.rows(early=True)) == 40)
        delays = [(row["at_ns"] - row["last_ns"]) / 1e9 for row in sensor.rows(early=True)]
        assert max(delays) < 2.0, delays
        sensor.until(lambda: sensor.status["ingest"]["live_flows"] == 40)
        assert sensor.status["ingest"]["packets_from_files"] == 0
        gone = sensor.kill("ingest")
        assert "40 flows" in gone["lost"]
        sensor.until(lambda: sensor.status["ingest"].get("packets") == 0)
        wire.replay(capture, "--multiplier", "20")
        sensor.until(lambda: len(sensor.rows(early=True)) == 80)
        sensor.end()
    assert len(sensor.rows(early=False)) == 40
    assert wire.transmitted() == 0


def test_flow_ids_of_runs_do_not_meet() -> None:
    now = 1_800_000_000
    assert first_flow_id(0, now + 1) - first_flow_id(0, now) == 65_536
    assert first_flow_id(3, now) == 3 * FLOW_IDS + first_flow_id(0, now)
    assert 0 < first_flow_id(0, now) < FLOW_IDS
    assert first_flow_id(MAX_WORKERS - 1, 2_100_000_000) < 2**53


def test_kernels_are_loaded_before_anything_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A cold cache compiles for a minute; a child that was heard once hangs after ten seconds.
    order: list[str] = []

    class Heart:
        stopping = False

        def settled(self) -> None:
            order.append("settled")

        def beat(self, status: object = dict) -> None:
            order.append("beat")

        say = beat

    class Tap:
        def listen(self) -> None:
            order.append("listen")

    def open_taps(*_: Any, **__: Any) -> list[Tap]:
        order.append("taps")
        return [Tap()]

    monkeypatch.setattr(ingest, "load_kernels", lambda: order.append("kernels"))
    monkeypatch.setattr(ingest, "open_taps", open_taps)
    monkeypatch.setattr(ingest, "settle", lambda user: order.append("settle"))
    monkeypatch.setattr(ingest, "LiveCapture", lambda *_, **__: order.append("stream"))
    job = ingest.IngestJob(ingest.InterfaceSource("far"), tmp_path / "socket")
    ingest._open(job, stand_in(Heart()))
    # The ring fills while kernels are loaded, and another user could not read them.
    assert order == ["taps", "listen", "kernels", "settle", "settled", "stream"]
