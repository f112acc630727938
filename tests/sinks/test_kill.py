"""The delivering process is killed again and again: what the receivers hold in the end."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.sinks import receivers as r
from tests.sinks.events import many
from veilwatch.sinks.base import open_sink
from veilwatch.sinks.delivery import Delivery
from veilwatch.sinks.spool import Spool

pytestmark = pytest.mark.slow

DELIVER = """
import sys, threading
from pathlib import Path
from veilwatch.sinks.base import open_sink
from veilwatch.sinks.delivery import Delivery
from veilwatch.sinks.spool import Spool
delivery = Delivery("s", open_sink(sys.argv[2]), Spool(Path(sys.argv[1])), batch=5)
print("ready", flush=True)
delivery.run(threading.Event())
"""


def killed_often(path: Path, url: str, kills: int, seed: int) -> None:
    """Run a process that delivers and kill it after a moment, several times."""
    chance = random.Random(seed)
    for _ in range(kills):
        with subprocess.Popen(
            [sys.executable, "-c", DELIVER, str(path), url], stdout=subprocess.PIPE, cwd=ROOT
        ) as process:
            assert process.stdout is not None and process.stdout.readline() == b"ready\n"
            time.sleep(chance.uniform(0.0, 0.08))
            process.kill()


def finish(path: Path, url: str) -> None:
    """Deliver the rest."""
    with Spool(path) as spool, open_sink(url) as sink:
        delivery = Delivery("s", sink, spool)
        until = time.monotonic() + 20
        while spool.counts("s").pending and time.monotonic() < until:
            delivery.run_once(time.time_ns() + 100 * 10**9)
        assert spool.counts("s").pending == 0 and spool.counts("s").delivered == 150


@pytest.mark.parametrize("seed", [1, 2])
def test_elasticsearch_has_each_event_exactly_once(tmp_path: Path, seed: int) -> None:
    path, events = tmp_path / "spool.db", many(150)
    with Spool(path) as spool:
        spool.append(events, ["s"])
    with r.Elasticsearch() as server:
        url = f"secbuzzer+http://127.0.0.1:{server.port}"
        killed_often(path, url, 4, seed)
        finish(path, url)
        assert {name for _, name in server.documents} == {event.event_id for event in events}
        assert server.writes == len(events)


@pytest.mark.parametrize("route", ["unix", "file"])
def test_socket_and_file_have_each_event_and_copies_are_marked(tmp_path: Path, route: str) -> None:
    path, events = tmp_path / "spool.db", many(150)
    with Spool(path) as spool:
        spool.append(events, ["s"])
    place = tmp_path / "esm"
    if route == "file":
        place.mkdir()
        killed_often(path, f"secbuzzer+file://{place}", 4, 3)
        finish(path, f"secbuzzer+file://{place}")
        lines = [line for file in place.iterdir() for line in file.read_bytes().splitlines()]
        records = [r.esm_record(line) for line in lines]
    else:
        with r.EsmSocketReceiver(place) as receiver:
            killed_often(path, f"secbuzzer+unix://{place}", 4, 4)
            finish(path, f"secbuzzer+unix://{place}")
            time.sleep(0.2)
            records = receiver.records
    metadata = [record["alert"]["metadata"] for record in records]
    arrived = Counter(item["event_id"][0] for item in metadata)
    unmarked = Counter(item["event_id"][0] for item in metadata if "resend" not in item)
    assert set(arrived) == {event.event_id for event in events}
    assert all(count <= 1 for count in unmarked.values())
