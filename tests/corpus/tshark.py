"""What tshark shows of a capture."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def tshark(path: Path, *fields: str, keep: str = "frame") -> list[list[str]]:
    program = shutil.which("tshark")
    if program is None:
        pytest.skip("tshark is not installed")
    asked = [part for field in fields for part in ("-e", field)]
    checks = [p for n in ("ip", "udp", "tcp") for p in ("-o", f"{n}.check_checksum:TRUE")]
    done = subprocess.run(
        [program, "-n", "-r", str(path), "-Y", keep, *checks, "-T", "fields", *asked],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [line.split("\t") for line in done.stdout.splitlines()]
