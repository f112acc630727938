"""What `veilwatch detect` takes where every packet is a host of its own, or a destination.

A scan, or traffic with invented addresses, makes a million flows out of 70 MB. Memory and time must
stay within what docs/performance.md says of it::

    python benchmarks/crowd.py MODEL
    python benchmarks/crowd.py MODEL --flows 200000 --way hosts
    python benchmarks/crowd.py MODEL --lowered 0.01   # a model to which everything is an alert

A million destinations of one host take 80 CPU seconds and 2.5 GiB, 86 seconds with `--lowered`; a
million hosts 128 seconds and 2.7 GiB. Any model of flows that `veilwatch train` makes will do.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import struct
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

WAYS: Final = ("hosts", "destinations")
SECONDS: Final = 60
FIRST_S: Final = 1_780_000_000

PACKET: Final = np.dtype(
    [
        *(("seconds", "<u4"), ("micros", "<u4"), ("kept", "<u4"), ("length", "<u4")),
        *(("ethernet", "u1", 14), ("ip", "u1", 12), ("src", ">u4"), ("dst", ">u4")),
        *(("src_port", ">u2"), ("dst_port", ">u2"), ("tcp", "u1", 16)),
    ]
)
"""A record of a pcap file: a SYN in IPv4 in Ethernet, without checksums."""


def write_crowd(path: Path, flows: int, way: str, seconds: float = SECONDS) -> None:
    """Write as many SYNs, each from another host or each to another destination."""
    packets = np.zeros(flows, PACKET)
    micros = (np.arange(flows) * (seconds * 1e6 / flows)).astype(np.int64)
    packets["seconds"], packets["micros"] = FIRST_S + micros // 10**6, micros % 10**6
    packets["kept"] = packets["length"] = PACKET.itemsize - 16
    packets["ethernet"] = _bytes("0200000000010200000000020800")
    packets["ip"] = _bytes("450000280001400040060000")
    packets["tcp"] = _bytes("00000001000000005002faf000000000")
    spread = 0x0A000000 + np.arange(flows)  # 10.0.0.0 and on
    alone = 0xC6336401  # 198.51.100.1
    packets["src"], packets["dst"] = (spread, alone) if way == "hosts" else (alone, spread)
    packets["src_port"], packets["dst_port"] = 40_000, 443
    header = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262_144, 1)
    path.write_bytes(header + packets.tobytes())


def _bytes(text: str) -> npt.NDArray[np.uint8]:
    return np.frombuffer(bytes.fromhex(text), np.uint8)


def lowered(model: Path, threshold: float, folder: Path) -> Path:
    """Copy a model with other thresholds: of flows and hosts, so that more is an alert."""
    copy = folder / "model"
    shutil.copytree(model, copy)
    path = copy / "model.json"
    manifest = json.loads(path.read_text())
    manifest["thresholds"] |= {"unit": threshold, "group": threshold}
    if manifest.get("windows"):
        manifest["windows"]["group"] = threshold
    path.write_text(json.dumps(manifest))
    return copy


def measure(capture: Path, model: Path, out: Path) -> dict[str, Any]:
    """Run `veilwatch detect` in a process of its own."""
    command = [sys.executable, "-m", "veilwatch", "detect", str(capture), "--model", str(model)]
    started = time.monotonic()
    child = os.posix_spawn(sys.executable, [*command, "-o", str(out), "-q"], os.environ)
    _, status, used = os.wait4(child, 0)
    seconds = time.monotonic() - started
    if status:
        raise SystemExit(f"detect ended with {os.waitstatus_to_exitcode(status)}")
    return {
        "seconds": seconds,
        "cpu_s": used.ru_utime + used.ru_stime,
        "peak_mib": used.ru_maxrss / 1024,
        "summary": json.loads((out / "summary.json").read_text()),
        "written": {file.name: file.stat().st_size for file in out.iterdir()},
    }


def main() -> None:
    """Measure both ways and print a line for each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model", type=Path, help="folder of a model of flows")
    parser.add_argument("--flows", type=int, default=1_000_000)
    parser.add_argument("--way", choices=WAYS, help="one of them only")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="that the capture spans")
    parser.add_argument("--lowered", type=float, help="thresholds in place of the model's own")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="veilwatch-benchmark-") as name:
        folder = Path(name)
        model = args.model
        if args.lowered is not None:
            model = lowered(model, args.lowered, folder)
        for way in (args.way,) if args.way else WAYS:
            capture = folder / f"{way}.pcap"
            write_crowd(capture, args.flows, way, args.seconds)
            found = measure(capture, model, folder / way)
            told = found["summary"]
            print(
                f"{args.flows:,} {way}: {found['seconds']:.0f} s, {found['cpu_s']:.0f} CPU s, "
                f"{found['peak_mib']:,.0f} MiB, {told['flow_alerts']:,} alerts of flows, "
                f"{told['host_alerts']:,} of hosts",
                flush=True,
            )
            for file, size in sorted(found["written"].items()):
                print(f"  {file} {size / 1e6:,.1f} MB")


if __name__ == "__main__":
    main()
