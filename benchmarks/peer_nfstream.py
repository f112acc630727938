"""Veilwatch beside a peer: the flow features of NFStream, learned by the same LightGBM.

NFStream (Aouini and Pekar, Computer Networks 204, 2022) meters the same captures. All that it
measures of a flow, and the sequence of its first 20 packets, go to the detector that Veilwatch
uses, with the same settings, folds, flow weights and figures of merit: only the meter and its
features differ. How to run it, and what is not equal: README.md beside this file.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from veilwatch.corpus.catalogue import load_corpus
from veilwatch.corpus.manifest import CaptureEntry, read_manifest
from veilwatch.learning.detectors import DetectorSettings, TrainingSet
from veilwatch.learning.detectors.evidence import group_scores
from veilwatch.learning.detectors.lightgbm import PARAMETERS
from veilwatch.learning.evaluation.evaluate import (
    CAPTURE,
    CaptureScores,
    mean_of_folds,
    measure_levels,
)
from veilwatch.learning.evaluation.labelled import Labels
from veilwatch.learning.evaluation.metrics import RATES
from veilwatch.learning.evaluation.splits import SplitBy, assign_folds
from veilwatch.learning.features.handshake import HANDSHAKE_FEATURES
from veilwatch.learning.training.crossfit import cross_fit
from veilwatch.learning.training.units import read_units
from veilwatch.learning.training.weights import unit_weights
from veilwatch.schema.features import FeatureFrame, FeatureSchema, FeatureSpec

STEPS: Final = 20
"""Packets of the sequence."""

METER: Final[dict[str, Any]] = {
    "statistical_analysis": True,
    "splt_analysis": STEPS,
    "accounting_mode": 1,
    "idle_timeout": 120,
    "active_timeout": 1800,
    "decode_tunnels": True,
    "n_meters": 1,
    "performance_report": 0,
}
"""NFStream's settings; all else is at its default. Sizes are those of IP (accounting mode 1): with
its default, sizes on the link with their padding, it finds less at low false-positive rates."""

SIDES: Final = ("bidirectional", "src2dst", "dst2src")
MOMENTS: Final = ("min", "mean", "stddev", "max")
FLAGS: Final = ("syn", "cwr", "ece", "urg", "ack", "psh", "rst", "fin")

STATISTICS: Final = (
    "protocol",
    *(f"{side}_{name}" for side in SIDES for name in ("duration_ms", "packets", "bytes")),
    *(f"{side}_{m}_{what}" for side in SIDES for what in ("ps", "piat_ms") for m in MOMENTS),
    *(f"{side}_{flag}_packets" for side in SIDES for flag in FLAGS),
)
"""All that NFStream measures; no address, port, id, time of day, name, VLAN or tunnel kind."""

SEQUENCE: Final = ("splt_direction", "splt_ps", "splt_piat_ms")

FEATURES: Final = (*STATISTICS, *(f"{name}_{i:02}" for name in SEQUENCE for i in range(STEPS)))
"""The inputs of the model, in order."""

ENCRYPTED: Final = frozenset({"TLS", "QUIC", "DTLS", "SMTPS", "IMAPS", "POPS", "FTPS"})
"""nDPI's protocols, that is its names up to the first dot, whose payload TLS or QUIC encrypts."""

UPPER_SHARE: Final = 0.25
"""Share of a capture's flows that its score is made of, the same for both."""

FOLDS: Final = 5
SEED: Final = 7


def is_encrypted(application: str, guessed: bool) -> bool:
    """Return whether nDPI saw TLS or QUIC in a flow's content, not just in its port.

    Examples
    --------
    >>> is_encrypted("TLS.Google", False), is_encrypted("TLS", True), is_encrypted("DNS", False)
    (True, False, False)
    """
    return not guessed and application.split(".", 1)[0] in ENCRYPTED


def meter(capture: Path, index: int) -> list[list[float]]:
    """Return a row for each flow of a capture: its index, whether it is TLS, the features."""
    from nfstream import NFStreamer  # not a dependency of Veilwatch: only `extract` needs it

    return [
        [
            index,
            is_encrypted(flow.application_name, bool(flow.application_is_guessed)),
            *(getattr(flow, name) for name in STATISTICS),
            *(value for name in SEQUENCE for value in getattr(flow, name)),
        ]
        for flow in NFStreamer(source=str(capture), **METER)
    ]


def extract(manifest: Path, out: Path) -> None:
    """Meter every capture of a corpus with NFStream and write one row a flow."""
    entries = read_manifest(manifest)
    rows: list[list[float]] = []
    unread: list[str] = []
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "capture"
        for index, entry in enumerate(entries):
            opener: Callable[..., Any] = gzip.open if entry.file.suffix == ".gz" else Path.open
            try:
                with opener(entry.file, "rb") as packed, plain.open("wb") as target:
                    shutil.copyfileobj(packed, target)
                flows = meter(plain, index)
            except (OSError, EOFError, ValueError) as error:
                unread.append(f"{entry.name}: {error}")
                continue
            if not flows:
                unread.append(f"{entry.name}: no flow")
            rows += flows
    names = ("capture", "encrypted", *FEATURES)
    table = np.array(rows, np.float32).reshape(-1, len(names))
    frame = pl.DataFrame(dict(zip(names, table.T, strict=True)))
    frame.with_columns(
        pl.col("capture").cast(pl.UInt32), pl.col("encrypted").cast(pl.Boolean)
    ).write_parquet(out)
    print(
        f"{len(table):,} flows of {len(entries)} captures in {time.monotonic() - began:.0f} s; "
        f"{len(unread)} gave nothing"
    )
    for line in unread:
        print("  ", line)


def read_peer(features: Path, entries: Sequence[CaptureEntry]) -> tuple[TrainingSet, Labels]:
    """Return what `extract` wrote as the detector takes it, flows weighed as Veilwatch does."""
    table = pl.read_parquet(features)
    capture = table["capture"].to_numpy().astype(np.int64)
    by_capture = np.array([entry.label == "malicious" for entry in entries], bool)
    labels = Labels(
        capture=capture,
        malicious=by_capture[capture],
        encrypted=table["encrypted"].to_numpy(),
        capture_malicious=by_capture,
        background=np.zeros(len(capture), bool),
    )
    schema = FeatureSchema("nfstream", 1, tuple(FeatureSpec(name, "", "") for name in FEATURES))
    values = np.ascontiguousarray(table.select(FEATURES).to_numpy().astype(np.float32))
    weight = unit_weights(capture, labels.malicious)
    frame = FeatureFrame(schema, values, table.select("capture"))
    # Nothing is held back inside a fold, so the groups are not looked at.
    return TrainingSet(frame, labels.malicious, capture, capture, weight), labels


def without_handshake(training: TrainingSet) -> TrainingSet:
    """Return a set without what is parsed from handshakes, which NFStream does not measure."""
    frame = training.features
    parsed = {feature.spec.name for feature in HANDSHAKE_FEATURES}
    keep = [k for k, spec in enumerate(frame.schema.features) if spec.name not in parsed]
    schema = replace(frame.schema, features=tuple(frame.schema.features[k] for k in keep))
    values = np.ascontiguousarray(frame.values[:, keep])
    return replace(training, features=FeatureFrame(schema, values, frame.keys))


def flow_folds(
    split: str, entries: Sequence[CaptureEntry], capture: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Return the fold of each flow, shape (flows,)."""
    if split == "flow":
        return np.random.default_rng(SEED).integers(0, FOLDS, len(capture))
    by: SplitBy = "source" if split == "source" else "group"
    return assign_folds(entries, by, folds=FOLDS, seed=SEED)[capture]


def judge(
    score: npt.NDArray[np.float64], labels: Labels, fold: npt.NDArray[np.int64], by_capture: bool
) -> dict[str, Any]:
    """Return the figures of each fold, their means over folds with both classes, and of all."""
    captures = np.full(len(labels.capture_malicious), np.nan)
    if by_capture:  # else the flows of a capture lie in several folds
        captures = group_scores(score, labels.capture, len(captures), upper_share=UPPER_SHARE)
    home = np.full(len(captures), -1)
    home[labels.capture] = fold

    def levels(flows: npt.NDArray[np.bool_], whole: npt.NDArray[np.bool_]) -> dict[str, Any]:
        found = measure_levels(
            np.where(flows, score, np.nan),
            {CAPTURE: CaptureScores(np.where(whole, captures, np.nan), 0.5)},
            labels,
            unit_threshold=0.5,
        )
        for level in found.values():
            level.pop("curve", None)
        return found

    folds = [levels(fold == number, home == number) for number in range(FOLDS)]
    everything = levels(np.ones(len(fold), bool), np.ones(len(home), bool))
    return {"mean": mean_of_folds(folds), "together": everything, "folds": folds}


def compare(features: Path, manifest: Path, split: str, threads: int, out: Path) -> None:
    """Cross-fit both on the same folds; print the figures and write them to `out`."""
    corpus = load_corpus(manifest)
    settings = DetectorSettings(seed=SEED, threads=threads)
    units = read_units(corpus, "lightgbm")
    own, own_labels = units.training_set(corpus, SEED), units.labels
    peer, peer_labels = read_peer(features, corpus.entries)
    even = replace(peer, weight=np.ones(len(peer.weight)))
    contenders = {
        "veilwatch": (own, own_labels),
        "veilwatch, no handshake facts": (without_handshake(own), own_labels),
        "nfstream": (peer, peer_labels),
        "nfstream, flows weigh the same": (even, peer_labels),
    }
    document: dict[str, Any] = {"split": split, "parameters": PARAMETERS, "meter": METER}
    print(f"split by {split}, mean of {FOLDS} folds; detection rates at false-positive rates")
    print(f"{'':32}{'level':10}{'ROC AUC':>9}{'AP':>7}" + "".join(f"{r:>8}" for r in RATES))
    for name, (training, labels) in contenders.items():
        began = time.monotonic()
        fold = flow_folds(split, corpus.entries, labels.capture)
        score = cross_fit("lightgbm", training, fold, settings).score
        result = judge(score, labels, fold, by_capture=split != "flow")
        document[name] = {
            "flows": len(score),
            "flows_malicious": int(labels.malicious.sum()),
            "flows_tls": int(labels.encrypted.sum()),
            "captures": len(np.unique(labels.capture)),
            "features": len(training.features.schema.features),
            "seconds": round(time.monotonic() - began, 1),
            **result,
        }
        for level, figures in result["mean"].items():
            if not figures["folds"]:
                continue
            line = (
                f"{name:32}{level:10}{figures['roc_auc']:9.3f}{figures['average_precision']:7.3f}"
            )
            rates = figures["detection_rate_at_fpr"].values()
            print(line + "".join(f"{rate:8.3f}" for rate in rates), flush=True)
    out.write_text(json.dumps(document, indent=1) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    verbs = parser.add_subparsers(dest="verb", required=True)
    one = verbs.add_parser("extract", help="meter a corpus with NFStream")
    one.add_argument("--corpus", type=Path, required=True, help="manifest of the captures")
    one.add_argument("--out", type=Path, required=True, help="Parquet file to write")
    two = verbs.add_parser("compare", help="cross-fit both on the same folds")
    two.add_argument("--features", type=Path, required=True, help="what extract wrote")
    two.add_argument("--corpus", type=Path, required=True, help="manifest of the captures")
    two.add_argument("--split", choices=("source", "group", "flow"), default="source")
    two.add_argument("--threads", type=int, default=1)
    two.add_argument("--json", type=Path, required=True, help="JSON file to write")
    args = parser.parse_args(arguments)
    if args.verb == "extract":
        extract(args.corpus, args.out)
    else:
        compare(args.features, args.corpus, args.split, args.threads, args.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
