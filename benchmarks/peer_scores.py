"""Packets a CPU second from capture to scored flows, beside NFStream and the same learner.

    pip install nfstream        # beside Veilwatch; nothing else needs it
    python benchmarks/peer_scores.py --packets 900000 --flows 20000 --rounds 3

Both sides meter a capture to statistics and the first 50 packets of every flow, and let a model
score them: as many LightGBM detectors of as many trees and leaves as `veilwatch train` makes, on
NFStream's features or on ours. Ours does what `veilwatch detect` does before it explains and
writes. Labels are drawn, so that the trees are as large as they may be, and mean nothing. Figures
as in `peers.py`: CPU seconds of one core, the best of the rounds, starting subtracted.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from generate import Traffic, write_capture
from peer_nfstream import METER, SEQUENCE, STATISTICS
from peers import CONFIG, measure_programs
from veilwatch.learning.detectors import DetectorSettings, TrainingSet
from veilwatch.learning.detectors.lightgbm import LightGBMDetector
from veilwatch.learning.features import compute_features, feature_schema
from veilwatch.learning.models.model import mean_score
from veilwatch.schema.features import FeatureFrame, FeatureSchema, FeatureSpec
from veilwatch.traffic.pipeline import FlowReader, warm
from veilwatch.traffic.pipeline.extract import CHUNK_FLOWS

MEMBERS: Final = 5
"""Detectors of a model: one for each fold that `veilwatch train` makes."""

TRAINING: Final = Traffic(packets=270_000, flows=6_000, seed=11)

STEPS: Final = CONFIG.sequence_length
PEER_SCHEMA: Final = FeatureSchema(
    "nfstream",
    1,
    tuple(
        FeatureSpec(name, "", "")
        for name in (*STATISTICS, *(f"{name}_{i:02}" for name in SEQUENCE for i in range(STEPS)))
    ),
)


def ours(path: Path) -> Iterator[FeatureFrame]:
    """Veilwatch: everything that a flow table holds, and the features that a model sees."""
    with FlowReader([path], config=CONFIG) as reader:
        for table in reader:
            yield compute_features(table)


def peer(path: Path) -> Iterator[FeatureFrame]:
    """NFStream: all its statistics and the sequence, as a matrix."""
    from nfstream import NFStreamer

    rows = (
        [
            *(getattr(flow, name) for name in STATISTICS),
            *(value for name in SEQUENCE for value in getattr(flow, name)),
        ]
        for flow in NFStreamer(source=str(path), **{**METER, "splt_analysis": STEPS})
    )
    while chunk := list(islice(rows, CHUNK_FLOWS)):
        yield FeatureFrame(PEER_SCHEMA, np.array(chunk, np.float32), pl.DataFrame())


SIDES: Final[dict[str, tuple[Callable[[Path], Iterable[FeatureFrame]], FeatureSchema]]] = {
    "Veilwatch": (ours, feature_schema()),
    "NFStream": (peer, PEER_SCHEMA),
}


def train(side: str, capture: Path, folder: Path) -> None:
    """Grow a side's detectors on its own features of one capture."""
    features, schema = SIDES[side]
    values = np.concatenate([frame.values for frame in features(capture)])
    count = len(values)
    training = TrainingSet(
        FeatureFrame(schema, values, pl.DataFrame()),
        np.random.default_rng(7).random(count) < 0.5,
        np.zeros(count, np.int64),
        np.zeros(count, np.int64),
        np.ones(count),
    )
    for number in range(MEMBERS):
        place = folder / side / str(number)
        place.mkdir(parents=True)
        detector = LightGBMDetector()
        detector.fit(training, DetectorSettings(seed=number))
        detector.save(place)


def score(side: str, folder: Path, capture: Path) -> None:
    """Score every flow of a capture."""
    features, schema = SIDES[side]
    members = [LightGBMDetector.load(folder / side / str(k), schema) for k in range(MEMBERS)]
    for frame in features(capture):
        mean_score(members, frame)


def main() -> None:
    """Compare, or be one of the two that are compared."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--packets", type=int, default=Traffic().packets)
    parser.add_argument("--flows", type=int, default=Traffic().flows)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        side, folder, capture = arguments.run
        score(side, Path(folder), Path(capture))
        return
    if importlib.util.find_spec("nfstream") is None:
        sys.exit("nfstream is not installed: pip install nfstream")
    warm()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path, empty = folder / "all.pcap", folder / "few.pcap"
        write_capture(path, TRAINING)
        for side in SIDES:
            train(side, path, folder)
        programs = {side: [sys.executable, __file__, "--run", side, str(folder)] for side in SIDES}
        print("| capture to scored flows, packets/CPU s | Veilwatch | NFStream | × |")
        print("|---|---|---|---|")
        for label, gtp in (("plain", False), ("in GTP-U", True)):
            write_capture(path, Traffic(arguments.packets, arguments.flows, gtp=gtp))
            write_capture(empty, Traffic(packets=200, flows=20, gtp=gtp))
            taken = measure_programs(programs, path, empty, arguments.rounds)
            rate = {side: arguments.packets / cpu for side, (cpu, _) in taken.items()}
            ratio = rate["Veilwatch"] / rate["NFStream"]
            print(f"| {label} | {rate['Veilwatch']:,.0f} | {rate['NFStream']:,.0f} | {ratio:.1f} |")


if __name__ == "__main__":
    main()
