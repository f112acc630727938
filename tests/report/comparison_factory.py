"""A comparison of detectors with believable figures, without training any."""

from __future__ import annotations

import numpy as np

from veilwatch.learning.comparison import figures
from veilwatch.learning.comparison.document import (
    BenignKind,
    Change,
    Comparison,
    Cost,
    DetectorResult,
    Family,
    Gate,
    Level,
    Point,
    Recommendation,
    SplitResult,
)

DETECTORS = {"lightgbm": 2.6, "catboost": 2.4, "lstm": 1.6, "mobilenet": 1.1, "header_words": 0.7}
CAPTURES, FOLDS = 60, 3


def level(rng: np.random.Generator, strength: float, units: int) -> Level:
    """Return the figures of scores of several folds, each on a scale of its own."""
    malicious = rng.random(units) < 0.4
    fold = rng.integers(0, FOLDS, units)
    drawn = rng.normal(malicious * strength + 1.5 * fold)
    score = 1 / (1 + np.exp(1.5 - drawn))
    draws = rng.multinomial(CAPTURES, np.full(CAPTURES, 1 / CAPTURES), 40)
    limit = np.full(units, 0.7)
    return figures._level(score, malicious, limit, fold, rng.integers(0, CAPTURES, units), draws)


def split(rng: np.random.Generator, strength: float, unit: str) -> SplitResult:
    levels = {"capture": level(rng, strength, 120)}
    if unit == "flow":
        levels = {
            "flow": level(rng, strength, 2000),
            "flow_tls": level(rng, strength, 900),
            **levels,
            "capture_with_windows": level(rng, strength, 120),
            "used_host_x1": level(rng, strength / 2, 120),
            "used_host_x3": level(rng, strength / 2, 120),
        }
    return SplitResult(
        levels=levels,
        without_background={"flow": levels["flow"]} if unit == "flow" else {},
        families={
            name: Family(captures=9, found=min(strength / 3, 1.0), is_ransomware=True)
            for name in ("LockBit-like", "A-family-with-quite-a-long-name", "Conti-like")
        },
        benign_kinds={
            name: BenignKind(captures=40 - k, alerted=k)
            for k, name in enumerate(("iot-setup", "enterprise-ad", "A kind & <its> name"))
        },
        benign_blends={"used_host_x1": BenignKind(captures=70, alerted=2)}
        if unit == "flow"
        else {},
    )


def comparison() -> Comparison:
    """Return a document of five detectors under two splits."""
    rng = np.random.default_rng(3)
    detectors = []
    for name, strength in DETECTORS.items():
        unit = "capture" if name == "header_words" else "flow"
        detectors.append(
            DetectorResult(
                name=name,
                unit=unit,
                splits={at: split(rng, strength, unit) for at in ("publisher", "group")},
                cost=Cost(
                    train_seconds=12.31,
                    train_cpu_seconds=30.2,
                    peak_memory=812_000_000,
                    units_per_second=45_120.4,
                    bytes=1_240_000,
                ),
                importance={f"fwd_payload_bytes_of_the_first_{k}": 0.3 / (k + 1) for k in range(15)}
                if name == "lightgbm"
                else {},
                robustness={
                    key: Change(
                        malicious=20,
                        benign=21,
                        found=0.95 - 0.1 * k,
                        false_alarms=0.0,
                        units_found=0.5,
                        units_false_alarms=0.01,
                    )
                    for k, key in enumerate(("none", "padding", "mtu"))
                },
            )
        )
    return Comparison(
        veilwatch="0.1.0",
        made="2026-06-01T08:40:00+00:00",
        command="veilwatch compare MANIFEST.csv",
        emulated=True,
        corpus={"malicious captures": 48, "benign captures": 1072, "flows": 81_220, "sources": 4},
        folds=FOLDS,
        seed=7,
        splits={
            "publisher": "Everything of one author is held out.",
            "group": "Whole variants are held out.",
        },
        detectors=detectors,
        gates=[
            Gate(name="no capture on both sides", passed=True, text="None was found."),
            Gate(name="metadata alone", passed=False, text="Metadata alone reaches 0.91."),
        ],
        recommendation=Recommendation(
            detector="lightgbm",
            text="lightgbm comes nearest to what was asked for.",
            meets_bars=False,
        ),
        changes={
            "none": "as it was captured",
            "padding": "payloads padded to whole 256 bytes",
            "mtu": "another MTU of the GTP tunnel",
        },
        notes=["Figures on emulated captures say nothing about real malware."],
        map=[
            Point(x=float(x), y=float(y), label=label)
            for x, y, label in zip(
                rng.normal(size=300),
                rng.normal(size=300),
                rng.choice(["benign", "LockBit-like", "Conti-like"], 300),
                strict=True,
            )
        ],
    )
