"""How fast captures become flow tables on one core, beside floors measured in the same run.

Times are CPU seconds, of this process or of the other program, pinned to one core: on a machine
that others use as well they are steadier than the clock on the wall, but caches and memory are
still shared, so compare figures of one run with each other and not with those of another::

    python benchmarks/throughput.py
    python benchmarks/throughput.py --packets 500000 --flows 11000 --json throughput.json
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import Final

from generate import Traffic, write_capture
from veilwatch.schema.flows import FlowBatch
from veilwatch.traffic.capture import open_captures
from veilwatch.traffic.decode import Decoder
from veilwatch.traffic.flow import FlowMeter, measure_table
from veilwatch.traffic.pipeline import FlowReader
from veilwatch.traffic.pipeline.extract import CHUNK_FLOWS, CHUNK_HEADS

BAR: Final = 1_000_000
"""Packets a second on one core that capture to flow table has to reach."""

SLOW_PACKETS: Final = 200_000
"""Packets that slow programs are given: their rate hardly depends on it."""

Pass = Callable[[Path], None]


def read(path: Path) -> None:
    """Read the records of a capture."""
    with open_captures([path]) as stream:
        for _ in stream:
            pass


def decode(path: Path) -> None:
    """Read and decode."""
    decoder = Decoder()
    with open_captures([path]) as stream:
        for block in stream:
            decoder.decode(block)


def _flows(path: Path) -> Generator[FlowBatch, None, None]:
    decoder, meter = Decoder(), FlowMeter()
    with open_captures([path]) as stream:
        for block in stream:
            meter.add(decoder.decode(block))
            if meter.pending >= CHUNK_FLOWS or meter.pending_heads >= CHUNK_HEADS:
                yield meter.take()[0]
    meter.finish()
    yield meter.take()[0]


def meter(path: Path) -> None:
    """Read, decode and meter; handshakes are kept but not parsed."""
    with closing(_flows(path)) as batches:
        for _ in batches:
            pass


def table(path: Path) -> None:
    """Everything but services and handshakes: statistics and sequences as columns."""
    with closing(_flows(path)) as batches:
        for batch in batches:
            measure_table(batch)


def whole(path: Path) -> None:
    """What `veilwatch flows` does before it writes: services and handshakes as well."""
    with FlowReader([path]) as reader:
        for _ in reader:
            pass


STAGES: Final[dict[str, Pass]] = {
    "read": read,
    "read + decode": decode,
    "read + decode + meter": meter,
    "… + table of statistics and sequences": table,
    "… + services and handshakes (all)": whole,
}

FLOORS: Final = {
    "cat": ["cat", "{}"],
    "capinfos -c": ["capinfos", "-c", "{}"],
    "tshark -z conv,tcp": ["tshark", "-n", "-r", "{}", "-q", "-z", "conv,tcp", "-z", "conv,udp"],
}
"""Programs to stand beside: moving the bytes, walking the records in C, and flow statistics by
the tool that everybody knows."""

SLOW: Final = {"tshark -z conv,tcp"}


def run_program(command: list[str]) -> Pass:
    """Return a pass that runs a program over the capture."""

    def run(path: Path) -> None:
        filled = [part.format(path) for part in command]
        subprocess.run(
            filled, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=600
        )

    return run


def cpu_seconds() -> float:
    """Return the CPU time of this process and of the programs it has waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def pin() -> int:
    """Keep this process, its threads and its children on one core; return which."""
    cores = os.sched_getaffinity(0)
    if len(cores) > 1:
        # Started anew, because libraries size their pools of threads when they are imported.
        os.sched_setaffinity(0, {max(cores)})
        os.execv(sys.executable, [sys.executable, *sys.argv])
    return cores.pop()


def measure(run: Pass, path: Path, runs: int) -> list[float]:
    """Return the CPU seconds of each of several passes."""
    seconds = []
    for _ in range(runs):
        began = cpu_seconds()
        run(path)
        seconds.append(cpu_seconds() - began)
    return seconds


def compare(name: str, traffic: Traffic, folder: Path, runs: int) -> dict[str, dict[str, float]]:
    """Measure every stage and floor on one capture and print a table."""
    path, short = folder / "capture.pcap", folder / "short.pcap"
    write_capture(path, traffic)
    part = min(1.0, SLOW_PACKETS / traffic.packets)
    few = round(traffic.packets * part)
    write_capture(
        short,
        Traffic(few, round(traffic.flows * part), gtp=traffic.gtp, tls=traffic.tls),
    )
    whole(short)  # compiles what is not in the cache, loads what is, touches memory
    size = path.stat().st_size
    print(f"\n{name}: {traffic.packets:,} packets, {traffic.flows:,} flows, {size / 1e6:,.0f} MB")
    print(f"  {'':40}{'packets/CPU s':>14}{'median':>12}{'ns/packet':>11}{'of cat':>9}")
    out: dict[str, dict[str, float]] = {}
    passes = {n: run_program(c) for n, c in FLOORS.items() if shutil.which(c[0])} | STAGES
    for label, run in passes.items():
        slow = label in SLOW
        packets = few if slow else traffic.packets
        seconds = measure(run, short if slow else path, 1 if slow else runs)
        best, middle = packets / min(seconds), packets / statistics.median(seconds)
        out[label] = {"packets_per_second": best, "median": middle}
        share = best / out["cat"]["packets_per_second"]
        print(f"  {label:40}{best:14,.0f}{middle:12,.0f}{1e9 / best:11.0f}{share:9.1%}")
    path.unlink()
    return out


def main() -> None:
    """Measure plain and tunnelled traffic, with and without handshakes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--packets", type=int, default=Traffic().packets)
    parser.add_argument("--flows", type=int, default=Traffic().flows)
    parser.add_argument("--runs", type=int, default=5, help="passes of each stage")
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    args = parser.parse_args()
    print(f"core {pin()} of {os.cpu_count()}, load {os.getloadavg()[0]:.1f}; CPU time; ", end="")
    print(f"best and median of {args.runs} passes")
    found = {}
    with tempfile.TemporaryDirectory(prefix="veilwatch-benchmark-") as folder:
        for name, gtp, tls in (
            ("plain", False, 0.0),
            ("GTP-U", True, 0.0),
            ("GTP-U, half of TCP with TLS handshakes", True, 0.5),
        ):
            traffic = Traffic(args.packets, args.flows, gtp=gtp, tls=tls)
            found[name] = compare(name, traffic, Path(folder), args.runs)
    print(f"\nBar: {BAR:,} packets/s from capture to table of statistics, on one core")
    *_, to_table, everything = STAGES
    for name, rates in found.items():
        first, last = rates[to_table]["median"], rates[everything]["median"]
        print(f"  {name:40}{first / BAR:6.2f} × the bar; with handshakes {last / BAR:.2f} ×")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
