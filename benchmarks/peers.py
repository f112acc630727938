"""Packets a CPU second of one core, beside NFStream and a flow meter written in C by hand.

    pip install nfstream        # beside Veilwatch; nothing else needs it
    python benchmarks/peers.py                  # some minutes: NFStream is slow
    python benchmarks/peers.py --packets 300000 --flows 6500

Each program is a process of its own, pinned to one core, and reads the same captures (plain and in
GTP-U) to a table of flows: packets, bytes, sizes, gaps, flags, and the first 50 packets one by one.
Figures are CPU seconds of the process, kernel time of reading included, the best of the rounds; in
each round every program runs once. "All" adds services, handshakes and subscribers, which others
do not have. The last column is wall time, where two workers count. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from generate import Traffic, write_capture
from veilwatch.traffic.flow import FlowMeter, MeterConfig, measure_table
from veilwatch.traffic.pipeline import FlowReader, warm

CONFIG: Final = MeterConfig(sequence_length=50)


def statistics(path: Path) -> None:
    """Veilwatch: reading, decoding, metering, the table of measures and sequences."""
    from veilwatch.traffic.capture import open_captures
    from veilwatch.traffic.decode import Decoder

    decoder, meter = Decoder(), FlowMeter(CONFIG)
    with open_captures([path]) as stream:
        for block in stream:
            meter.add(decoder.decode(block))
            if meter.pending > 16_384:
                measure_table(meter.take()[0])
    meter.finish()
    measure_table(meter.take()[0])


def everything(path: Path, workers: int = 1) -> None:
    """Veilwatch: what `veilwatch flows` does, without writing."""
    with FlowReader([path], config=CONFIG, workers=workers) as reader:
        for _ in reader:
            pass


def nfstream(path: Path) -> None:
    """NFStream with all its statistics and 50 packets one by one, sizes of IP."""
    from nfstream import NFStreamer

    streamer = NFStreamer(
        source=str(path),
        statistical_analysis=True,
        splt_analysis=50,
        accounting_mode=1,
        n_meters=1,
        idle_timeout=120,
        active_timeout=1800,
    )
    for _ in streamer:
        pass


RUNS: Final[dict[str, Callable[[Path], None]]] = {
    "statistics": statistics,
    "everything": everything,
    "two": lambda path: everything(path, workers=2),
    "nfstream": nfstream,
}


def measured(command: list[str], cores: set[int]) -> tuple[float, float]:
    """Run a program to its end; return its CPU seconds and wall seconds."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        command, capture_output=True, preexec_fn=lambda: os.sched_setaffinity(0, cores), check=False
    )
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"{command[0]} failed: {done.stderr.decode()[-500:]}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def programs(folder: Path) -> dict[str, list[str]]:
    """Name the programs that are here; what is not is said."""
    here = [sys.executable, str(Path(__file__)), "--run"]
    found = {
        "Veilwatch, statistics and sequence": [*here, "statistics"],
        "Veilwatch, all": [*here, "everything"],
        "Veilwatch, all, two workers": [*here, "two"],
    }
    compiler = shutil.which("cc")
    if compiler is None:
        print("no C compiler: without the meter in C")
    else:
        source, meter = Path(__file__).with_name("meter.c"), folder / "meter"
        subprocess.run([compiler, "-O2", "-o", meter, source, "-lm"], check=True)
        found["C by hand, statistics and sequence"] = [str(meter)]
    try:
        import nfstream as _  # noqa: F401
    except ImportError:
        print("nfstream is not installed: without it")
    else:
        found["NFStream, statistics and sequence"] = [*here, "nfstream"]
    return found


def measure_programs(
    found: dict[str, list[str]], path: Path, empty: Path, rounds: int
) -> dict[str, tuple[float, float]]:
    """Return the CPU and wall seconds of each program on a capture, its start subtracted."""
    cores = sorted(os.sched_getaffinity(0))
    runs: dict[str, list[tuple[float, float, float, float]]] = {program: [] for program in found}
    for _ in range(rounds):
        for program, command in found.items():
            mine = set(cores[-2:]) if "two" in program else {cores[-1]}
            start = measured([*command, str(empty)], mine)
            runs[program].append((*measured([*command, str(path)], mine), *start))
    best: dict[str, tuple[float, float]] = {}
    for program, taken in runs.items():
        # What starting takes (imports, kernels from the cache) is no cost of a packet.
        cpu, wall, cpu_start, wall_start = (min(column) for column in zip(*taken, strict=True))
        best[program] = cpu - cpu_start, wall - wall_start
    return best


def compare(name: str, traffic: Traffic, folder: Path, rounds: int) -> None:
    """Measure all programs on one capture and print their lines."""
    path, empty = folder / "all.pcap", folder / "few.pcap"
    write_capture(path, traffic)
    write_capture(empty, Traffic(packets=200, flows=20, gtp=traffic.gtp))
    best = measure_programs(programs(folder), path, empty, rounds)
    packets = traffic.packets
    floor = best.get("C by hand, statistics and sequence")
    peer = best.get("NFStream, statistics and sequence")
    print(f"\n{name}: {packets:,} packets\n")
    print("| | packets/CPU s | of the meter in C | × NFStream | packets/s, wall |")
    print("|---|---|---|---|---|")
    for program, (cpu, wall) in best.items():
        of_c = f"{floor[0] / cpu:.2f}" if floor else ""
        times = f"{peer[0] / cpu:.1f}" if peer else ""
        print(f"| {program} | {packets / cpu:,.0f} | {of_c} | {times} | {packets / wall:,.0f} |")


def main() -> None:
    """Compare, or be one of the programs that are compared."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--packets", type=int, default=Traffic().packets)
    parser.add_argument("--flows", type=int, default=Traffic().flows)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--run", nargs=2, metavar=("PROGRAM", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        RUNS[arguments.run[0]](Path(arguments.run[1]))
        return
    warm()
    for name, gtp in (("plain", False), ("GTP-U", True)):
        with tempfile.TemporaryDirectory() as folder:
            traffic = Traffic(packets=arguments.packets, flows=arguments.flows, gtp=gtp)
            compare(name, traffic, Path(folder), arguments.rounds)


if __name__ == "__main__":
    main()
