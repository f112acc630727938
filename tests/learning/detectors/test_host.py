"""The decision about hosts: more evidence never speaks for one."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from tests.learning.training.factory import QUICK
from veilwatch.learning.checks.units import draw_training_set, random_evidence
from veilwatch.learning.detectors import DetectorSettings
from veilwatch.learning.detectors.host import HostDetector
from veilwatch.learning.features.host_evidence import (
    EVIDENCE_SCHEMA,
    Evidence,
    evidence_frame,
    host_evidence,
)

FEATURES = len(EVIDENCE_SCHEMA.names)
UNIT = st.tuples(st.floats(-12, 12), st.integers(0, 4))
UNITS = st.lists(UNIT, min_size=1, max_size=20)
Units = list[tuple[float, int]]


@cache
def decision() -> HostDetector:
    detector = HostDetector()
    training = draw_training_set(HostDetector, rows=400)
    detector.fit(training, DetectorSettings(seed=1, threads=1))
    return detector


def score(flows: Units, channels: Units, windows: Units) -> float:
    parts = []
    for units in (flows, channels, windows):
        odds, flow_class = (np.array(values) for values in zip(*units, strict=True))
        parts.append(Evidence(np.zeros(len(units), np.int64), odds, flow_class))
    return float(decision().predict_proba(host_evidence(1, *parts))[0])


@examples(100)
@given(UNITS, UNITS, UNITS, st.data())
def test_raising_any_odds_never_lowers_the_score(
    flows: Units, channels: Units, windows: Units, data: st.DataObject
) -> None:
    parts = [list(flows), list(channels), list(windows)]
    before = score(*parts)
    chosen = parts[data.draw(st.integers(0, 2))]
    row = data.draw(st.integers(0, len(chosen) - 1))
    odds, flow_class = chosen[row]
    chosen[row] = odds + data.draw(st.floats(0, 20)), flow_class
    assert score(*parts) >= before - 1e-12


@pytest.mark.parametrize("column", range(FEATURES), ids=EVIDENCE_SCHEMA.names)
def test_no_feature_speaks_for_a_host_by_being_larger(column: int) -> None:
    drawn = random_evidence(50, seed=4, malicious=np.arange(50) % 2 == 1)
    values = drawn.values.astype(np.float64)
    last = np.zeros(50)
    for odds in np.linspace(-14, 14, 30):
        values[:, column] = odds
        found = decision().predict_proba(evidence_frame(values))
        assert (found >= last - 1e-12).all()
        last = found


def test_every_kind_of_evidence_is_heeded() -> None:
    quiet, loud = [(-6.0, 0)] * 9, [(9.0, 0)] * 9
    least = score(quiet, quiet, quiet)
    for heard in ((loud, quiet, quiet), (quiet, loud, quiet), (quiet, quiet, loud)):
        assert score(*heard) > 1.5 * least


@pytest.mark.parametrize("rows", [8, 20, 60])
def test_it_learns_from_few_hosts(rows: int) -> None:
    detector = HostDetector()
    detector.fit(draw_training_set(HostDetector, rows=rows), QUICK)
    malicious = np.arange(100) % 2 == 1
    found = detector.predict_proba(random_evidence(100, seed=7, malicious=malicious))
    assert found[malicious].mean() > found[~malicious].mean() + 0.1


def test_what_grew_it_is_not_kept(tmp_path: Path) -> None:
    """The directions in which trees had to grow are a parameter: scoring needs none."""
    (name,) = decision().save(tmp_path)
    assert "monotone" not in (tmp_path / name).read_text()
