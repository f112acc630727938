"""What early reports of live flows cost the meter, a packet.

The same decoded packets are metered with reports off and on, in turn, on one core. Run it with
`PYTHONPATH` set to the sources of another version to compare that one: a version without early
reports measures what it has::

    python benchmarks/early.py
    python benchmarks/early.py --packets 900000 --flows 20000 --rounds 9
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from generate import Traffic, write_capture
from throughput import pin
from veilwatch.schema.packets import PacketBatch
from veilwatch.traffic.capture import open_captures
from veilwatch.traffic.decode import Decoder
from veilwatch.traffic.flow import FlowMeter
from veilwatch.traffic.pipeline.extract import CHUNK_FLOWS, CHUNK_HEADS

try:
    from veilwatch.traffic.flow import InterimPoints
except ImportError:  # an older version
    WAYS: dict[str, dict[str, Any]] = {"without early reports": {}}
else:
    WAYS = {
        "off": {},
        "after 8 and 32 packets, 30 s": {"early": InterimPoints()},
        "after 1, 2, 4, 8, 16, 32, 64 packets": {
            "early": InterimPoints(packets=(1, 2, 4, 8, 16, 32, 64), age_s=None)
        },
    }


def decoded(path: Path) -> list[PacketBatch]:
    """Return every batch of a capture, kept."""
    decoder = Decoder()
    batches = []
    with open_captures([path]) as stream:
        for block in stream:
            batch = decoder.decode(block)
            batches.append(PacketBatch(batch.buffer.copy(), batch.packets.copy()))
    return batches


def metered(batches: list[PacketBatch], **options: Any) -> tuple[float, int]:
    """Return the CPU seconds that metering takes, and how many reports came."""
    meter = FlowMeter(**options)
    reports = 0
    began = time.process_time()
    for batch in batches:
        meter.add(batch)
        if meter.pending >= CHUNK_FLOWS or meter.pending_heads >= CHUNK_HEADS:
            meter.take()
        if options and meter.pending_early >= CHUNK_FLOWS:
            reports += len(meter.take_early())
    meter.finish()
    meter.take()
    if options:
        reports += len(meter.take_early())
    return time.process_time() - began, reports


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--packets", type=int, default=450_000)
    parser.add_argument("--flows", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    pin()
    with tempfile.TemporaryDirectory(prefix="veilwatch-benchmark-") as folder:
        capture = Path(folder) / "gtp.pcap"
        write_capture(capture, Traffic(args.packets, args.flows, gtp=True, tls=0.5))
        batches = decoded(capture)
    metered(batches)
    taken: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(args.rounds):
        for name, options in WAYS.items():
            taken[name].append(metered(batches, **options)[0] / args.packets * 1e9)
    for name, found in taken.items():
        reports = metered(batches, **WAYS[name])[1]
        print(
            f"{name:40} {min(found):7.0f} ns a packet at best, {statistics.median(found):7.0f} "
            f"median, {reports:,} reports"
        )


if __name__ == "__main__":
    main()
