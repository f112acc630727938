"""The field rehearsal in small: emulated traffic, a quick model, real processes and namespaces."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from rehearsal.run import NEEDED
from rehearsal.traffic import readdress
from scapy.layers.inet import IP, TCP, UDP

from veilwatch.corpus.tunnel import Subscriber, wrap

ROOT = Path(__file__).parents[2]

SUBSCRIBER = Subscriber(
    IPv4Address("10.1.2.3"), 17, 18, 9, IPv4Address("172.20.1.10"), IPv4Address("172.20.9.2")
)


@pytest.mark.parametrize("layer", [TCP(sport=1, dport=2), UDP(sport=1, dport=2)])
def test_other_addresses_leave_checksums_right(layer: Any) -> None:
    packet = bytes(IP(src="10.1.2.3", dst="198.51.100.7") / layer / b"payload")
    frame = bytearray(wrap(packet, SUBSCRIBER, uplink=True, pdu_session=True))
    new = IPv4Address("172.28.7.9").packed, IPv4Address("198.51.100.7").packed
    readdress(frame, new)
    changed = IP(bytes(frame[58:]))
    assert (changed.src, changed.dst) == ("172.28.7.9", "198.51.100.7")
    again = IP(bytes(changed))
    del again.chksum, again.payload.chksum
    assert bytes(IP(bytes(again))) == bytes(changed)


@pytest.mark.slow
def test_a_small_rehearsal_passes_its_own_checks(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    if missing := [tool for tool in NEEDED if shutil.which(tool) is None]:
        pytest.skip(f"needs {', '.join(missing)}")
    out = tmp_path / "out"
    words = [sys.executable, "-m", "rehearsal.run", "--lab", "--lab-scale", "0.1", "--rounds", "10"]
    words += ["--seconds", "12", "--rate", "3000", "--infections", "3", "--out", str(out), "-q"]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}
    done = subprocess.run(
        words, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((out / "rehearsal.json").read_text())
    assert len(found["infections"]) == 3
    assert found["settings"]["traffic"] == "emulated" and "emulated" in done.stdout
    assert found["stages"]["sent"] == found["stages"]["read"] > 3000
    assert all(check["good"] for check in found["checks"])
    assert (out / "field-report.html").stat().st_size > 10_000
    assert "rehearsal-" not in subprocess.run(
        ["ip", "netns"], capture_output=True, text=True, check=True
    ).stdout  # fmt: skip


def test_what_is_missing_is_one_line(tmp_path: Path) -> None:
    bare = {"PATH": str(tmp_path), "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}
    done = subprocess.run(
        [sys.executable, "-m", "rehearsal.run"],
        env=bare, cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and ("install" in done.stderr or "root" in done.stderr)
