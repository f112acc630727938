"""A sensor in small: a model that tells captures apart, and a configuration to run it with."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.learning.comparison.factory import capture_corpus
from tests.learning.training.factory import QUICK
from veilwatch.corpus.catalogue import load_corpus
from veilwatch.learning.models import save_model
from veilwatch.learning.training import TrainingOptions, train_model


def make_field(folder: Path) -> Path:
    """Write captures of both classes and a model of them; return the folder of captures."""
    manifest = capture_corpus(folder / "corpus", captures=24, flows=8)
    corpus = load_corpus(manifest, workers=1)
    options = TrainingOptions(folds=2, target_rate=0.05, families=False, settings=QUICK)
    save_model(folder / "model", train_model(corpus, manifest, options))
    return folder / "corpus"


def write_config(folder: Path, *, source: str, sinks: list[str], **settings: str) -> Path:
    """Write a configuration; `settings` are further lines by section."""
    urls = json.dumps(sinks)
    sections = {
        "sensor": f'name = "ward"\nstate = "{folder / "state"}"',
        "capture": source + "\nemulated = true",
        "model": f'path = "{folder / "model"}"',
        "sinks": f"urls = {urls}",
        "metrics": 'listen = "127.0.0.1:0"',
        "archive": "keep_free_gb = 0",
    }
    for name, lines in settings.items():
        sections[name] = "\n".join(filter(None, [sections.get(name, ""), lines]))
    path = folder / "sensor.toml"
    path.write_text("".join(f"[{name}]\n{lines}\n" for name, lines in sections.items()))
    return path


@contextmanager
def running(config: Path, *prefix: str) -> Iterator[subprocess.Popen[str]]:
    """Run a sensor, and end it."""
    words = [*prefix, sys.executable, "-m", "veilwatch", "watch", "--config", str(config)]
    log = config.with_suffix(".log").open("a")
    process = subprocess.Popen(words, stderr=log, stdout=log, text=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(90)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        log.close()


def until(condition: Callable[[], Any], seconds: float = 90.0, why: str = "") -> Any:
    """Wait for something; return what it gave."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited in vain {why}"
        time.sleep(0.05)
    return found


def status(folder: Path) -> dict[str, Any]:
    """What the sensor last said of itself."""
    try:
        found: dict[str, Any] = json.loads((folder / "state" / "status.json").read_text())
    except (OSError, ValueError):
        return {}
    return found


def lines(path: Path) -> list[dict[str, Any]]:
    """Events of a JSON lines file; what is being written is left out."""
    out = []
    for file in sorted(path.glob("*.json*")) if path.is_dir() else [path]:
        if file.is_file():
            for line in file.read_bytes().split(b"\n")[:-1]:
                out.append(json.loads(line))
    return out


def drop(capture: Path, folder: Path, name: str) -> None:
    """Put a capture into a watched folder, whole at once, with a time of its own."""
    hidden = folder / f".{name}.part"
    hidden.write_bytes(capture.read_bytes())
    time.sleep(0.6)  # long enough to be seen under its hidden name
    hidden.replace(folder / name)
