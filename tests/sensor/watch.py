"""A sensor as small as can be, to run in a process of its own: ingest, scorer, supervisor.

Events and statuses go to standard output as JSON lines::

    python tests/sensor/watch.py SOURCE MODEL PLACE

`SOURCE` is a folder or an interface; `PLACE` a folder for the socket, the memory and `scores`.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.sensor.scorer import scorer
from veilwatch.sensor.ingest import LOSES, FolderSource, IngestJob, InterfaceSource, ingest
from veilwatch.sensor.supervise import Child, ChildEvent, Supervisor
from veilwatch.traffic.capture.live import LiveSettings
from veilwatch.traffic.flow import MeterConfig


def say(what: str, body: Any) -> None:
    print(json.dumps({"what": what, "body": body}), flush=True)


def main(source: str, model: Path, place: Path, ring_mb: int = 64) -> None:
    socket = place / "scores.sock"
    taken = (
        FolderSource(Path(source), place / "seen.jsonl", settle_s=0.3)
        if "/" in source
        else InterfaceSource(source, LiveSettings(ring_mb=ring_mb))
    )
    job = IngestJob(taken, socket, config=MeterConfig(idle_timeout_s=20.0, linger_s=1.0))
    children = [
        Child("ingest", ingest, (job,), loses=LOSES),
        Child(
            "scorer",
            scorer,
            (socket, model, place / "scores"),
            loses="evidence of {hosts} hosts; no table",
        ),
    ]

    def tell(event: ChildEvent) -> None:
        say("event", asdict(event))

    supervisor = Supervisor(children, tell)
    supervisor.heed_signals()
    said = 0.0

    def look() -> None:
        nonlocal said
        if time.monotonic() - said > 0.5:
            said = time.monotonic()
            say("status", supervisor.status)

    supervisor.run(look)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), *map(int, sys.argv[4:]))
