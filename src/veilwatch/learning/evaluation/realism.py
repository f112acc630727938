"""How far emulated traffic is from real traffic: two-sample tests, feature by feature and whole.

Flows of one capture resemble each other, so captures are the units: each weighs one however many
flows it has, and the bootstrap draws captures. A distance is read beside that of two halves of the
real captures, which is not zero either.

Two samples are compared for each class and service. Malicious are the flows to a capture's
`malicious_endpoints`; where its row names none, all but the background of its host.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from veilwatch.corpus.catalogue import Corpus
from veilwatch.corpus.hygiene import is_background
from veilwatch.learning.features.registry import compute_features
from veilwatch.progress import SILENT, Progress
from veilwatch.schema.flows import FlowTable

Floats = npt.NDArray[np.float64]

SERVICES: Final = ("tls", "dns", "http", "smb", "other")
"""Services that are compared by themselves; QUIC is one of the others, the lab has none."""

MAX_FLOWS_PER_CAPTURE: Final = 100
"""Flows of one capture and service that are looked at, drawn at random: enough for its share of a
distribution of `BINS` steps, and a corpus of thousands of captures stays within memory."""

LEAST_CAPTURES: Final = 8
"""Captures on either side below which nothing is said."""

BINS: Final = 128
"""Steps of a distribution, at quantiles of both samples: a distance is right to within 1/128."""

RESAMPLES: Final = 200
"""Draws of the bootstrap: ends of a 95 % interval are the fifth value from either side."""

FOLDS: Final = 3
"""Folds of the classifier, split by group."""


class FeatureDistance(NamedTuple):
    """How differently a feature is distributed.

    Attributes
    ----------
    feature
        Its name.
    distance
        Kolmogorov-Smirnov distance, 0…1; a missing value counts as below all others.
    low, high
        Its 95 % interval, from a bootstrap over captures.
    among_real
        Median distance between two random halves of the real captures.
    emulated, real
        Medians, NaN if most flows have no value.
    """

    feature: str
    distance: float
    low: float
    high: float
    among_real: float
    emulated: float
    real: float


@dataclass(frozen=True, slots=True)
class Sample:
    """One class and service of both corpora.

    Attributes
    ----------
    label, service
        Which flows.
    emulated, real
        Captures that have such flows.
    auc
        Of a classifier that tells emulated from real flows in captures it has not seen: 0.5 it
        cannot, 1 it always can. A capture weighs one.
    telling
        Features that this classifier used most.
    features
        Distances, largest first.
    """

    label: str
    service: str
    emulated: int
    real: int
    auc: float
    telling: tuple[str, ...]
    features: tuple[FeatureDistance, ...]

    @property
    def median_distance(self) -> float:
        """Median over features that vary."""
        return float(np.median([item.distance for item in self.features]))

    def document(self) -> dict[str, Any]:
        """Return the sample as JSON has it."""
        features = [
            {k: None if v != v else v for k, v in item._asdict().items()} for item in self.features
        ]
        return {
            **asdict(self),
            "telling": list(self.telling),
            "median_distance": self.median_distance,
            "features": features,
        }


def measure_realism(
    emulated: Corpus, real: Corpus, *, seed: int = 0, threads: int = 0, progress: Progress = SILENT
) -> list[Sample]:
    """Compare two corpora for each class and service that both have.

    Parameters
    ----------
    emulated, real
        The corpora.
    seed
        Of the flows, halves and resamples that are drawn.
    threads
        Of the classifier; 0 all.
    progress
        Told of each class and service.
    """
    chosen = [_choose(corpus, seed) for corpus in (emulated, real)]
    wanted = [(label, service) for label in ("malicious", "benign") for service in SERVICES]
    progress.start("comparing emulated and real flows", len(wanted))
    found = []
    for label, service in wanted:
        sides = [
            frame.filter((pl.col("label") == label) & (pl.col("kind") == service))
            for frame in chosen
        ]
        if min(side["capture"].n_unique() for side in sides) >= LEAST_CAPTURES:
            groups = [[entry.group for entry in corpus.entries] for corpus in (emulated, real)]
            found.append(_compare(label, service, sides, groups, seed, threads))
        progress.advance()
    return found


def _choose(corpus: Corpus, seed: int) -> pl.DataFrame:
    """Return the flows that are looked at with `label` and `kind`."""
    entries = corpus.entries
    captures = pl.DataFrame(
        {
            "capture": np.arange(len(entries), dtype=np.uint32),
            "capture_label": [entry.label for entry in entries],
            "named": [entry.extra.get("malicious_endpoints", "").split(";") for entry in entries],
        },
        schema_overrides={"named": pl.List(pl.String)},
    )
    service = pl.col("service").cast(pl.String)
    endpoint = pl.format("{}:{}", pl.col("dst_ip").cast(pl.String), pl.col("dst_port"))
    told = (
        pl.when(pl.col("named") == [""])
        .then(~is_background())
        .otherwise(endpoint.is_in(pl.col("named")))
    )
    return (
        corpus.flows.join(captures, on="capture", how="left", maintain_order="left")
        .with_columns(
            kind=pl.when(service.is_in(SERVICES)).then(service).otherwise(pl.lit("other")),
            label=pl.when(pl.col("capture_label") == "benign")
            .then(pl.lit("benign"))
            .when(told)
            .then(pl.lit("malicious")),
        )
        .filter(pl.col("label").is_not_null())
        .sample(fraction=1.0, shuffle=True, seed=seed)
        .group_by("capture", "label", "kind", maintain_order=True)
        .head(MAX_FLOWS_PER_CAPTURE)
    )


def _compare(
    label: str,
    service: str,
    sides: list[pl.DataFrame],
    groups: list[list[str]],
    seed: int,
    threads: int,
) -> Sample:
    rng = np.random.default_rng(seed)
    frames = [
        compute_features(FlowTable(side.drop("capture_label", "named", "kind", "label", "capture")))
        for side in sides
    ]
    names = frames[0].schema.names
    values = [frame.values.astype(np.float64) for frame in frames]
    captures = [side["capture"].to_numpy() for side in sides]
    numbered = [np.unique(capture, return_inverse=True)[1] for capture in captures]
    distances = [
        found
        for column, name in enumerate(names)
        if (found := _distance(name, [v[:, column] for v in values], numbered, rng)) is not None
    ]
    of_flows = [
        f"{side}/{group[capture]}"
        for side, (group, column) in enumerate(zip(groups, captures, strict=True))
        for capture in column
    ]
    auc, weights = _classify(values, numbered, of_flows, seed, threads)
    telling = tuple(names[k] for k in np.argsort(-weights)[:5] if weights[k] > 0)
    emulated, real = (int(capture.max()) + 1 for capture in numbered)
    ranked = tuple(sorted(distances, key=lambda item: -item.distance))
    return Sample(label, service, emulated, real, auc, telling, ranked)


def _distance(
    name: str,
    values: list[Floats],
    captures: list[npt.NDArray[np.intp]],
    rng: np.random.Generator,
) -> FeatureDistance | None:
    """Return the distance of one feature; None if it has one value only."""
    # Each capture is a distribution of its own, and a sample is the mean of its captures': the
    # bootstrap then only weighs rows.
    known = np.concatenate(values)
    known = known[np.isfinite(known)]
    steps = np.unique(np.quantile(known, np.linspace(0, 1, BINS))) if known.size else known
    if steps.size == 0 or (steps.size == 1 and all(np.isfinite(v).all() for v in values)):
        return None
    rows = [_per_capture(v, c, steps) for v, c in zip(values, captures, strict=True)]
    emulated, real = rows
    drawn = [rng.multinomial(len(r), np.full(len(r), 1 / len(r)), RESAMPLES) / len(r) for r in rows]
    spread = np.abs(drawn[0] @ emulated - drawn[1] @ real).max(axis=1)
    low, high = np.quantile(spread, (0.025, 0.975))
    return FeatureDistance(
        name,
        float(np.abs(emulated.mean(axis=0) - real.mean(axis=0)).max()),
        float(low),
        float(high),
        float(np.median(list(_halves(real, rng)))),
        *(_median(row, steps) for row in rows),
    )


def _per_capture(values: Floats, captures: npt.NDArray[np.intp], steps: Floats) -> Floats:
    """Return the distribution function of each capture: the share up to each step."""
    bins = np.searchsorted(steps, values, "left") + 1
    bins[~np.isfinite(values)] = 0
    count = int(captures.max()) + 1
    flat = np.bincount(captures * (len(steps) + 2) + bins, minlength=count * (len(steps) + 2))
    table = flat.reshape(count, len(steps) + 2).astype(np.float64)
    shares: Floats = np.cumsum(table / table.sum(axis=1, keepdims=True), axis=1)
    return shares


def _halves(rows: Floats, rng: np.random.Generator) -> Iterator[float]:
    """Yield distances between halves of captures."""
    for _ in range(20):
        order = rng.permutation(len(rows))
        first, second = order[: len(rows) // 2], order[len(rows) // 2 :]
        yield float(np.abs(rows[first].mean(axis=0) - rows[second].mean(axis=0)).max())


def _median(rows: Floats, steps: Floats) -> float:
    """Return the median of captures that weigh alike, NaN where half has no value."""
    at = int(np.searchsorted(rows.mean(axis=0), 0.5, "left"))
    return float("nan") if at == 0 else float(steps[min(at - 1, len(steps) - 1)])


def _classify(
    values: list[Floats],
    captures: list[npt.NDArray[np.intp]],
    groups: list[str],
    seed: int,
    threads: int,
) -> tuple[float, Floats]:
    """Return the AUC of a classifier between the sides, and how much it used each feature."""
    from lightgbm import LGBMClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold

    matrix = np.concatenate(values)
    side = np.repeat([1, 0], [len(v) for v in values])
    weight = np.concatenate([1 / (np.bincount(c)[c] * (c.max() + 1)) for c in captures])
    weight *= len(weight) / weight.sum()
    scores = np.zeros(len(side))
    used = np.zeros(matrix.shape[1])
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    for train, test in folds.split(matrix, side, groups):
        model = LGBMClassifier(
            n_estimators=60, num_leaves=15, learning_rate=0.1, random_state=seed, verbose=-1,
            n_jobs=threads or None, importance_type="gain",
        )  # fmt: skip
        model.fit(matrix[train], side[train], sample_weight=weight[train])
        scores[test] = model.predict_proba(matrix[test])[:, 1]
        used += model.feature_importances_
    return float(roc_auc_score(side, scores, sample_weight=weight)), used
