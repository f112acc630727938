"""How long a verb takes from the start of its process to the first packets read, kernels compiled.

    python benchmarks/start.py
    python benchmarks/start.py --rounds 9

Each start is a process of its own on a capture of 200 packets, after one that is not counted (it
writes Python's bytecode, which an installed package has). "First packets" is when the first block
reaches the decoder. CPU seconds are those of all threads: what an idle machine lets people wait.
The clock on the wall is there for those who measure on one. Beside them stand a Python that does
nothing, one that imports the libraries without which no flow is metered, and tshark.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

BAR_S: Final = 1.5

FLOORS: Final = {
    "python, nothing": [sys.executable, "-c", ""],
    "python, NumPy, Numba, Polars": [sys.executable, "-c", "import numpy, numba, polars"],
    "tshark": ["tshark", "-n", "-r", "{capture}", "-c", "1"],
}

VERBS: Final = {
    "inspect": ["inspect", "-q", "{capture}"],
    "flows": ["flows", "-q", "--force", "{capture}", "-o", "{folder}/flows.parquet"],
    "detect": [
        *("detect", "-q", "--force", "{capture}", "--model", "{folder}/model"),
        *("-o", "{folder}/out"),
    ],
}


def verb(words: list[str]) -> None:
    """Be the command line; say when the first block reaches the decoder."""
    from veilwatch.traffic.decode import Decoder

    decode = Decoder.decode

    def watched(self: Decoder, *arguments: Any) -> Any:
        Decoder.decode = decode  # type: ignore[method-assign]
        print(time.process_time(), time.monotonic(), file=sys.stderr, flush=True)
        return decode(self, *arguments)

    Decoder.decode = watched  # type: ignore[assignment, method-assign]
    from veilwatch.cli.main import run

    sys.argv = ["veilwatch", *words]
    run()


def started(command: list[str]) -> tuple[float, float, float]:
    """Return CPU and wall seconds to the first packets (of a floor: its end), CPU to the end."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True)
    after, ended = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    whole = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if "--run" not in command:
        return whole, ended - began, whole
    first, at = (float(word) for word in done.stderr.split()[:2])
    return first, at - began, whole


def prepare(folder: Path, capture: Path) -> None:
    """Compile, write a capture and train a model as `detect` takes it, of emulated traffic."""
    # Here, because whoever is measured must not import them.
    from generate import Traffic, write_capture
    from veilwatch.corpus.catalogue import load_corpus
    from veilwatch.corpus.lab import build_lab
    from veilwatch.learning.models import save_model
    from veilwatch.learning.training import TrainingOptions, train_model
    from veilwatch.traffic.pipeline import warm

    warm()
    write_capture(capture, Traffic(packets=200, flows=20, gtp=True))
    build_lab(folder / "lab", seed=7, scale=0.1)
    manifest = folder / "lab" / "MANIFEST.csv"
    model = train_model(load_corpus(manifest), manifest, TrainingOptions())
    save_model(folder / "model", model)


def main() -> None:
    """Start everything some times and print a table; or be a verb."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--run", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        verb(arguments.run)
        return
    with tempfile.TemporaryDirectory() as name:
        folder, capture = Path(name), Path(name) / "few.pcap"
        prepare(folder, capture)
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
        commands = {label: words for label, words in FLOORS.items() if shutil.which(words[0])}
        commands |= {
            f"veilwatch {label}": [sys.executable, __file__, "--run", *words]
            for label, words in VERBS.items()
        }
        taken: dict[str, list[tuple[float, float, float]]] = {label: [] for label in commands}
        for number in range(arguments.rounds + 1):
            for label, words in commands.items():
                filled = [word.format(capture=capture, folder=folder) for word in words]
                found = started(filled)
                if number:
                    taken[label].append(found)
    print("| best (median), s | first packets, CPU | first packets, wall | whole run, CPU |")
    print("|---|---|---|---|")
    for label, times in taken.items():
        columns = zip(*times, strict=True)
        cells = (f"{min(column):.2f} ({statistics.median(column):.2f})" for column in columns)
        print(f"| {label} | " + " | ".join(cells) + " |")
    print(f"\nBar: {BAR_S} s to the first packets")


if __name__ == "__main__":
    main()
