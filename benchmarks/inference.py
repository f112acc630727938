"""How many flows a second one core scores, detector by detector, beside a floor in the same run.

Every registered detector of flows is trained briefly (how long does not change its speed) and then
given a table of flows, features and scores in one, through its own `predict_proba`. Beside it
stands what no model can do without: one product of the same feature values with one weight
each. Twice: on flows as they come, most of them short, and on flows that all fill the first 64
packets that networks look at, which is the worst that can come::

    python benchmarks/inference.py
    python benchmarks/inference.py --json inference.json

Times are CPU seconds of this process, pinned to one core; compare figures of one run.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from generate import Traffic, write_capture
from throughput import pin
from veilwatch.learning.detectors import DETECTORS, Detector, DetectorSettings, TrainingSet
from veilwatch.learning.features import compute_features
from veilwatch.learning.features.informative import NETWORK_PACKETS
from veilwatch.schema.features import FeatureFrame
from veilwatch.schema.flows import FlowTable
from veilwatch.traffic.pipeline import FlowReader

BARS: Final = {"lightgbm": 100_000, "catboost": 100_000, "lstm": 10_000, "mobilenet": 5_000}
"""Flows a second on one core that a detector's scoring has to reach."""

BRIEF: Final[dict[str, dict[str, Any]]] = {
    name: {"epochs": 1, "samples": 512} for name in ("lstm", "mobilenet")
}
"""Settings that shorten training and leave the speed of scoring as it is."""

FLOWS: Final = 8192

LONGEST: Final = 2.0
"""Seconds after which no further pass is begun."""


def mixed_flows(folder: Path) -> FlowTable:
    """Return flows with lengths as in `generate`: heavy-tailed."""
    path = folder / "capture.pcap"
    write_capture(path, Traffic(30 * FLOWS, FLOWS, gtp=True))
    with FlowReader([path]) as reader:
        return reader.read_all()


def long_flows(table: FlowTable) -> FlowTable:
    """Return as many flows whose first packets all carry payload, each different."""
    rng = np.random.default_rng(5)
    shape = (len(table), NETWORK_PACKETS)
    payload = rng.integers(1, 1400, shape)
    columns = {
        "seq_size": rng.choice([-1, 1], shape) * (payload + 40),
        "seq_payload": payload,
        "seq_gap_us": np.exp(rng.uniform(0, 12, shape)).astype(np.int64),
        "seq_flags": np.full(shape, 0x18),
    }
    schema = table.frame.schema
    return FlowTable(
        table.frame.with_columns(
            pl.Series(name, values).cast(schema[name]) for name, values in columns.items()
        )
    )


def trained(name: str, table: FlowTable) -> Detector:
    """Return a detector that learned to tell odd flows from even ones."""
    features = compute_features(table, DETECTORS[name].feature_sets)
    number = np.arange(len(features))
    training = TrainingSet(
        features, number % 2 == 1, number % 20, number % 20, np.ones(len(features))
    )
    detector = DETECTORS[name]()
    detector.fit(training, DetectorSettings(threads=1, parameters=BRIEF.get(name, {})))
    return detector


def rate(work: Callable[[], object], flows: int, runs: int) -> float:
    """Return flows a CPU second, of the best pass."""
    seconds = []
    for _ in range(runs):
        began = time.process_time()
        work()
        seconds.append(time.process_time() - began)
        if sum(seconds) > LONGEST:
            break
    return flows / min(seconds)


def measure(name: str, detector: Detector, table: FlowTable, runs: int) -> dict[str, float]:
    """Return rates of features, scores and floor on one table."""
    sets = DETECTORS[name].feature_sets
    features: FeatureFrame = compute_features(table, sets)
    values = np.nan_to_num(features.values)
    weight = np.full(values.shape[1], 1e-9, np.float32)
    flows = len(table)
    out = {
        "features": rate(lambda: compute_features(table, sets), flows, runs),
        "scores": rate(lambda: detector.predict_proba(features), flows, runs),
        "floor": rate(lambda: 1 / (1 + np.exp(-(values @ weight))), flows, runs),
    }
    return out | {"both": 1 / (1 / out["features"] + 1 / out["scores"])}


def main() -> None:
    """Measure every detector of flows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--runs", type=int, default=7, help="passes of each measure")
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    args = parser.parse_args()
    print(f"core {pin()} of {os.cpu_count()}, load {os.getloadavg()[0]:.1f}; CPU time; ", end="")
    print(f"best of {args.runs} passes; flows/s")
    with tempfile.TemporaryDirectory(prefix="veilwatch-benchmark-") as folder:
        mixed = mixed_flows(Path(folder))
    tables = {"as they come": mixed, "64 packets each": long_flows(mixed)}
    head = ("detector", "flows", "features", "scores", "both", "floor", "× bar", "of floor")
    print("".join(f"{cell:>12}" if k > 1 else f"{cell:18}" for k, cell in enumerate(head)))
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name in DETECTORS:
        if DETECTORS[name].unit != "flow":
            continue
        detector = trained(name, mixed)
        found[name] = {}
        for label, table in tables.items():
            row = found[name][label] = measure(name, detector, table, args.runs)
            bar = f"{row['scores'] / BARS[name]:12.2f}" if name in BARS else f"{'':12}"
            rates = "".join(f"{row[k]:12,.0f}" for k in ("features", "scores", "both", "floor"))
            share = f"{row['scores'] / row['floor']:12.2%}"
            print(f"{name:18}{label:18}{rates}{bar}{share}", flush=True)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
