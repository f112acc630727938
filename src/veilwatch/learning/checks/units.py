"""Units drawn at random, of two classes that can be told apart: what detectors are tried on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from veilwatch.learning.detectors import Detector, TrainingSet
from veilwatch.learning.features import capture_features, compute_features
from veilwatch.learning.features.flow_class import FLOW_CLASSES
from veilwatch.learning.features.host_evidence import Evidence, host_evidence
from veilwatch.schema.features import FeatureFrame, Unit
from veilwatch.schema.flows import FLOW_COLUMNS, SEQUENCE_LENGTH, FlowTable
from veilwatch.schema.headers import ABSENT, HEADER_FIELDS, HEADER_PACKETS, HeaderTable
from veilwatch.traffic.handshake import SERVICES

ARRAYS = {
    "seq_size": pl.Int16,
    "seq_payload": pl.UInt16,
    "seq_gap_us": pl.UInt32,
    "seq_flags": pl.UInt8,
}

LATE = 40
"""Packet from which on the sequences of labelled flows tell the label."""


def random_flows(
    rows: int, *, seed: int = 0, malicious: np.ndarray[Any, Any] | None = None
) -> FlowTable:
    """Draw flows of believable types.

    Those of `malicious` send larger first payloads, pause more regularly, and from the 41st packet
    on, past what the set `sequence` looks at, carry more than the others.
    """
    rng = np.random.default_rng(seed)
    label = np.zeros(rows, bool) if malicious is None else malicious
    encrypted = pl.Series(rng.random(rows) < 0.4)
    frame = pl.DataFrame(
        [_column(column.name, column.dtype, rows, rng) for column in FLOW_COLUMNS]
    ).with_columns(
        pl.Series("flow_id", np.arange(rows)),
        pl.Series("parent_id", np.arange(rows)),
        pl.Series("first_ns", 1_700_000_000_000_000_000 + np.arange(rows) * 1_000_000),
        pl.Series("source", np.zeros(rows), pl.UInt32),
        pl.Series("fwd_first_payload", rng.poisson(np.where(label, 700, 300)), pl.UInt32),
        pl.Series("pause_std", rng.gamma(2, np.where(label, 0.5, 4.0)), pl.Float32),
    )
    if malicious is not None:
        frame = frame.with_columns(_late_packets(frame, malicious, seed))
    hello = ("tls_client_hello_bytes", "tls_server_hello_bytes", "quic_version")
    frame = frame.with_columns(pl.when(encrypted).then(name).otherwise(0) for name in hello)
    return FlowTable(frame.with_columns(last_ns=pl.col("first_ns") + 5_000_000_000)).check()


def random_windows(
    windows: int, *, seed: int = 0, malicious: np.ndarray[Any, Any] | None = None
) -> FlowTable:
    """Draw windows of five flows, one a host; those of `malicious` are seldom answered."""
    rng = np.random.default_rng([seed, 2])
    window = np.repeat(np.arange(windows), 5)
    label = np.zeros(windows, bool) if malicious is None else malicious
    frame = random_flows(len(window), seed=seed).frame
    answered = rng.random(len(window)) < np.where(label, 0.2, 0.8)[window]
    return FlowTable(
        frame.with_columns(
            # Hosts are numbered in the order of their windows.
            pl.Series("src_ip", [f"10.{n // 65536}.{n // 256 % 256}.{n % 256}" for n in window]),
            pl.Series("place", window, pl.UInt32),
            pl.lit("").alias("subscriber"),
            first_ns=pl.col("first_ns") + pl.Series(rng.integers(0, 250 * 10**9, len(window))),
            bwd_packets=pl.Series(answered, dtype=pl.UInt32) * pl.col("bwd_packets"),
        ).with_columns(last_ns=pl.col("first_ns") + 5_000_000_000)
    ).check()


def random_channels(
    channels: int, *, seed: int = 0, malicious: np.ndarray[Any, Any] | None = None
) -> FlowTable:
    """Draw channels of five flows, one a host; those of `malicious` are seldom answered."""
    frame = random_windows(channels, seed=seed, malicious=malicious).frame
    return FlowTable(
        frame.with_columns(
            pl.format("203.0.113.{}", pl.col("place") % 250).alias("dst_ip"),
            pl.lit(443, pl.UInt16).alias("dst_port"),
            pl.lit(6, pl.UInt8).alias("protocol"),
        )
    ).check()


def random_evidence(
    hosts: int, *, seed: int = 0, malicious: np.ndarray[Any, Any] | None = None
) -> FeatureFrame:
    """Draw evidence of hosts; of those of `malicious` some units are stronger than the others."""
    rng = np.random.default_rng([seed, 3])
    label = np.zeros(hosts, bool) if malicious is None else malicious

    def draw(most: int) -> Evidence:
        host = np.repeat(np.arange(hosts), rng.integers(1, most, hosts, endpoint=True))
        strong = label[host] & (rng.random(len(host)) < 0.5)
        odds = rng.normal(np.where(strong, 3.0, -3.0), 2.0)
        return Evidence(host, odds, rng.integers(0, len(FLOW_CLASSES), len(host)))

    return host_evidence(hosts, draw(40), draw(12), draw(6))


def random_headers(
    rows: int, *, seed: int = 0, malicious: np.ndarray[Any, Any] | None = None
) -> list[HeaderTable]:
    """Draw headers of captures; malicious ones send larger payloads, after longer silence."""
    rng = np.random.default_rng(seed)
    label = np.zeros(rows, bool) if malicious is None else malicious
    return [_header_table(bool(bad), rng) for bad in label]


def _header_table(malicious: bool, rng: np.random.Generator) -> HeaderTable:
    packets = int(rng.integers(4, HEADER_PACKETS + 1))
    values = rng.integers(0, 2**16, (packets, len(HEADER_FIELDS)))
    values[rng.random(values.shape) < 0.1] = ABSENT
    drawn = {
        "ip_protocol": rng.choice([6, 17], packets),
        "direction": rng.integers(0, 2, packets),
        "control": rng.choice([2, 16, 18, 24], packets),
        "flow": np.sort(rng.integers(0, 5, packets)),
        "payload": rng.poisson(700 if malicious else 60, packets),
        "gap": rng.poisson(1e9 if malicious else 1e6, packets),
    }
    for k, field in enumerate(HEADER_FIELDS):
        values[:, k] = drawn.get(field.name, values[:, k])
    return HeaderTable(values)


def _late_packets(
    frame: pl.DataFrame, malicious: np.ndarray[Any, Any], seed: int
) -> list[pl.Series]:
    """Return sequences whose late packets tell the label."""
    rng = np.random.default_rng([seed, 1])
    payload, size = (frame[name].to_numpy().copy() for name in ("seq_payload", "seq_size"))
    shape = payload[:, LATE:].shape
    payload[:, LATE:] = np.where(
        malicious[:, None], rng.integers(900, 1400, shape), rng.integers(0, 300, shape)
    )
    size[:, LATE:] = np.sign(size[:, LATE:]) * (payload[:, LATE:].astype(np.int16) + 40)
    return [
        pl.Series(name, values, frame.schema[name])
        for name, values in (("seq_payload", payload), ("seq_size", size))
    ]


def _column(name: str, dtype: Any, rows: int, rng: np.random.Generator) -> pl.Series:
    if name in ARRAYS:
        shape = rows, SEQUENCE_LENGTH
        values = rng.integers(0, 256 if name == "seq_flags" else 1400, shape)
        if name == "seq_size":  # a packet has headers and a direction
            values = (values + 40) * rng.choice([-1, 1], shape)
        if name == "seq_payload":
            values *= rng.random(shape) < 0.6
        return pl.Series(name, values, pl.Array(ARRAYS[name], SEQUENCE_LENGTH))
    if name == "service":
        return pl.Series(name, rng.choice(np.array(SERVICES), rows).tolist(), pl.String)
    if isinstance(dtype, pl.List):
        inner = dtype.inner
        lists = [
            ["h2"] * int(n) if inner == pl.String else rng.integers(0, 200, n).tolist()
            for n in rng.integers(0, 4, rows)
        ]
        return pl.Series(name, lists, dtype)
    if dtype == pl.String:
        prefix = "10.0.0." if name.endswith("_ip") else "name-"
        return pl.Series(name, [f"{prefix}{n}" for n in rng.integers(1, 9, rows)], dtype)
    if dtype == pl.Boolean:
        return pl.Series(name, rng.random(rows) < 0.5, dtype)
    if dtype == pl.Float32:
        return pl.Series(name, rng.gamma(2, 1.0, rows), dtype)
    return pl.Series(name, rng.integers(0, 100, rows), dtype)


def draw_features(
    detector: type[Detector],
    rows: int,
    *,
    seed: int = 0,
    malicious: npt.NDArray[np.bool_] | None = None,
    shortcuts: bool = False,
) -> FeatureFrame:
    """Draw units of a detector's own kind, with its own features."""
    sets = detector.feature_sets
    if detector.unit == "capture":
        tables = random_headers(rows, seed=seed, malicious=malicious)
        return capture_features(tables, sets, shortcuts=shortcuts)
    if detector.unit == "host":
        return random_evidence(rows, seed=seed, malicious=malicious)
    draw = _DRAW[detector.unit]
    return compute_features(draw(rows, seed=seed, malicious=malicious), sets, shortcuts=shortcuts)


_DRAW: Final[dict[Unit, Callable[..., FlowTable]]] = {
    "flow": random_flows,
    "channel": random_channels,
    "host_window": random_windows,
}
"""What draws flow tables of so many units."""


def widened(features: FeatureFrame) -> FeatureFrame:
    """Return the same units with one feature more than their schema has."""
    more = replace(features.schema.features[0], name="one_more")
    schema = replace(features.schema, features=(*features.schema.features, more))
    values = np.concatenate([features.values, features.values[:, :1]], axis=1)
    return replace(features, schema=schema, values=values)


def draw_training_set(detector: type[Detector], *, seed: int = 0, rows: int = 300) -> TrainingSet:
    """Draw units of both classes as a detector sees them, of ten captures of one group each.

    Where units are captures, each is one of its own, of ten groups.
    """
    group = np.arange(rows) % 10
    malicious = group % 2 == 1
    features = draw_features(detector, rows, seed=seed, malicious=malicious)
    capture = np.arange(rows) if detector.unit == "capture" else group
    return TrainingSet(features, malicious, capture, group, np.ones(rows))
