"""Flows in two dimensions: what lies near what, seen by what detectors are given."""

from __future__ import annotations

from typing import Final

import numpy as np

from veilwatch.corpus.catalogue import Corpus
from veilwatch.extras import from_extra
from veilwatch.learning.comparison.document import Point
from veilwatch.learning.features import compute_features
from veilwatch.schema.flows import FlowTable

with from_extra("train", "a comparison"):
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import QuantileTransformer

POINTS: Final = 1200
"""Flows on the map: more only cover each other."""

NAMED: Final = 7
"""Families with a colour of their own; the rest share one."""


def pca_map(corpus: Corpus, *, seed: int) -> list[Point]:
    """Return flows of all captures, each capture with equal weight, by their two main directions.

    Features are brought to ranks first, so that no long tail decides; what does not apply lies
    in the middle.
    """
    capture = corpus.flows["capture"].to_numpy()
    sizes = np.bincount(capture, minlength=len(corpus.entries))[capture]
    rng = np.random.default_rng(seed)
    count = min(POINTS, len(capture))
    rows = rng.choice(len(capture), count, replace=False, p=(1 / sizes) / (1 / sizes).sum())
    values = compute_features(FlowTable(corpus.flows[np.sort(rows)]), ("statistics",)).values
    values = values[:, ~np.isnan(values).all(axis=0)]
    if count < 3 or values.shape[1] < 2:
        return []
    ranks = QuantileTransformer(n_quantiles=min(200, count), random_state=seed).fit_transform(
        values
    )
    places = PCA(2, random_state=seed).fit_transform(np.nan_to_num(ranks, nan=0.5))
    names = [
        (entry.family or "malicious") if entry.label == "malicious" else "benign"
        for entry in (corpus.entries[int(k)] for k in capture[np.sort(rows)])
    ]
    malicious = [name for name in names if name != "benign"]
    common = sorted(set(malicious), key=malicious.count, reverse=True)[:NAMED]
    return [
        Point(
            x=round(float(x), 3),
            y=round(float(y), 3),
            label=name if name == "benign" or name in common else "other families",
        )
        for (x, y), name in zip(places, names, strict=True)
    ]
