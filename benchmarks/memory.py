"""How much memory captures of different sizes take on their way to a file of flows.

Memory has to follow the flows that are alive at one time, and not the size of the capture: the
sizes of one series differ tenfold at the same rate of packets; the last capture has as many
packets as the one before, in a tenth of the time, so that ten times as many flows are alive::

    python benchmarks/memory.py
    python benchmarks/memory.py --large        # with 20 million packets
    python benchmarks/memory.py --million      # a million flows at one time, and nothing else

What a live flow takes is the peak above that of a tenth of the flows, by the further flows that are
alive, with packets kept one by one and (as good as) without.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from generate import SHORTEST_SNAP, Traffic, write_capture
from veilwatch.export.flow_writer import FlowWriter
from veilwatch.progress import Silent
from veilwatch.schema.flows import SEQUENCE_LENGTH
from veilwatch.traffic.flow import MeterConfig
from veilwatch.traffic.pipeline import FlowReader

PACKETS_PER_FLOW: Final = 45
SMALL: Final = 2_000  # packets: what the libraries and kernels themselves take
SIZES: Final = (200_000, 2_000_000)
LARGE: Final = 20_000_000
CROWDED: Final = 10  # times the rate
MILLION: Final = Traffic(
    3_200_000, 1_045_000, packets_per_second=40_000, gtp=True, snap=SHORTEST_SNAP
)
"""Flows of which a million live at one time: within 80 s, of UDP but for a few."""

A_TENTH: Final = replace(
    MILLION,
    packets=MILLION.packets // 10,
    flows=MILLION.flows // 10,
    packets_per_second=MILLION.packets_per_second / 10,
)


class Watch(Silent):
    """Counts live flows whenever a piece of the capture was read."""

    def __init__(self) -> None:
        self.reader: FlowReader | None = None
        self.alive = 0

    def advance(self, amount: float = 1.0) -> None:
        """Note the most flows that were alive at one time."""
        if self.reader is not None:
            self.alive = max(self.alive, self.reader.meter.live)


def extract(path: Path, sequence_length: int) -> dict[str, int]:
    """Write the flow table of a capture as Parquet and return counts and the peak of memory."""
    flows = 0
    config = MeterConfig(sequence_length=sequence_length)
    watch = Watch()
    with (
        tempfile.TemporaryDirectory() as folder,
        FlowReader([path], config=config, progress=watch) as reader,
        FlowWriter(Path(folder) / "flows.parquet") as writer,
    ):
        watch.reader = reader
        for table in reader:
            flows += len(table)
            writer.write(table.frame)
    evicted = reader.meter.evicted
    return {"flows": flows, "alive": watch.alive, "evicted": evicted, "peak_bytes": peak_bytes()}


def peak_bytes() -> int:
    """Return the most resident memory that this process ever had.

    VmHWM counts from the start of this program; the figure of getrusage is inherited.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("the kernel tells no VmHWM")


def measure(traffic: Traffic, folder: Path, sequence_length: int) -> dict[str, Any]:
    """Extract one capture in a process of its own."""
    path = folder / "capture.pcap"
    write_capture(path, traffic)
    child = [sys.executable, __file__, "--extract", str(path), str(sequence_length)]
    done = subprocess.run(child, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    found |= {"packets": traffic.packets, "file_bytes": path.stat().st_size}
    path.unlink()
    return found


def main() -> None:
    """Measure a series of captures and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--large", action="store_true", help=f"{LARGE:,} packets as well")
    which.add_argument("--million", action="store_true", help="a million flows at one time")
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    parser.add_argument("--extract", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.extract:
        path, sequence_length = args.extract
        print(json.dumps(extract(Path(path), int(sequence_length))))
        return

    small = Traffic(SMALL, SMALL // PACKETS_PER_FLOW, gtp=True, snap=SHORTEST_SNAP)
    series = [(small, SEQUENCE_LENGTH)]
    if args.million:
        series = [
            (traffic, length) for length in (1, SEQUENCE_LENGTH) for traffic in (A_TENTH, MILLION)
        ]
    else:
        for packets in (*SIZES, *([LARGE] if args.large else [])):
            same = replace(small, packets=packets, flows=packets // PACKETS_PER_FLOW)
            series.append((same, SEQUENCE_LENGTH))
        crowded = replace(same, packets_per_second=CROWDED * same.packets_per_second)
        series.append((crowded, SEQUENCE_LENGTH))
    print(f"{'packets':>12}{'packets/s':>11}{'file MB':>9}{'flows':>11}{'alive':>11}", end="")
    print(f"{'one by one':>12}{'peak MiB':>10}", end="")
    print(f"{'a live flow':>13}" if args.million else f"{'above the first':>17}")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="veilwatch-benchmark-") as folder:
        measure(small, Path(folder), SEQUENCE_LENGTH)  # compiles what is not in the cache
        for traffic, sequence_length in series:
            row = measure(traffic, Path(folder), sequence_length)
            rows.append(row | {"sequence_length": sequence_length})
            print(f"{row['packets']:12,}{traffic.packets_per_second:11,.0f}", end="")
            print(f"{row['file_bytes'] / 1e6:9,.0f}{row['flows']:11,}{row['alive']:11,}", end="")
            print(f"{sequence_length:12}{row['peak_bytes'] / 2**20:10,.0f}", end="")
            if not args.million:
                above = row["peak_bytes"] - rows[0]["peak_bytes"]
                print(f"{above / 2**20:17,.0f}", flush=True)
            elif traffic is MILLION:
                above, more = (row[key] - rows[-2][key] for key in ("peak_bytes", "alive"))
                print(f"{above / more:11,.0f} B", flush=True)
            else:
                print(flush=True)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
