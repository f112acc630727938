"""From the start of `veilwatch watch` to the first packet that it takes, with compiled kernels.

A namespace of its own holds two virtual interfaces; a packet is sent every 10 ms, each a flow of
its own, so that the archive says which was the first. Needs root, ip, tcpreplay and a model::

    veilwatch train … --out model
    python benchmarks/restart.py model --rounds 5
"""

from __future__ import annotations

import argparse
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import polars as pl

from live import FAR, NEAR, Wire
from veilwatch.traffic.capture import PcapWriter

STEP_NS: Final = 10_000_000
PACKETS: Final = 2500
WATCHED_S: Final = 12.0
"""How long a sensor runs: longer than any start takes."""


def write_ticks(path: Path) -> None:
    """Write one datagram every 10 ms, each from another address."""
    with PcapWriter(path) as writer:
        for k in range(PACKETS):
            udp = struct.pack(">HHHH", 4000, 53, 8, 0)
            ip = struct.pack(
                ">BBHHHBBHII", 0x45, 0, 28, k, 0, 64, 17, 0, 10 << 24 | k, 192 << 24 | 2 << 8 | 1
            )
            writer.write(k * STEP_NS, bytes.fromhex("0200000000020200000000010800") + ip + udp)


def first_packet_s(wire: Wire, place: Path, model: Path) -> float:
    """Start a sensor while packets come; return how long after its start the first was taken."""
    state = Path(tempfile.mkdtemp(dir=place))
    config = place / "sensor.toml"
    config.write_text(
        f'[sensor]\nname = "restart"\nstate = "{state}"\n[capture]\ninterfaces = ["{FAR}"]\n'
        f'[flow]\nidle_timeout_s = 1.0\n[model]\npath = "{model.absolute()}"\n'
        '[metrics]\nlisten = "127.0.0.1:0"\n[archive]\nkeep_free_gb = 0\n'
    )
    ticks = subprocess.Popen(
        wire.command("tcpreplay", "-q", "-i", NEAR, str(place / "ticks.pcap")),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    time.sleep(0.5)
    began_s = time.time()
    sensor = subprocess.Popen(
        wire.command(sys.executable, "-m", "veilwatch", "watch", "--config", str(config)),
        stderr=subprocess.DEVNULL,
    )
    try:
        time.sleep(WATCHED_S)
    finally:
        sensor.terminate()
        sensor.wait()
        ticks.terminate()
        ticks.wait()
    files = str(state / "flows" / "*.parquet")
    first_ns = pl.scan_parquet(files).select(pl.col("first_ns").min()).collect().item()
    return float(first_ns / 1e9 - began_s)


def main() -> None:
    """Measure some starts; the first one is not counted."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="veilwatch-benchmark-") as folder:
        place = Path(folder)
        write_ticks(place / "ticks.pcap")
        wire = Wire()
        try:
            took = [first_packet_s(wire, place, args.model) for _ in range(args.rounds + 1)][1:]
        finally:
            with suppress(subprocess.CalledProcessError):
                wire.close()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"first packet after {min(took):.2f} s at best, {statistics.median(took):.2f} median")


if __name__ == "__main__":
    main()
