"""How much traffic the sensor takes with scoring, what it drops where, how late early scores are.

A namespace of its own holds two virtual interfaces; tcpreplay sends on one, the sensor's processes
(ingest, scorer, supervisor) listen on the other. Needs root, ip, tcpreplay and a model of flows::

    veilwatch train … --out model
    python benchmarks/sensor.py model
    python benchmarks/sensor.py model --rates 20000 50000 100000 --seconds 20 --json sensor.json

A delay is from the time at which the kernel stamped the packet that decides to the moment at which
the scored table is handed over; of a flow that fell silent, from the end of that silence. The
scores go nowhere. What is sent is the same capture again and again: its flows begin anew each time.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np

from generate import Traffic, write_capture
from live import FAR, Wire, send
from veilwatch.detection.scoring.live import LiveScorer
from veilwatch.learning.models import load_model
from veilwatch.sensor.ingest import IngestJob, InterfaceSource, ingest
from veilwatch.sensor.link import Inbox
from veilwatch.sensor.serve import Scored, serve
from veilwatch.sensor.supervise import Child, Heart, Supervisor
from veilwatch.traffic.capture.live import LiveSettings
from veilwatch.traffic.flow import InterimPoints

SETTLE_S: Final = 3.0
"""After the last packet, until what is under way has been scored."""

SILENCE_S: Final = InterimPoints().silence_s or 1e9

TICK: Final = os.sysconf("SC_CLK_TCK")


def scorer(heart: Heart, socket: Path, model: Path, out: Path) -> None:
    """Score, and note how late each table of early reports was."""
    with out.open("a") as lines, Inbox(socket) as inbox:

        def hand_over(scored: Scored) -> None:
            if scored.early:
                delays = (time.time_ns() - scored.scores.flows["last_ns"].to_numpy()) / 1e9
                lines.write(json.dumps(np.round(delays, 3).tolist()) + "\n")
                lines.flush()

        serve(heart, inbox, LiveScorer(load_model(model)), hand_over)


def used_s(pid: int) -> float:
    """Return the CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def resident_mb(pid: int) -> float:
    """Return the memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def watch(model: Path, place: Path, ring_mb: int) -> None:
    """Be the sensor, and print the status twice a second."""
    socket = place / "scores.sock"
    job = IngestJob(InterfaceSource(FAR, LiveSettings(ring_mb=ring_mb)), socket)
    supervisor = Supervisor(
        [
            Child("ingest", ingest, (job,)),
            Child("scorer", scorer, (socket, model, place / "delays")),
        ]
    )
    supervisor.heed_signals()
    said = 0.0

    def look() -> None:
        nonlocal said
        if time.monotonic() - said < 0.5:
            return
        said = time.monotonic()
        status = supervisor.status
        for child in status.values():
            with suppress(OSError, TypeError, IndexError):  # it is ending
                child["cpu_s"] = used_s(child["pid"])
                child["rss_mb"] = round(resident_mb(child["pid"]))
        print(json.dumps(status), flush=True)

    supervisor.run(look)


class Sensor:
    """The sensor in the namespace, and what it said last."""

    def __init__(self, wire: Wire, args: argparse.Namespace, place: Path) -> None:
        words = (sys.executable, __file__, str(args.model), "--watch", str(place))
        self.process = subprocess.Popen(
            wire.command(*words, "--ring-mb", str(args.ring_mb)), stdout=subprocess.PIPE, text=True
        )
        self.status: dict[str, dict[str, Any]] = {}
        threading.Thread(target=self._read, daemon=True).start()
        while not (
            "packets" in self.status.get("ingest", {}) and self.status["scorer"].get("up_s")
        ):
            assert self.process.poll() is None
            time.sleep(0.1)
        time.sleep(SETTLE_S)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.status = json.loads(line)


def measure(
    sensor: Sensor, wire: Wire, capture: Path, rate: int, seconds: float, place: Path
) -> Any:
    """Send at one rate and say what became of it."""
    before = json.loads(json.dumps(sensor.status))
    (place / "delays").write_text("")
    sent, pace = send(wire, capture, rate, seconds)
    deadline = time.monotonic() + 60
    time.sleep(SETTLE_S)
    while sensor.status["ingest"]["waiting_rows"] and time.monotonic() < deadline:
        time.sleep(0.5)
    took, after = seconds + SETTLE_S, sensor.status
    lines = (place / "delays").read_text().splitlines()
    delays = np.concatenate([json.loads(line) for line in lines]) if lines else np.zeros(1)
    silent = delays >= SILENCE_S

    def grown(child: str, name: str) -> Any:
        return after[child].get(name, 0) - before[child].get(name, 0)

    return {
        "sent_per_s": pace,
        "sent": sent,
        "taken": grown("ingest", "packets"),
        "kernel_dropped": grown("ingest", "kernel_dropped"),
        "early_rows": grown("scorer", "early_rows"),
        "ended_rows": grown("scorer", "ended_rows"),
        "dropped_rows": after["ingest"]["dropped"],
        "delay_s": quantiles(delays[~silent]),
        "silent_delay_s": quantiles(delays[silent] - SILENCE_S),
        "cpu": [round(grown(child, "cpu_s") / took, 2) for child in ("ingest", "scorer")],
        "rss_mb": [after[child].get("rss_mb") for child in ("ingest", "scorer")],
    }


def quantiles(delays: Any) -> list[float]:
    """Return median, 99th percentile and worst; nothing where there are none."""
    return (
        [round(float(x), 2) for x in np.quantile(delays, [0.5, 0.99, 1.0])] if len(delays) else []
    )


def main() -> None:
    """Measure every rate."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--rates", type=int, nargs="+", default=[20_000, 50_000, 100_000, 0])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--packets", type=int, default=200_000, help="of the capture")
    parser.add_argument("--ring-mb", type=int, default=256)
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    parser.add_argument("--watch", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.watch:
        watch(args.model, args.watch, args.ring_mb)
        return
    found = []
    with tempfile.TemporaryDirectory(prefix="veilwatch-benchmark-") as folder:
        place = Path(folder)
        capture = place / "gtp.pcap"
        write_capture(capture, Traffic(args.packets, args.packets // 45, gtp=True, tls=0.5))
        wire = Wire()
        try:
            sensor = Sensor(wire, args, place)
            print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
            for rate in args.rates:
                figures = measure(sensor, wire, capture, rate, args.seconds, place)
                found.append(figures)
                print(json.dumps(figures), flush=True)
            sensor.process.send_signal(signal.SIGTERM)
            sensor.process.wait(60)
        finally:
            with suppress(subprocess.CalledProcessError):
                wire.close()
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
