"""What the parent says of the sensor: ready, healthy, and a status that cannot be written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from veilwatch.sensor.load import load_config
from veilwatch.sensor.watch import STALE_S, Sensor, _is_ready, _sentence
from veilwatch.traffic.subscriber import KeyRing


@pytest.mark.parametrize(
    ("child", "said", "ready"),
    [
        ("ingest-0", {"heard": True}, False),  # it waits for its interface
        ("ingest-0", {"heard": True, "packets": 0}, True),
        ("ingest-0", {"heard": True, "packets": 5, "away": True}, False),
        ("ingest-0", {"heard": False, "packets": 5}, False),
        ("judge", {"heard": True}, False),  # it waits for its predecessor
        ("judge", {"heard": True, "incidents": 0}, True),
        ("deliver", {"heard": True}, True),
        ("deliver", {}, False),
    ],
)
def test_ready_means_that_packets_can_be_read(
    child: str, said: dict[str, Any], ready: bool
) -> None:
    assert _is_ready(child, said) is ready


def test_the_sentence_for_systemd() -> None:
    status = {"waiting_for": ["ingest-0", "judge"], "packets": 0, "children": {}}
    assert _sentence(status) == "waiting for ingest-0, judge"
    status = {"waiting_for": [], "packets": 1_234, "children": {"judge": {"incidents": 2}}}
    assert _sentence(status) == "watching: 1,234 packets, 2 open incidents"


@pytest.fixture
def sensor(tmp_path: Path) -> Iterator[Sensor]:
    path = tmp_path / "sensor.toml"
    path.write_text(
        '[sensor]\nstate = "state"\n[capture]\nfolder = "."\n[model]\npath = "model"\n'
        '[metrics]\nlisten = "127.0.0.1:0"\n'
    )
    made = Sensor(load_config(path).config, KeyRing())
    yield made
    made._server.close()


def test_a_parent_that_does_not_look_is_not_healthy(sensor: Sensor) -> None:
    sensor._published = {"healthy": True, "ready": True, "packets": 7}
    assert sensor._latest()["healthy"]
    sensor._looked_s -= STALE_S + 1
    assert sensor._latest() == {"healthy": False, "ready": False, "packets": 7}


def test_what_is_left_at_the_end_is_said(sensor: Sensor, tmp_path: Path) -> None:
    assert sensor.left() == f"everything else stored; it goes on from {tmp_path / 'state'}"
    kept = {one.child.name: one for one in sensor._supervisor._kept}
    kept["deliver"].status = {"pending_events": 1200}
    kept["judge"].status = {"incidents": 1, "backlog": 0}
    kept["ingest-0"].status = {"unsent_rows": 3}
    said = sensor.left()
    assert said.startswith(
        "1,200 events waiting for sinks; 1 incident open; 3 rows lost, as nobody scored them; "
    )


def test_metrics_are_answered_again_when_their_thread_has_ended(sensor: Sensor) -> None:
    sensor._log = Log()
    port = sensor._server.port
    sensor._server._server.shutdown()
    sensor._server._thread.join(10)
    sensor._check_server()
    assert sensor._server.is_alive and sensor._server.port != 0 != port
    sensor._check_server()
    assert len(sensor._log.said) == 1


def test_a_status_that_cannot_be_written_is_said_once(sensor: Sensor, tmp_path: Path) -> None:
    sensor._log = Log()
    place = tmp_path / "state" / "status.json"
    (place / "in the way").mkdir(parents=True)
    for _ in range(3):
        sensor._write_status()
    (place / "in the way").rmdir()
    place.rmdir()
    sensor._write_status()
    assert place.is_file()
    place.unlink()
    (place / "in the way").mkdir(parents=True)
    sensor._write_status()
    assert len(sensor._log.said) == 2
    assert all("cannot be written" in text for text in sensor._log.said)


class Log:
    """Keeps warnings."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def warning(self, text: str, **facts: Any) -> None:
        self.said.append(text)

    error = warning
