"""Captures onto the N3 link, by tcpreplay."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rehearsal.network import DOWNLINK, UPLINK, Network

GNB_NETWORK: Final = "172.20.1.0/24"
"""Where the base stations' tunnel end points lie, of wrapped captures and of the lab's alike."""

_ACTUAL: Final = re.compile(r"Actual: (\d+) packets")
_FAILED: Final = re.compile(r"Failed packets:\s+(\d+)")
_END_S: Final = 10.0


def split_directions(capture: Path) -> Path:
    """Write which packets of a capture go up and which down; return tcpprep's file."""
    cache = capture.with_suffix(".cache")
    subprocess.run(
        ["tcpprep", f"--cidr={GNB_NETWORK}", f"--pcap={capture}", f"--cachefile={cache}"],
        capture_output=True,
        check=True,
    )
    return cache


@dataclass
class Replay:
    """One tcpreplay.

    Attributes
    ----------
    began_ns
        Wall clock at its start, ns since the epoch.
    sent, failed
        Packets, known once it has ended.
    """

    process: subprocess.Popen[str]
    log: Path
    began_ns: int = field(default_factory=time.time_ns)
    sent: int = 0
    failed: int = 0

    @property
    def running(self) -> bool:
        """Whether it still sends."""
        return self.process.poll() is None

    def end(self) -> None:
        """End it, and read what it says of itself."""
        if self.running:
            self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        said = self.log.read_text(errors="replace")
        self.sent = sum(int(count) for count in _ACTUAL.findall(said)[-1:])
        self.failed = sum(int(count) for count in _FAILED.findall(said))


def start(
    network: Network,
    capture: Path,
    *,
    rate: int | None = None,
    seconds: float = 0.0,
) -> Replay:
    """Replay a capture once at its own pace, or again and again at a rate for some seconds."""
    words = ["tcpreplay", "-i", UPLINK, "-I", DOWNLINK, "-c", str(capture.with_suffix(".cache"))]
    if rate is not None:
        words += ["--pps", str(rate), "--loop", "0", "--duration", str(max(1, round(seconds)))]
        words += ["--preload-pcap"]
    log = capture.with_suffix(".log")
    with log.open("w") as stream:
        process = subprocess.Popen(
            network.command("gnb", *words, capture), stdout=stream, stderr=stream, text=True
        )
    return Replay(process, log)
