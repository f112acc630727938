"""What live capture costs and loses, beside packet-by-packet reception and dumpcap.

A namespace of its own holds two virtual interfaces; tcpreplay sends on one, the sensor listens on
the other. Needs root, ip and tcpreplay::

    python benchmarks/live.py
    python benchmarks/live.py --seconds 5 --rates 0 100000 --json live.json

CPU is that of the listening process, kernel time of its system calls included. The sending side
pays for carrying packets over the wire and into the ring, as interrupts do with a real card. The
namespace is deleted at the end; nothing outside it is touched.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from generate import Traffic, write_capture
from veilwatch.traffic.capture.live import LiveSettings, open_live
from veilwatch.traffic.capture.live import tap as tap_module
from veilwatch.traffic.pipeline import FlowReader
from veilwatch.traffic.pipeline.warm import load_kernels

NEAR: Final = "near"
FAR: Final = "far"

SENSORS: Final = {
    "ring, records only": (True, False),
    "ring, flow tables": (True, True),
    "one by one, records only": (False, False),
    "one by one, flow tables": (False, True),
}
"""Whether each has a ring, and whether it makes flow tables."""

SETTLE_S: Final = 0.5


def cpu_seconds() -> float:
    """Return the CPU time of this process so far, of the kernel on its behalf as well."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def sense(name: str, ring_mb: int) -> None:
    """Listen until SIGTERM and print what it cost; runs inside the namespace."""
    ring, tables = SENSORS[name]
    load_kernels()
    if not ring:

        def refuse(*_: object) -> int:
            raise OSError("left out")

        vars(tap_module)["ask_for_ring"] = refuse
    capture = open_live(FAR, LiveSettings(ring_mb=ring_mb))
    signal.signal(signal.SIGTERM, lambda *_: capture.stop())
    before = cpu_seconds()
    print("ready", flush=True)
    if tables:
        with FlowReader(capture) as reader:
            for _ in reader:
                pass
    else:
        with capture:
            for _ in capture:
                pass
    live = capture.report.files[0].live
    assert live is not None
    print(json.dumps([live.received, live.dropped, live.freezes, cpu_seconds() - before]))


class Wire:
    """A namespace with a connected pair of interfaces that are silent by themselves."""

    def __init__(self) -> None:
        self.name = f"veilwatch-benchmark-{os.getpid()}"
        subprocess.run(["ip", "netns", "add", self.name], check=True)
        switch = "/proc/sys/net/ipv6/conf/default/disable_ipv6"
        self.run("sh", "-c", f"[ ! -e {switch} ] || echo 1 > {switch}")
        self.run("ip", "link", "add", NEAR, "type", "veth", "peer", "name", FAR)
        for interface in (NEAR, FAR):
            self.run("ip", "link", "set", interface, "mtu", "9000", "up")

    def command(self, *words: str) -> list[str]:
        """Return a command line that runs inside."""
        return ["ip", "netns", "exec", self.name, *words]

    def run(self, *words: str) -> str:
        """Run inside and return what was printed."""
        done = subprocess.run(self.command(*words), capture_output=True, text=True, check=True)
        return done.stdout + done.stderr

    def close(self) -> None:
        """Remove the namespace and what is in it."""
        subprocess.run(["ip", "netns", "delete", self.name], check=True)


def send(wire: Wire, capture: Path, rate: int, seconds: float) -> tuple[int, float]:
    """Replay a capture again and again; return packets sent and their rate per second."""
    pace = ["--pps", str(rate)] if rate else ["--topspeed"]
    said = wire.run(
        *("tcpreplay", "-q", "-i", NEAR, "--preload-pcap", "--loop", "0"),
        *("--duration", str(max(1, round(seconds))), *pace, str(capture)),
    )
    actual = re.search(r"Actual: (\d+) packets \(\d+ bytes\) sent in ([\d.]+) seconds", said)
    assert actual is not None, said
    packets, took = int(actual[1]), float(actual[2])
    return packets, packets / took


def measure_sensor(
    wire: Wire, name: str, capture: Path, rate: int, args: argparse.Namespace
) -> dict[str, Any]:
    """Run one of our sensors while the capture is replayed."""
    words = (sys.executable, __file__, "--sensor", name, "--ring-mb", str(args.ring_mb))
    process = subprocess.Popen(wire.command(*words), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(SETTLE_S)
    sent, pace = send(wire, capture, rate, args.seconds)
    process.send_signal(signal.SIGTERM)
    received, dropped, freezes, cpu = json.loads(process.communicate()[0])
    assert received + dropped == sent, (received, dropped, sent)
    return {"rate": pace, "received": received, "dropped": dropped, "freezes": freezes, "cpu": cpu}


def measure_dumpcap(
    wire: Wire, capture: Path, rate: int, args: argparse.Namespace
) -> dict[str, Any]:
    """Run dumpcap, which writes to nowhere, while the capture is replayed."""
    words = ("dumpcap", "-q", "-i", FAR, "-B", str(args.ring_mb), "-w", "/dev/null")
    process = subprocess.Popen(wire.command(*words), stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    while "File:" not in process.stderr.readline():
        pass
    time.sleep(SETTLE_S)
    _, pace = send(wire, capture, rate, args.seconds)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    time.sleep(SETTLE_S)
    process.send_signal(signal.SIGINT)
    said = process.stderr.read()
    process.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    counts = re.search(r"received/dropped on interface '\w+': (\d+)/(\d+)", said)
    assert counts is not None, said
    received, dropped = int(counts[1]), int(counts[2])
    return {"rate": pace, "received": received, "dropped": dropped, "freezes": 0, "cpu": cpu}


def main() -> None:
    """Measure every way to listen at every rate."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="of sending, each time")
    parser.add_argument(
        "--rates", type=int, nargs="+", default=[0, 100_000], help="packets/s; 0 top"
    )
    parser.add_argument("--ring-mb", type=int, default=64)
    parser.add_argument("--packets", type=int, default=100_000, help="of the capture")
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    parser.add_argument("--sensor", choices=SENSORS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.sensor:
        sense(args.sensor, args.ring_mb)
        return
    found: dict[str, Any] = {}
    dumpcap = shutil.which("dumpcap") is not None
    with tempfile.TemporaryDirectory(prefix="veilwatch-benchmark-") as folder:
        capture = Path(folder) / "gtp.pcap"
        write_capture(capture, Traffic(args.packets, args.packets // 45, gtp=True, tls=0.5))
        wire = Wire()
        try:
            print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; ", end="")
            print(f"GTP-U, {capture.stat().st_size / args.packets:.0f} bytes a packet")
            print(f"  {'':28}{'sent/s':>10}{'received':>12}{'dropped':>10}{'µs CPU/packet':>15}")
            for rate in args.rates:
                for name in (*SENSORS, *(["dumpcap to /dev/null"] if dumpcap else [])):
                    figures = (
                        measure_sensor(wire, name, capture, rate, args)
                        if name in SENSORS
                        else measure_dumpcap(wire, capture, rate, args)
                    )
                    found[f"{name} at {rate or 'top'}"] = figures
                    share = figures["cpu"] / max(1, figures["received"]) * 1e6
                    print(
                        f"  {name:28}{figures['rate']:10,.0f}{figures['received']:12,}"
                        f"{figures['dropped']:10,}{share:15.2f}",
                        flush=True,
                    )
        finally:
            with suppress(subprocess.CalledProcessError):
                wire.close()
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
