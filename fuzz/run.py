"""Run one fuzzing target, or all of them in turn.

    python -m fuzz.run                       # all, FUZZ_SECONDS (default 1800) in sum
    python -m fuzz.run decoder               # one, until Ctrl-C
    python -m fuzz.run decoder FILE          # replay a finding

A finding (crash, disagreement with an oracle, an input that takes longer than 10 s, or memory above
2 GiB) is written to fuzz/findings and makes the run fail.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

TARGETS: Final = ("reader", "decoder", "meter", "handshake", "control")
FINDINGS: Final = Path(__file__).parent / "findings"
UNIT_TIMEOUT_S: Final = 10
MEMORY_MB: Final = 2048
LONGEST: Final = 4096  # bytes of an input


def fuzz(name: str, arguments: list[str]) -> None:
    """Fuzz one target in this process; does not return."""
    import atheris

    target = importlib.import_module(f"fuzz.target_{name}")
    for seed in target.SEEDS:
        target.one(seed)  # kernels compile here, not within the time that an input may take
    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(target.SEEDS):
            (Path(folder) / str(number)).write_bytes(seed)
        inputs = arguments if any(not word.startswith("-") for word in arguments) else []
        atheris.Setup([f"fuzz-{name}", *arguments, *([] if inputs else [folder])], target.one)
        atheris.Fuzz()


def main() -> int:
    """Run what the command line names."""
    FINDINGS.mkdir(exist_ok=True)
    bounds = [
        *(f"-timeout={UNIT_TIMEOUT_S}", f"-rss_limit_mb={MEMORY_MB}", f"-max_len={LONGEST}"),
        f"-artifact_prefix={FINDINGS}/",
    ]
    if len(sys.argv) > 1:
        fuzz(sys.argv[1], [*bounds, *sys.argv[2:]])
    seconds = int(os.environ.get("FUZZ_SECONDS", "1800")) // len(TARGETS)
    failed = []
    for name in TARGETS:
        print(f"fuzzing {name} for {seconds} s", flush=True)
        command = [sys.executable, "-m", "fuzz.run", name, f"-max_total_time={seconds}"]
        if subprocess.run([*command, "-print_final_stats=1"], check=False).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}; findings in {FINDINGS}, replay with")
        print("  python -m fuzz.run TARGET FILE")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
